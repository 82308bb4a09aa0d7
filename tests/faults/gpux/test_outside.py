"""The store's outer port, with a real agent behind it: who gets what, and what strangers and jobs can't do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import os
import socket
import tarfile
import threading
import time
from typing import Any

import pytest

from gpux import tokens
from gpux.hashes import b58encode
from tests.faults.gpux.processes import KEY, OPERATOR, TASK, laboratory, rss_kib, token, wait_for

pytestmark = pytest.mark.faults

PRIVATE, PUBLIC = b"what the tenant alone may see", b"<script>alert(1)</script>"
FILES = token(scope="files")
AGENT = token(external=True)
PUBLISHER = token(public=True, external=True)
OTHER = token(scope="files", namespace="other", task="task-2")
JOB_ID = base64.b32hexencode(bytes(6) + hashlib.sha256(TASK.encode()).digest()[:4]).decode().lower()
DOWNLOAD, LIST = f"/api/job/storage/download/{TASK}", f"/api/job/storage/list/{TASK}"


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with laboratory(tmp_path_factory.mktemp("outside")) as made:
        made.start_store()
        for content, bearer in ((PRIVATE, AGENT), (PUBLIC, PUBLISHER)):
            assert made.ask("POST", "/v1/files", body=content, bearer=bearer)[0] == 201
        made.token_file.write_text(AGENT)
        out = made.job_storage / "out"
        out.mkdir()
        (out / "a.txt").write_bytes(b"one")
        (out / "token").symlink_to(made.token_file)
        (made.job_storage / "large").write_bytes(os.urandom(1 << 20) * 64)
        made.start_agent(calls=False, storage=True)
        yield made


def link(lab, *, bearer: str = FILES, seconds: int = 600, **what: Any) -> str:
    body = {"seconds": seconds, **what}
    status, _, content = lab.outside("POST", "/v1/links", body=body, bearer=bearer)
    assert status == 201, content
    document = json.loads(content)
    assert document["url"].startswith(lab.external_url + "/")
    assert document["expires"] <= time.time() + seconds
    return str(document["url"][len(lab.external_url) :])


def signed(**claims: Any) -> str:
    return tokens.sign(KEY, {"scope": "link", "namespace": "tenant", "exp": int(time.time()) + 3600} | claims)


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "name",
    [sha1(PUBLIC), b58encode(bytes.fromhex(sha1(PUBLIC))), hashlib.sha256(PUBLIC).hexdigest() + ".zip"],
)
def test_whoever_knows_the_hash_of_a_public_file_has_it(lab, name):
    status, headers, content = lab.outside("GET", f"/download_file/{name}")
    assert (status, content) == (200, PUBLIC)
    status, headers, content = lab.outside("HEAD", f"/download_file/{name}")
    assert (status, headers["content-length"], content) == (200, str(len(PUBLIC)), b"")
    status, _, content = lab.outside("GET", f"/download_file/{name}", headers={"Range": "bytes=1-6"})
    assert (status, content) == (206, b"script")
    same = {"If-None-Match": headers["etag"]}
    assert lab.outside("GET", f"/download_file/{name}", headers=same)[0] == 304
    assert lab.outside("GET", f"/download_file/{name}", headers={"Range": "bytes=99-"})[0] == 416


def test_nobody_can_tell_what_is_there_and_not_public(lab):
    absent = lab.outside("GET", f"/download_file/{'0' * 40}")
    there = lab.outside("GET", f"/download_file/{sha1(PRIVATE)}")
    foreign = lab.outside("GET", f"/download_file/{sha1(PRIVATE)}", bearer=OTHER)
    assert absent[0] == there[0] == foreign[0] == 404
    assert absent[2] == there[2] == foreign[2]
    unstamped = [{k: v for k, v in answer[1].items() if k != "date"} for answer in (absent, there, foreign)]
    assert unstamped[0] == unstamped[1] == unstamped[2]


def test_a_tasks_token_has_the_files_of_its_namespace(lab):
    for path in ("/download_file/", "/v1/files/"):
        status, _, content = lab.outside("GET", path + sha1(PRIVATE), bearer=FILES)
        assert (status, content) == (200, PRIVATE)
    content = b"from outside"
    status, _, answer = lab.outside("POST", "/upload_file", body=content, bearer=FILES)
    assert (status, json.loads(answer)["sha1"]) == (201, sha1(content))
    assert lab.ask("GET", f"/v1/files/{sha1(content)}", bearer=AGENT)[2] == content
    assert lab.outside("GET", f"/download_file/{sha1(content)}")[0] == 404
    status, _, answer = lab.outside("GET", "/v1/files", bearer=FILES)
    assert status == 200
    listed = {entry["sha1"] for entry in json.loads(answer)["files"]}
    assert {sha1(PRIVATE), sha1(PUBLIC), sha1(content)} <= listed
    assert json.loads(lab.outside("GET", "/v1/files", bearer=OTHER)[2])["files"] == []


@pytest.mark.parametrize(
    "bearer",
    [AGENT, PUBLISHER, OPERATOR, token(scope="files", seconds=-1), FILES[:-1], "x", signed(hash="0" * 40)],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/download_file/{sha1(PRIVATE)}"),
        ("GET", f"/download_file/{sha1(PUBLIC)}"),
        ("POST", "/upload_file"),
        ("GET", "/v1/files"),
        ("POST", "/v1/links"),
        ("GET", DOWNLOAD),
        ("GET", "/nowhere"),
    ],
)
def test_tokens_for_anything_else_are_nothing_here(lab, bearer, method, path):
    status, headers, content = lab.outside(method, path, bearer=bearer)
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert set(json.loads(content)) == {"error"}


@pytest.mark.parametrize(
    ("method", "path", "bearer", "expected"),
    [
        ("GET", "/", None, 401),
        ("GET", "/metrics", None, 401),
        ("POST", "/upload_file", None, 401),
        ("GET", "/v1/files", None, 401),
        ("GET", LIST, None, 401),
        ("GET", DOWNLOAD, None, 401),
        ("GET", "/v1/calls", FILES, 404),
        ("GET", "/v1/changes", FILES, 404),
        ("GET", f"/v1/calls/{TASK}", FILES, 404),
        ("GET", f"/v1/pulls/{TASK}", FILES, 404),
        ("DELETE", f"/v1/tasks/{TASK}", FILES, 404),
        ("GET", "/v1/files?namespace=other", FILES, 403),
        ("POST", "/upload_file?namespace=other", FILES, 403),
        ("GET", "/v1/files?task=task-2", FILES, 403),
        ("GET", "/upload_file", FILES, 405),
        ("DELETE", f"/download_file/{sha1(PUBLIC)}", None, 405),
        ("GET", "/download_file/abc", None, 400),
        ("GET", "/download_file/..", None, 400),
        ("GET", "/download_file/../v1/files", None, 404),
        ("GET", "/download_file/%2e%2e%2fkey", None, 404),
        ("GET", f"/download_file/{sha1(PUBLIC)}?token=x", None, 401),
        ("GET", "/api/job/storage/download/task-2", FILES, 404),
        ("GET", "/api/job/storage/download/061i6uku7ie62tg1", FILES, 404),
        ("GET", f"{DOWNLOAD}?root=etc", FILES, 400),
        ("GET", f"{DOWNLOAD}?path=../token", FILES, 400),
        ("GET", f"{DOWNLOAD}?path=out/nothing", FILES, 404),
        ("GET", f"{DOWNLOAD}?path=out/token", FILES, 409),
        ("GET", f"{DOWNLOAD}?root=usr", FILES, 404),
        ("GET", f"{DOWNLOAD}?path={'a' * 5000}", FILES, 400),
        ("POST", DOWNLOAD, FILES, 405),
    ],
)
def test_doors_that_are_closed(lab, method, path, bearer, expected):
    status, headers, content = lab.outside(method, path, bearer=bearer)
    assert status == expected, content
    assert set(json.loads(content)) == {"error"}
    assert KEY not in content
    assert headers["content-security-policy"].startswith("sandbox")


@pytest.mark.parametrize("bearer", [FILES, signed(hash=sha1(PRIVATE)), signed(task=TASK, path="job/")])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"/v1/files/{sha1(PRIVATE)}"), ("POST", "/v1/files"), ("GET", f"/v1/calls/{TASK}")],
)
def test_tokens_for_the_outside_are_nothing_inside(lab, bearer, method, path):
    status, _, content = lab.ask(method, path, bearer=bearer)
    assert (status, json.loads(content)) == (401, {"error": "this token is for another purpose"})


def test_nothing_that_is_hosted_is_ever_a_page(lab):
    """Neither a browser nor a page of another site makes anything of it."""
    answers = [
        lab.outside("GET", f"/download_file/{sha1(PUBLIC)}", headers={"Origin": "https://evil.example"}),
        lab.outside("GET", f"{DOWNLOAD}?path=out/a.txt", bearer=FILES),
        lab.outside("GET", f"{DOWNLOAD}?path=out", bearer=FILES),
    ]
    for status, headers, _ in answers:
        assert status == 200
        assert headers["content-type"] in {"application/octet-stream", "application/x-tar"}
        assert headers["content-disposition"] == "attachment"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert headers["referrer-policy"] == "no-referrer"
        assert not [name for name in headers if name.startswith("access-control")]


# ---------------------------------------------------------------------------------------------- links


def test_a_link_is_good_for_one_file(lab):
    path = link(lab, hash=sha1(PRIVATE))
    assert lab.outside("GET", path)[2] == PRIVATE
    assert lab.outside("HEAD", path)[0] == 200
    other = path.replace(sha1(PRIVATE), sha1(b"from outside"))
    assert other != path
    assert lab.outside("GET", other)[0] == 404
    query = path.partition("?")[2]
    assert lab.outside("GET", f"{DOWNLOAD}?{query}")[0] == 404
    assert lab.outside("GET", f"/v1/files?{query}")[0] == 403
    assert lab.outside("POST", f"/upload_file?{query}", body=b"x")[0] == 403


@pytest.mark.parametrize("what", ["out/a.txt", "out", ""])
def test_a_link_is_good_for_one_place(lab, what):
    path = link(lab, task=TASK, path=f"job/{what}")
    assert lab.outside("GET", path)[0] == 200
    query = path.partition("&token=")[2]
    assert lab.outside("GET", f"{DOWNLOAD}?path=large&token={query}")[0] == 404
    assert lab.outside("GET", f"{DOWNLOAD}?root=usr&path={what}&token={query}")[0] == 404
    assert lab.outside("GET", f"{LIST}?path={what}&token={query}")[0] == 403


def test_a_link_ends(lab):
    path = link(lab, hash=sha1(PRIVATE), seconds=2)
    assert lab.outside("GET", path)[0] == 200
    wait_for(lambda: lab.outside("GET", path)[0] == 401, "the link's end")


def test_a_link_outlives_nobody_who_made_it(lab):
    bearer = token(scope="files", seconds=100)
    body = {"hash": sha1(PRIVATE), "seconds": 3600}
    document = json.loads(lab.outside("POST", "/v1/links", body=body, bearer=bearer)[2])
    assert document["expires"] <= time.time() + 100


def test_a_link_that_was_tampered_with(lab):
    path = link(lab, hash=sha1(PRIVATE))
    head, _, mac = path.rpartition(".")
    flipped = mac[:-2] + ("A" if mac[-2] != "A" else "B") + mac[-1]
    assert lab.outside("GET", f"{head}.{flipped}")[0] == 401
    forged = tokens.sign(
        b"x" * 32, {"scope": "link", "namespace": "tenant", "exp": 1 << 40, "hash": sha1(PRIVATE)}
    )
    assert lab.outside("GET", f"/download_file/{sha1(PRIVATE)}?token={forged}")[0] == 401
    # Tokens of people and agents are no links: they would end up in histories and logs of proxies.
    for bearer in (FILES, AGENT, OPERATOR):
        assert lab.outside("GET", f"/download_file/{sha1(PRIVATE)}?token={bearer}")[0] == 401


@pytest.mark.parametrize(
    ("body", "bearer", "expected"),
    [
        ({"hash": "0" * 40}, FILES, 404),
        ({"hash": sha1(PRIVATE)}, OTHER, 404),
        ({"task": TASK, "path": "job/"}, OTHER, 404),
        ({"hash": "abc"}, FILES, 400),
        ({"hash": sha1(PRIVATE), "seconds": 0}, FILES, 400),
        ({"hash": sha1(PRIVATE), "seconds": 10**9}, FILES, 400),
        ({"hash": sha1(PRIVATE), "seconds": True}, FILES, 400),
        ({"hash": sha1(PRIVATE), "task": TASK, "path": "job/"}, FILES, 400),
        ({"task": TASK, "path": "etc/passwd"}, FILES, 400),
        ({"task": TASK, "path": "job/../x"}, FILES, 400),
        ({"task": TASK, "path": "usr/out/."}, FILES, 400),
        ({}, FILES, 400),
    ],
)
def test_links_that_are_none(lab, body, bearer, expected):
    status, _, content = lab.outside("POST", "/v1/links", body={"seconds": 60, **body}, bearer=bearer)
    assert status == expected, content


def test_a_job_that_is_open_makes_links_and_another_does_not(lab):
    body = {"hash": sha1(PRIVATE), "seconds": 60}
    status, _, content = lab.ask("POST", "/v1/links", body=body, bearer=AGENT)
    assert status == 201
    path = json.loads(content)["url"][len(lab.external_url) :]
    assert lab.outside("GET", path)[2] == PRIVATE
    assert lab.ask("POST", "/v1/links", body=body, bearer=token())[0] == 403


# ---------------------------------------------------------------------------------------------- the job's storage


def members(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: member for member in archive.getmembers()}


@pytest.mark.parametrize("job", [TASK, JOB_ID])
def test_the_storage_of_a_running_job(lab, job):
    status, _, content = lab.outside("GET", f"/api/job/storage/list/{job}?path=out", bearer=FILES)
    assert status == 200
    entries = {entry["name"]: entry for entry in json.loads(content)["entries"]}
    assert entries["a.txt"]["size"] == 3
    assert entries["token"]["type"] == "link"
    download = f"/api/job/storage/download/{job}"
    status, headers, content = lab.outside("GET", f"{download}?path=out/a.txt", bearer=FILES)
    assert (status, headers["content-length"], content) == (200, "3", b"one")
    status, _, content = lab.outside("GET", f"{download}/?root=job", bearer=FILES)
    assert status == 200
    found = members(content)
    assert set(found) == {"out", "out/a.txt", "out/token", "large"}
    assert found["out/token"].issym()
    assert AGENT.encode() not in content


def test_a_large_file_passes_through_in_little_memory(lab, measured):
    content = (lab.job_storage / "large").read_bytes()
    assert lab.outside("GET", f"{DOWNLOAD}?path=large", bearer=FILES)[2] == content
    assert members(lab.outside("GET", DOWNLOAD, bearer=FILES)[2])["large"].size == len(content)
    (serving,) = lab.agent.children()
    store, agent = (rss_kib(pid, "VmHWM") // 1024 for pid in (lab.store.pid, serving))
    measured(f"64 MiB of a job's storage, alone and as tar: store {store} MiB, agent {agent} MiB")
    assert store <= 64
    assert agent <= 64


def test_many_at_once(lab):
    """More than the agent serves at once wait their turn."""
    answers: list[bytes] = []

    def fetch() -> None:
        answers.append(lab.outside("GET", f"{DOWNLOAD}?path=out/a.txt", bearer=FILES)[2])

    threads = [threading.Thread(target=fetch) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"one"] * 12


def test_readers_that_leave_or_stall_do_not_hold_the_agent(lab):
    """It serves four at once: as many leave in the middle, and the next one is served."""
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", lab.external_port)) as reader:
            reader.sendall(
                f"GET {DOWNLOAD}?path=large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {FILES}\r\n\r\n".encode()
            )
            assert reader.recv(1000).startswith(b"HTTP/1.1 200")
    assert lab.outside("GET", f"{DOWNLOAD}?path=out/a.txt", bearer=FILES)[2] == b"one"


def test_what_an_agent_may_bring(lab):
    answer = lab.ask("PUT", f"/v1/pulls/{TASK}/{'0' * 32}", body=b"x", bearer=AGENT)
    assert answer[0] == 404
    assert lab.ask("GET", f"/v1/pulls/{TASK}", bearer=token())[0] == 403
    assert lab.ask("GET", f"/v1/pulls/{TASK}", bearer=token(task="task-2", external=True))[0] == 403
    assert lab.ask("GET", f"/v1/pulls/{TASK}", bearer=FILES)[0] == 401
    assert lab.ask("GET", f"/v1/pulls/{TASK}", bearer=OPERATOR)[0] == 403
    assert lab.ask("GET", f"/v1/pulls/{TASK}", bearer=None)[0] == 401


def test_only_the_jobs_own_agent_answers_and_only_once(lab):
    """A forged agent has the wrong token; the job's own can't bring what isn't known, nor twice."""
    people, agent = token(scope="files", task="task-9"), token(task="task-9", external=True)
    answers: list[tuple[int, dict[str, str], bytes]] = []
    path = "/api/job/storage/list/task-9?path=out"
    asking = threading.Thread(target=lambda: answers.append(lab.outside("GET", path, bearer=people)))
    asking.start()
    status, _, content = lab.ask("GET", "/v1/pulls/task-9?wait=30", bearer=agent)
    question = json.loads(content)
    assert status == 200
    assert (question["root"], question["path"], question["kind"]) == ("job", "out", "list")
    answer = f"/v1/pulls/task-9/{question['id']}"
    kind = {"Content-Type": "application/json"}
    for bearer, headers, query, expected in (
        (AGENT, kind, "", 403),
        (people, kind, "", 401),
        (token(task="task-9"), kind, "", 403),
        (token(task="task-9", namespace="other", external=True), kind, "", 404),
        (agent, {"Content-Type": "text/html"}, "", 400),
        (agent, kind, "?error=200", 400),
        (agent, kind, "?error=500", 400),
    ):
        assert lab.ask("PUT", answer + query, body=b"{}", bearer=bearer, headers=headers)[0] == expected
    assert lab.ask("PUT", answer, body=b'{"entries": []}', bearer=agent, headers=kind)[0] == 200
    assert lab.ask("PUT", answer, body=b"{}", bearer=agent, headers=kind)[0] == 404
    asking.join()
    ((status, _, content),) = answers
    assert (status, content) == (200, b'{"entries": []}')


def test_nothing_of_a_token_is_in_any_log(lab):
    path = link(lab, hash=sha1(PRIVATE))
    lab.outside("GET", path)
    lab.outside("GET", path + "x")
    with socket.create_connection(("127.0.0.1", lab.external_port)) as stranger:
        stranger.sendall(f"GET {path} HTTP/9.9\r\n\r\n".encode())
        stranger.recv(1000)
    text = (lab.root / "store.log").read_text() + (lab.root / "agent.log").read_text()
    assert text
    for secret in (FILES, AGENT, PUBLISHER, OTHER, OPERATOR, path.partition("token=")[2]):
        assert secret not in text
        assert secret.split(".")[1] not in text


# ---------------------------------------------------------------------------------------------- deaths


def test_an_agent_that_dies_in_the_middle_leaves_no_whole_file(tmp_path):
    with laboratory(tmp_path) as lab:
        lab.start_store()
        lab.token_file.write_text(AGENT)
        (lab.job_storage / "large").write_bytes(bytes(64 << 20))
        lab.start_agent(calls=False, storage=True)
        for path in ("large", ""):
            with contextlib.closing(
                http.client.HTTPConnection("127.0.0.1", lab.external_port, timeout=60)
            ) as connection:
                connection.request(
                    "GET", f"{DOWNLOAD}?path={path}", headers={"Authorization": f"Bearer {FILES}"}
                )
                response = connection.getresponse()
                assert response.status == 200
                assert response.read(1000)
                lab.kill_agent()
                with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                    response.read()
            # The next one is there at once, also while the store still has the polls of the dead.
            lab.start_agent(calls=False, storage=True)
            status, _, content = lab.outside("GET", LIST, bearer=FILES)
            assert status == 200, content


def test_the_store_comes_back_under_an_agent(tmp_path):
    with laboratory(tmp_path) as lab:
        lab.start_store()
        lab.token_file.write_text(AGENT)
        lab.start_agent(calls=False, storage=True)
        assert lab.outside("GET", LIST, bearer=FILES)[0] == 200
        lab.store.kill()
        lab.start_store()
        assert lab.outside("GET", LIST, bearer=FILES)[0] == 200


def test_an_agent_that_reads_for_others_stays_small(tmp_path, measured):
    with laboratory(tmp_path) as lab:
        lab.start_store()
        lab.token_file.write_text(AGENT)
        lab.start_agent(storage=True)
        wait_for(lambda: "the agent serves" in (lab.root / "agent.log").read_text(), "the agent")
        resident = sum(rss_kib(pid) for pid in [lab.agent.pid, *lab.agent.children()]) / 1024
        measured(f"idle agent that reads for others: {resident:.1f} MiB in all its processes")
        assert resident <= 32

"""Input from strangers, at every door of store and agent: the code is the honest one, and nothing leaks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from typing import Any

import pytest

from gpux import tokens
from gpux.hashes import b58encode
from gpux.store.uploads import UNDER_WAY
from tests.faults.gpux.processes import OPERATOR, TASK, UnixConnection, laboratory, rss_kib, token, wait_for
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.faults

SECRET = b"what tenant has"
SHA1 = hashlib.sha1(SECRET).hexdigest()
SHA256 = hashlib.sha256(SECRET).hexdigest()
TENANT = token()
OTHER = token(namespace="other", task="task-2")
NEIGHBOUR = token(task="task-3")
EXPIRED = token(seconds=-1)
FORGED = tokens.sign(b"x" * 32, {"scope": "operator", "exp": int(time.time()) + 3600})


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with laboratory(tmp_path_factory.mktemp("hostile")) as made:
        made.start_store()
        status, _, _ = made.ask("POST", "/v1/files", body=SECRET, bearer=TENANT)
        assert status == 201
        made.call(1, "abc")
        made.start_agent(calls=False)
        yield made


def error_of(content):
    document = json.loads(content)
    assert set(document) == {"error"}
    return document["error"]


# ---------------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("bearer", [None, "", "x", "v1.e30.e30", EXPIRED, FORGED, TENANT[:-1], TENANT + "A"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/v1/files/{SHA1}"),
        ("POST", "/v1/files"),
        ("GET", f"/v1/calls/{TASK}"),
        ("POST", f"/v1/calls/{TASK}/1/claim"),
        ("GET", "/v1/calls"),
        ("GET", "/v1/changes"),
        ("GET", "/nowhere"),
    ],
)
def test_nothing_without_a_token(lab, bearer, method, path):
    status, headers, content = lab.ask(method, path, bearer=bearer)
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert error_of(content)


@pytest.mark.parametrize(
    "name", [SHA1, SHA256, b58encode(bytes.fromhex(SHA1)), b58encode(bytes.fromhex(SHA256)), SHA1 + ".zip"]
)
def test_others_cannot_tell_what_is_there(lab, name):
    assert lab.ask("GET", f"/v1/files/{name}", bearer=TENANT)[2] == SECRET
    absent = lab.ask("GET", f"/v1/files/{'0' * 40}", bearer=OTHER)
    there = lab.ask("GET", f"/v1/files/{name}", bearer=OTHER)
    assert there[0] == absent[0] == 404
    assert there[2] == absent[2]


def test_uploading_tells_nothing_about_others(lab):
    """A second tenant's upload of known bytes looks like any first upload."""
    content = b"known to one of them"
    assert lab.ask("POST", "/v1/files", body=content, bearer=TENANT)[0] == 201
    assert lab.ask("POST", "/v1/files", body=content, bearer=OTHER)[0] == 201
    assert lab.ask("POST", "/v1/files", body=content, bearer=OTHER)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "bearer", "expected"),
    [
        ("GET", f"/v1/files/{SHA1}?namespace=tenant", OTHER, 403),
        ("POST", "/v1/files?namespace=tenant", OTHER, 403),
        ("GET", f"/v1/calls/{TASK}", OTHER, 403),
        ("GET", f"/v1/calls/{TASK}", NEIGHBOUR, 403),
        ("POST", f"/v1/calls/{TASK}/1/claim", NEIGHBOUR, 403),
        ("POST", f"/v1/calls/{TASK}/1/state", NEIGHBOUR, 403),
        ("PUT", f"/v1/calls/{TASK}/1/answer", NEIGHBOUR, 403),
        ("PUT", f"/v1/calls/{TASK}/1", TENANT, 403),
        ("GET", f"/v1/calls/{TASK}/1", TENANT, 403),
        ("DELETE", f"/v1/calls/{TASK}", TENANT, 403),
        ("GET", "/v1/calls", TENANT, 403),
        ("GET", "/v1/changes", TENANT, 403),
        # The task's name with another namespace in the token: a token for a namesake, not for this one.
        ("POST", f"/v1/calls/{TASK}/1/claim", token(namespace="other"), 404),
        ("PUT", f"/v1/calls/{TASK}/1/answer", token(namespace="other"), 404),
    ],
)
def test_the_tokens_of_others(lab, method, path, bearer, expected):
    body = {"pod": "p", "state": "sent"} if method in {"POST", "PUT"} and "/1/" in path else None
    status, _, content = lab.ask(method, path, bearer=bearer, body=body)
    assert status == expected, content
    assert error_of(content)
    assert lab.record(1)["state"] == "queued"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/files/abc", 400),
        ("GET", f"/v1/files/{SHA1}.", 400),
        ("GET", f"/v1/files/{SHA1[:-1]}g", 400),
        ("GET", "/v1/files/..", 400),
        ("GET", "/v1/files/../calls", 404),
        ("GET", "/v1/files/%2e%2e%2fkey", 404),
        ("GET", f"/v1/files/%{SHA1}", 404),
        ("GET", f"/v1/files/{SHA1}/", 404),
        ("GET", f"//v1/files/{SHA1}", 404),
        ("GET", "/v1/files/" + "a" * 500, 404),
        ("GET", f"/v1/files/{'0' * 40}", 404),
        ("DELETE", "/v1/files", 405),
        ("DELETE", f"/v1/files/{SHA1}", 405),
        ("POST", f"/v1/files/{SHA1}", 405),
        ("GET", f"/v1/calls/{TASK}?wait=x", 400),
        ("GET", f"/v1/calls/{TASK}?wait=-1", 400),
        ("GET", f"/v1/calls/{TASK}?after=1e9", 400),
        ("GET", f"/v1/calls/{TASK}?wait=99999999999999999999", 400),
        ("PATCH", f"/v1/calls/{TASK}", 405),
    ],
)
def test_paths(lab, method, path, expected):
    status, _, content = lab.ask(method, path, bearer=TENANT)
    assert status == expected
    assert error_of(content)


GOOD_CALL: dict[str, Any] = {
    "namespace": "tenant",
    "function": "run",
    "address": "0x1",
    "data": {},
    "deadline": None,
}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/calls/t9/1", b"", 400),
        ("/v1/calls/t9/1", b"[]", 400),
        ("/v1/calls/t9/1", b"{", 400),
        ("/v1/calls/t9/1", b"[" * 100_000, 400),
        ("/v1/calls/t9/1", b"\xff", 400),
        ("/v1/calls/t9/1", {}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "namespace": "../x"}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "namespace": "UPPER"}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "function": "run/../x"}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "function": "run HTTP/1.1\r\nX: y"}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "address": "0x1\r\n"}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "address": 7}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "deadline": "soon"}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "deadline": True}, 400),
        ("/v1/calls/t9/1", {**GOOD_CALL, "data": "x" * (1 << 20)}, 413),
        ("/v1/calls/t9/0", GOOD_CALL, 404),
        ("/v1/calls/t9/x", GOOD_CALL, 404),
        ("/v1/calls/t9/99999999", GOOD_CALL, 404),
        ("/v1/calls/../1", GOOD_CALL, 404),
        ("/v1/calls/.hidden/1", GOOD_CALL, 404),
        ("/v1/calls/a%2fb/1", GOOD_CALL, 404),
        (f"/v1/calls/{'t' * 200}/1", GOOD_CALL, 404),
    ],
)
def test_calls_that_are_none(lab, path, body, expected):
    status, _, content = lab.ask("PUT", path, body=body)
    assert status == expected, content
    assert error_of(content)


@pytest.mark.parametrize(
    ("step", "body", "expected"),
    [
        ("claim", {}, 400),
        ("claim", {"pod": ""}, 400),
        ("claim", {"pod": 7}, 400),
        ("claim", {"pod": "a/b"}, 400),
        ("claim", {"pod": "x" * 50_000}, 413),
        ("claim", b"[" * 16_000, 400),
        ("state", {"state": "answered"}, 400),
        ("state", {"state": "queued"}, 400),
        ("state", {"state": ["sent"]}, 400),
        ("state", {"state": "sent", "status": "202"}, 400),
        ("state", {"state": "sent", "detail": 7}, 400),
        ("state", {"state": "sent", "sentAt": 1e300}, 400),
        ("state", {"state": "sent", "sentAt": "now"}, 400),
        ("state", {"state": "sent"}, 409),
    ],
)
def test_steps_that_are_none(lab, step, body, expected):
    status, _, content = lab.ask("POST", f"/v1/calls/{TASK}/1/{step}", body=body, bearer=TENANT)
    assert status == expected, content
    assert error_of(content)
    assert lab.record(1)["state"] == "queued"


@pytest.mark.parametrize(
    ("body", "expected"), [(b"", 400), (b"{", 400), (b"NaN", 400), (b" " * ((16 << 20) + 1), 413)]
)
def test_answers_that_are_none(lab, body, expected):
    status, _, content = lab.ask("PUT", f"/v1/calls/{TASK}/1/answer", body=body, bearer=TENANT)
    assert status == expected, content
    assert lab.record(1)["answer"] is None


@pytest.mark.parametrize("when", ["now", "-1", "nan", "1e300"])
def test_answers_of_no_time(lab, when):
    path = f"/v1/calls/{TASK}/1/answer?answeredAt={when}"
    status, _, content = lab.ask("PUT", path, body=b"{}", bearer=TENANT)
    assert status == 400, content
    assert "answeredAt" in error_of(content)
    assert lab.record(1)["answer"] is None


def test_an_answer_of_the_largest_size(lab):
    lab.ask("PUT", "/v1/calls/task-4/1", body={**GOOD_CALL, "address": "0x4"})
    largest = json.dumps("x" * ((16 << 20) - 2)).encode()
    bearer = token(task="task-4")
    assert lab.ask("PUT", "/v1/calls/task-4/1/answer", body=largest, bearer=bearer)[0] == 201
    assert lab.ask("PUT", "/v1/calls/task-4/1/answer", body=largest, bearer=bearer)[0] == 200
    assert lab.ask("PUT", "/v1/calls/task-4/1/answer", body=b"{}", bearer=bearer)[0] == 409
    record = json.loads(lab.ask("GET", "/v1/calls/task-4/1")[2])
    assert record["answer"]["size"] == 16 << 20
    assert record["answer"]["inline"] is None
    stored = lab.ask("GET", f"/v1/files/{record['answer']['sha1']}?namespace=tenant")[2]
    assert stored == largest


@pytest.mark.parametrize(
    ("headers", "expected", "content"),
    [
        ({"Range": "bytes=0-3"}, 206, SECRET[:4]),
        ({"Range": "bytes=5-"}, 206, SECRET[5:]),
        ({"Range": "bytes=-3"}, 206, SECRET[-3:]),
        ({"Range": "bytes=-999"}, 206, SECRET),
        ({"Range": "bytes=5-999"}, 206, SECRET[5:]),
        ({"Range": "bytes=999-"}, 416, None),
        ({"Range": "bytes=-0"}, 416, None),
        ({"Range": "bytes=3-1"}, 200, SECRET),
        ({"Range": "bytes=-"}, 200, SECRET),
        ({"Range": "bytes=0-1,3-4"}, 200, SECRET),
        ({"Range": "lines=1-2"}, 200, SECRET),
        ({"Range": "bytes=" + "9" * 200 + "-"}, 200, SECRET),
        ({"Range": "bytes=0-3", "If-Range": '"other"'}, 200, SECRET),
        ({"Range": "bytes=0-3", "If-Range": f'"{SHA256}"'}, 206, SECRET[:4]),
        ({"If-None-Match": f'"{SHA256}"'}, 304, b""),
        ({"If-None-Match": f'W/"{SHA256}", "x"'}, 304, b""),
        ({"If-None-Match": "*"}, 304, b""),
        ({"If-None-Match": '"x"'}, 200, SECRET),
    ],
)
def test_ranges_and_conditions(lab, headers, expected, content):
    status, told, found = lab.ask("GET", f"/v1/files/{SHA1}", bearer=TENANT, headers=headers)
    assert status == expected
    if content is not None:
        assert found == content
        assert told["etag"] == f'"{SHA256}"'
    status, told, found = lab.ask("HEAD", f"/v1/files/{SHA1}", bearer=TENANT)
    assert (status, told["content-length"], found) == (200, str(len(SECRET)), b"")


def raw(port, sent, *, wait=60.0):
    """What comes back for bytes that may be no HTTP at all."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(sent)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http(lab, sent):
    head, _, content = raw(lab.store_port, sent).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"400"
    assert error_of(content) == "the request is malformed"


def test_a_body_that_breaks_off_is_no_file(lab):
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TENANT}\r\nContent-Length: 99\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", lab.store_port)) as connection:
        connection.sendall(head.encode() + b"only this much")
        wait_for(lambda: list((lab.data / "tmp").iterdir()), "the upload's start")
    wait_for(lambda: not list((lab.data / "tmp").iterdir()), "the upload's end")
    name = hashlib.sha1(b"only this much").hexdigest()
    assert lab.ask("GET", f"/v1/files/{name}", bearer=TENANT)[0] == 404


def test_clients_that_say_nothing_hold_nothing_up(lab):
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", lab.store_port)))
            connection.sendall(b"GET /v1/files HTTP/1.1\r\nAutho")
        assert lab.ask("GET", f"/v1/files/{SHA1}", bearer=TENANT)[2] == SECRET


def test_uploads_that_stall_leave_room_for_other_tenants(lab):
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TENANT}\r\nContent-Length: 99\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", lab.store_port)))
            connection.sendall(head.encode() + b"stalled")
        wait_for(lambda: len(list((lab.data / "tmp").iterdir())) == 20, "the uploads' start")
        assert lab.ask("POST", "/v1/files", body=b"from another", bearer=OTHER)[0] == 201
    wait_for(lambda: not list((lab.data / "tmp").iterdir()), "the uploads' end")


@contextlib.contextmanager
def dripping(connections):
    """Send a byte on each of them ten times a second, for as long as they last."""
    over = threading.Event()

    def drip():
        while not over.wait(0.1):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(b"1")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_whoever_sends_drop_by_drop_keeps_nobody_out(lab):
    """Two tenants have as many uploads and answers under way as they may; a third doesn't notice."""
    with contextlib.ExitStack() as stack:
        connections: list[socket.socket] = []

        def begin(method, path, bearer):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", lab.store_port)))
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n"
            # Every other one is of those that the store reads into buffers, if it gets that far.
            length = (1_000_000, 10_000_000)[len(connections) // 2 % 2]
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\n1".encode())
            connections.append(connection)

        attackers = []
        for name in ("first-attacker", "second-attacker"):
            bearer = token(namespace=name, task=name)
            body = {**GOOD_CALL, "namespace": name}
            assert lab.ask("PUT", f"/v1/calls/{name}/1", body=body)[0] == 201
            attackers.append((f"/v1/calls/{name}/1/answer", bearer))
        stack.enter_context(dripping(connections))
        for answer, bearer in attackers:
            for _ in range(UNDER_WAY):
                begin("POST", "/v1/files", bearer)
                begin("PUT", answer, bearer)
        everything = 4 * UNDER_WAY
        wait_for(lambda: len(list((lab.data / "tmp").iterdir())) == everything, "all the attackers' uploads")
        for answer, bearer in attackers:
            for method, path in (("POST", "/v1/files"), ("PUT", answer)):
                status, headers, _ = lab.ask(method, path, body=b"1", bearer=bearer)
                assert (status, headers["retry-after"]) == (503, "10")

        for number in range(3):
            task = f"unharmed-{number}"
            lab.ask("PUT", f"/v1/calls/{task}/1", body={**GOOD_CALL, "namespace": "other"})
            bearer = token(namespace="other", task=task)
            began = time.monotonic()
            assert lab.ask("POST", "/v1/files", body=b"%d" % number * 5_000_000, bearer=bearer)[0] == 201
            assert lab.ask("PUT", f"/v1/calls/{task}/1/answer", body=b"{}", bearer=bearer)[0] == 201
            print(f"an upload and an answer among the drops took {time.monotonic() - began:.1f} s")
        assert len(list((lab.data / "tmp").iterdir())) == everything
        size = rss_kib(lab.store.pid)
        print(f"with {everything} of them the store has {size >> 10} MiB")
        assert size < 64 << 10
    wait_for(lambda: not list((lab.data / "tmp").iterdir()), "the uploads' end")


def test_a_dripping_upload_is_whole_in_the_end(lab):
    """It has many slots, one after the other."""
    content = b"%d" % time.time_ns()
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TENANT}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", lab.store_port), timeout=60 * PATIENCE) as connection:
        connection.sendall(head.encode())
        for written in range(0, len(content), 5):
            connection.sendall(content[written : written + 5])
            arrived = min(written + 5, len(content))
            # Without waiting for the rest: whoever is silent leaves nothing in memory.
            if arrived < len(content):
                wait_for(
                    lambda: [file.stat().st_size for file in (lab.data / "tmp").iterdir()] == [arrived],  # noqa: B023
                    "the bytes in the file",
                )
        assert connection.recv(100).startswith(b"HTTP/1.1 201")
    name = hashlib.sha1(content).hexdigest()
    assert lab.ask("GET", f"/v1/files/{name}", bearer=TENANT)[2] == content


def test_two_thousand_agents_wait_at_little_cost(lab):
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    before = rss_kib(lab.store.pid)
    with contextlib.ExitStack() as stack:
        waiting = []
        for number in range(2000):
            bearer = token(task=f"waiting-{number}")
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", lab.store_port)))
            path = f"/v1/calls/waiting-{number}?wait=60"
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()
            )
            waiting.append(connection)
        wait_for(lambda: lab.metric("gpux_store_long_polls") == 2000, "two thousand long polls")
        cost = (rss_kib(lab.store.pid) - before) / 2000
        print(f"a waiting agent costs the store {cost:.1f} KiB")
        assert cost < 32
        began = time.monotonic()
        lab.ask("PUT", "/v1/calls/waiting-1000/1", body={**GOOD_CALL, "address": "0x2"})
        waiting[1000].settimeout(60)
        assert waiting[1000].recv(100).startswith(b"HTTP/1.1 200")
        print(f"a call reached its agent after {(time.monotonic() - began) * 1000:.0f} ms")
        others = [connection for number, connection in enumerate(waiting) if number != 1000]
        for connection in others:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)


def test_metrics_have_bounded_labels(lab):
    lab.ask("BREW", "/v1/coffee", bearer=OPERATOR)
    for number in range(20):
        lab.ask("GET", f"/v1/files/{number:040}", bearer=TENANT)
    text = lab.metrics()
    assert "coffee" not in text
    assert "BREW" not in text
    assert "tenant" not in text
    assert text.count("gpux_store_requests_total{") < 80
    assert 'gpux_store_calls{state="queued"}' in text


def test_health_needs_no_token(lab):
    assert lab.ask("GET", "/healthz", bearer=None)[0] == 200
    assert lab.ask("GET", "/readyz", bearer=None)[0] == 200


def test_no_token_in_any_log(lab):
    text = (lab.root / "store.log").read_text() + (lab.root / "agent.log").read_text()
    assert TENANT not in text
    assert TENANT.split(".")[1] not in text
    assert TENANT.split(".")[2] not in text


# ---------------------------------------------------------------------------------------------- the agent


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/files", 404),
        ("GET", f"/v1/files/{SHA1}", 404),
        ("GET", "/v1/calls", 404),
        ("GET", "/api/file/download", 404),
        ("GET", "/api/file/download/", 400),
        ("GET", "/api/file/download/abc", 400),
        ("GET", "/api/file/download/..", 400),
        ("GET", f"/api/file/download/../../v1/calls/{TASK}", 400),
        ("GET", f"/api/file/download/{SHA1}?namespace=other", 200),
        ("GET", f"/api/file/download/%2e/{SHA1}", 400),
        ("GET", f"/api/file/download/{'0' * 40}", 404),
        ("POST", f"/api/file/download/{SHA1}", 405),
        ("DELETE", "/api/file/upload/", 405),
        ("GET", "/api/file/upload", 405),
        ("POST", "/api/file/upload/x", 404),
        ("GET", "/api/folder/upload/", 405),
        ("POST", "/api/folder/upload/", 400),
        ("POST", "/api/folder/upload/x", 404),
        ("GET", "/api/folder/download/", 400),
        ("GET", f"/api/folder/download/../../v1/calls/{TASK}", 400),
        ("GET", f"/api/folder/download/{'0' * 40}", 404),
        ("POST", f"/api/folder/download/{SHA1}", 405),
    ],
)
def test_paths_of_the_agent(lab, method, path, expected):
    status, headers, content = lab.ask_agent(method, path)
    assert status == expected, content
    if expected != 200:
        assert error_of(content)
    if expected == 405:
        assert headers["allow"]


def test_ranges_through_the_agent(lab):
    status, headers, content = lab.ask_agent(
        "GET", f"/api/file/download/{SHA1}", headers={"Range": "bytes=5-10"}
    )
    assert (status, content) == (206, SECRET[5:11])
    assert headers["content-range"] == f"bytes 5-10/{len(SECRET)}"
    status, headers, content = lab.ask_agent(
        "GET", f"/api/file/download/{SHA1}", headers={"Range": "bytes=99-"}
    )
    assert (status, headers["content-range"]) == (416, f"bytes */{len(SECRET)}")
    status, headers, content = lab.ask_agent("HEAD", f"/api/file/download/{SHA1}")
    assert (status, headers["content-length"], content) == (200, str(len(SECRET)), b"")
    etag = {"If-None-Match": headers["etag"]}
    assert lab.ask_agent("GET", f"/api/file/download/{SHA1}", headers=etag)[0] == 304


def test_many_requests_on_one_connection(lab):
    with contextlib.closing(UnixConnection(lab.socket)) as connection:
        for body in (b"", b"a", b"b" * 300_000):
            connection.request("POST", "/api/file/upload", body=body)
            uploaded = json.loads(connection.getresponse().read())
            assert uploaded["sha1"] == hashlib.sha1(body).hexdigest()
            connection.request("GET", f"/api/file/download/{uploaded['sha1_b58']}.bin")
            assert connection.getresponse().read() == body


def test_a_request_hidden_in_a_refused_body_is_not_answered(lab):
    hidden = b"GET /api/file/download/x HTTP/1.1\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(lab.socket))
        head = f"POST /nowhere HTTP/1.1\r\nContent-Length: {len(hidden)}\r\n\r\n".encode()
        connection.sendall(head + hidden)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 404")


def test_a_token_that_the_store_refuses_is_not_the_jobs_fault(lab):
    good = lab.token_file.read_text()
    try:
        lab.token_file.write_text(EXPIRED)
        status, _, content = lab.ask_agent("GET", f"/api/file/download/{SHA1}")
        assert (status, error_of(content)) == (502, "the store refuses this agent")
        assert lab.ask_agent("POST", "/api/file/upload", body=b"x" * 1_000_000)[0] == 502
    finally:
        # As the kubelet does when the Secret changes; the next request uses it.
        lab.token_file.write_text(good)
    assert lab.ask_agent("GET", f"/api/file/download/{SHA1}")[2] == SECRET


def test_more_connections_than_the_agent_serves(lab):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(lab.socket))
            connection.sendall(b"GET /api/fi")
        assert lab.ask_agent("GET", f"/api/file/download/{SHA1}")[2] == SECRET

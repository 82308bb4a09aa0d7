"""Store, agent and a worker on the published runtime, as real processes, asked as the documentation has it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.gpux.processes import OPERATOR, TASK, rss_kib, token, wait_for
from tests.support.environment import unavailable

UPLOAD = (
    'curl -sS --unix-socket "$SOCKET" --data-binary @"$FILE" "http://dontcare/api/file/upload/" | jq -r .sha1'
)
UPLOAD_STREAMED = (
    'curl -sS --unix-socket "$SOCKET" -T "$FILE" "http://dontcare/api/file/upload" | jq -r .sha1'
)
UPLOAD_CHUNKED = UPLOAD_STREAMED.replace('-T "$FILE"', '-T - < "$FILE"')
DOWNLOAD = 'curl -sS --unix-socket "$SOCKET" "http://dontcare/api/file/download/$SHA1" --output "$FILE"'
MIB = 1 << 20


def shell(script, lab, **variables):
    environment = {"PATH": os.environ["PATH"], "SOCKET": str(lab.socket), **variables}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_file(path, size):
    digest = hashlib.sha1()
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            piece = (start.to_bytes(8, "big") + block)[: min(MIB, size - start)]
            file.write(piece)
            digest.update(piece)
    assert path.stat().st_size == size
    return digest.hexdigest()


@pytest.fixture
def files(lab):
    lab.start_store()
    lab.start_agent(calls=False)
    return lab


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000, 3 * MIB + 1])
def test_the_documented_commands(files, tmp_path, size):
    sha1 = make_file(tmp_path / "in", size)
    assert shell(UPLOAD, files, FILE=str(tmp_path / "in")) == sha1
    assert shell(UPLOAD_STREAMED, files, FILE=str(tmp_path / "in")) == sha1
    assert shell(UPLOAD_CHUNKED, files, FILE=str(tmp_path / "in")) == sha1
    shell(DOWNLOAD, files, SHA1=sha1, FILE=str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


@pytest.mark.parametrize(
    ("command", "size"),
    # curl reads what --data-binary sends into memory and takes less than one GiB there, whoever listens.
    [(UPLOAD, 1023 * MIB), (UPLOAD_STREAMED, 1024 * MIB)],
    ids=["documented", "streamed"],
)
def test_large_files_in_little_memory(files, tmp_path, measured, command, size):
    sha1 = make_file(tmp_path / "in", size)
    began = time.monotonic()
    assert shell(command, files, FILE=str(tmp_path / "in")) == sha1
    up = time.monotonic() - began
    began = time.monotonic()
    shell(DOWNLOAD, files, SHA1=sha1, FILE=str(tmp_path / "out"))
    down = time.monotonic() - began
    assert shell('sha1sum < "$FILE"', files, FILE=str(tmp_path / "out")).split()[0] == sha1
    pids = [files.agent.pid, *files.agent.children()]
    agent = sum(rss_kib(pid, "VmHWM") for pid in pids) / 1024
    store = rss_kib(files.store.pid, "VmHWM") / 1024
    megabytes = size / 1e6
    measured(
        f"1 GiB up {megabytes / up:.0f} MB/s, down {megabytes / down:.0f} MB/s, "
        f"agent {agent:.1f} MiB, store {store:.1f} MiB"
    )
    assert store <= 64
    assert agent <= 40


def test_folders_on_the_socket(files, tmp_path):
    """A tar is a folder at the paths of folders; at those of files it is a file, whatever type it is said to be of."""
    given = tmp_path / "given"
    (given / "deep").mkdir(parents=True)
    (given / "deep" / "a.txt").write_bytes(b"one")
    (given / "large").write_bytes(os.urandom(MIB))
    into = 'tar -C "$GIVEN" -c . | curl -sS --unix-socket "$SOCKET" -T - "http://dontcare/api/folder/upload/"'
    document = json.loads(shell(into, files, GIVEN=str(given)))
    assert (document["folder"], document["files"]) == (True, 2)
    back = tmp_path / "back"
    back.mkdir()
    out = 'curl -sS --unix-socket "$SOCKET" "http://dontcare/api/folder/download/$SHA1" | tar -C "$BACK" -x'
    shell(out, files, SHA1=document["sha1"], BACK=str(back))
    shell('diff -r "$GIVEN" "$BACK"', files, GIVEN=str(given), BACK=str(back))
    shell('tar -C "$GIVEN" -cf "$FILE" .', files, GIVEN=str(given), FILE=str(tmp_path / "given.tar"))
    as_tar = UPLOAD.replace("--data-binary", '-H "Content-Type: application/x-tar" --data-binary')
    name = shell(as_tar, files, FILE=str(tmp_path / "given.tar"))
    assert name == hashlib.sha1((tmp_path / "given.tar").read_bytes()).hexdigest()


def test_an_idle_agent_is_small(lab, worker_python, measured):
    lab.start_store()
    lab.start_agent()
    wait_for(lambda: "the agent serves" in (lab.root / "agent.log").read_text(), "the agent")
    resident = sum(rss_kib(pid) for pid in [lab.agent.pid, *lab.agent.children()]) / 1024
    measured(f"idle agent: {resident:.1f} MiB in all its processes")
    assert resident <= 32


def test_a_full_disk(lab, tmp_path):
    """A real file system of 16 MiB: 507, nothing half-written, and calls still work."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        unavailable(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        lab.data = small
        lab.start_store("--reserve", str(2 * MIB))
        lab.start_agent(calls=False)
        kept = make_file(tmp_path / "kept", 8 * MIB)
        assert shell(UPLOAD, lab, FILE=str(tmp_path / "kept")) == kept
        make_file(tmp_path / "big", 12 * MIB)
        code = "-o /dev/null -w '%{http_code}' http://d/api/file/upload"
        for how in ("--data-binary @", "-H 'Transfer-Encoding: chunked' -T "):
            told = shell(
                f'curl -sS --unix-socket "$SOCKET" {how}"$FILE" {code}', lab, FILE=str(tmp_path / "big")
            )
            assert told == "507"
        assert not list((small / "tmp").iterdir())
        shell(DOWNLOAD, lab, SHA1=kept, FILE=str(tmp_path / "out"))
        assert (tmp_path / "out").read_bytes() == (tmp_path / "kept").read_bytes()
        lab.call(1, "abc")
        assert lab.record(1)["state"] == "queued"
    finally:
        if lab.store is not None:
            lab.store.kill()
        subprocess.run(["umount", str(small)], check=True)


def test_the_store_away(files, tmp_path):
    (tmp_path / "in").write_bytes(b"x" * 200_000)
    files.store.kill()
    script = 'curl -sS --unix-socket "$SOCKET" -i --data-binary @"$FILE" http://d/api/file/upload'
    told = shell(script, files, FILE=str(tmp_path / "in"))
    assert "HTTP/1.1 503" in told
    assert "Retry-After: 5" in told
    assert json.loads(told.splitlines()[-1]) == {"error": "the store can't be reached"}
    told = shell(f'curl -sS --unix-socket "$SOCKET" -i http://d/api/file/download/{"0" * 40}', files)
    assert "HTTP/1.1 503" in told
    files.start_store()
    assert shell(UPLOAD, files, FILE=str(tmp_path / "in")) == hashlib.sha1(b"x" * 200_000).hexdigest()


def test_the_socket_outlives_what_serves_it(files, tmp_path):
    (tmp_path / "in").write_bytes(b"content")
    inode = files.socket.stat().st_ino
    (serving,) = files.agent.children()
    os.kill(serving, 9)
    assert shell(UPLOAD, files, FILE=str(tmp_path / "in")) == hashlib.sha1(b"content").hexdigest()
    assert files.socket.stat().st_ino == inode
    assert files.socket.stat().st_mode & 0o777 == 0o666


def test_the_agent_ends_when_told(files):
    assert files.agent.stop() == 0
    assert files.store.stop() == 0


def test_the_serving_process_does_not_outlive_the_first(files):
    (serving,) = files.agent.children()
    files.agent.kill()
    wait_for(lambda: not Path(f"/proc/{serving}").exists(), "the serving process's end")


# ---------------------------------------------------------------------------------------------- calls


@pytest.fixture
def called(lab, worker_python):
    lab.start_store()
    lab.start_agent()
    lab.start_worker(worker_python)
    return lab


def test_a_call_from_end_to_end(lab, worker_python):
    """Put before the worker listens: its runtime takes seconds to start, models take minutes."""
    lab.start_store()
    lab.start_agent()
    address = lab.call(1, "hello", deadline=time.time() + 600)
    lab.start_worker(worker_python)
    record = lab.wait_for_state(1, "answered")
    assert record["answer"]["inline"] == {"text": "olleh"}
    assert record["address"] == address
    assert record["claimedBy"] == "pod-1"
    assert record["status"] == 202
    # What the runtime sent, to the byte, is among the tenant's files.
    status, _, content = lab.ask(
        "GET", f"/v1/files/{record['answer']['sha1']}?namespace=tenant", bearer=OPERATOR
    )
    assert (status, json.loads(content)) == (200, {"text": "olleh"})
    assert hashlib.sha256(content).hexdigest() == record["answer"]["sha256"]
    times = record["times"]
    assert times["queued"] <= times["claimed"] <= times["answered"]
    assert all(times.values())
    assert lab.posts("hello") == 1


def test_a_call_that_the_worker_refuses(called):
    body = {
        "namespace": "tenant",
        "function": "reverse",
        "address": "0x1",
        "data": {"txt": 7},
        "deadline": None,
    }
    assert called.ask("PUT", f"/v1/calls/{TASK}/1", body=body)[0] == 201
    record = called.wait_for_state(1, "refused")
    assert record["status"] == 422
    assert "Field required" in record["detail"]
    assert len(record["detail"]) <= 4096
    body = {**body, "function": "nothing", "address": "0x2"}
    assert called.ask("PUT", f"/v1/calls/{TASK}/2", body=body)[0] == 201
    assert called.wait_for_state(2, "refused")["status"] == 404


def test_a_call_whose_deadline_is_over_is_not_sent(called):
    called.call(1, "late", deadline=time.time() - 1)
    called.call(2, "next")
    called.wait_for_state(2, "answered")
    assert called.record(1)["state"] == "queued"
    assert called.posts("late") == 0


def test_a_call_that_another_pod_has_is_left_alone(called):
    called.wait_for_worker()
    called.agent.stop()
    called.call(1, "theirs")
    assert called.ask("POST", f"/v1/calls/{TASK}/1/claim", body={"pod": "pod-2"}, bearer=token())[0] == 200
    called.start_agent()
    called.call(2, "ours")
    called.wait_for_state(2, "answered")
    assert called.posts("theirs") == 0
    assert called.record(1)["claimedBy"] == "pod-2"


def curl_callback(lab, address, content):
    url = f"http://127.0.0.1:{lab.callback_port}/{address}"
    command = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--data-binary",
        "@-",
        "-H",
        "Expect:",
        url,
    ]
    return int(subprocess.run(command, input=content, capture_output=True, check=True).stdout)


def test_forged_and_repeated_callbacks(called):
    called.wait_for_worker()
    assert curl_callback(called, "0x1", b"{}") == 404
    called.hold_worker()
    address = called.call(1, "abc")
    called.wait_for_state(1, "accepted")
    assert curl_callback(called, "0x" + "9" * 40, b"{}") == 404
    assert curl_callback(called, f"{address}/x", b"{}") == 404
    assert curl_callback(called, address, b"not json") == 400
    assert curl_callback(called, address, b"") == 400
    assert curl_callback(called, address, b'"' + b"x" * (16 * MIB) + b'"') == 413
    called.release_worker()
    called.wait_for_state(1, "answered")
    assert curl_callback(called, address, b'"another"') == 200
    assert called.record(1)["answer"]["inline"] == {"text": "cba"}
    assert not list(called.spool.glob("*.tmp"))


def test_a_callback_before_the_call_answers_nothing(lab, worker_python):
    """Whoever guesses the address of a call that isn't sent yet is refused, and the call is made all the same."""
    lab.start_store()
    lab.start_agent()
    address = lab.call(1, "abc")
    assert curl_callback(lab, address, b'"forged"') == 404
    assert lab.record(1)["state"] == "queued"
    lab.start_worker(worker_python)
    assert lab.wait_for_state(1, "answered")["answer"]["inline"] == {"text": "cba"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "CONNECT"])
def test_only_a_post_answers(called, method):
    called.wait_for_worker()
    called.hold_worker()
    address = called.call(1, "abc")
    called.wait_for_state(1, "accepted")
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", called.callback_port, timeout=30)
    ) as asked:
        asked.request(method, f"/{address}", body=b'"forged"')
        response = asked.getresponse()
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    called.release_worker()
    assert called.wait_for_state(1, "answered")["answer"]["inline"] == {"text": "cba"}


def test_callbacks_that_never_end_do_not_keep_the_answer_out(called):
    called.wait_for_worker()
    called.hold_worker()
    address = called.call(1, "abc")
    called.wait_for_state(1, "accepted")
    with contextlib.ExitStack() as stalled:
        for sent in (
            b"POS",
            b"POST /x HTTP/1.1\r\n",
            f"POST /{address} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode(),
        ):
            connection = stalled.enter_context(socket.create_connection(("127.0.0.1", called.callback_port)))
            connection.sendall(sent)
        called.release_worker()
        assert called.wait_for_state(1, "answered")["answer"]["inline"] == {"text": "cba"}
    wait_for(lambda: not list(called.spool.glob("*.tmp")), "the forged answer to be forgotten")


def test_a_store_that_is_away_while_the_worker_answers(called):
    called.wait_for_worker()
    called.hold_worker()
    called.call(1, "abc")
    called.wait_for_state(1, "accepted")
    called.store.kill()
    called.release_worker()
    wait_for(lambda: "Callback sent" in (called.root / "worker.log").read_text(), "the worker's answer")
    # Neither the store nor this process of the agent sees the next one; the answer does.
    (serving,) = called.agent.children()
    os.kill(serving, 9)
    time.sleep(0.2)
    called.start_store()
    assert called.wait_for_state(1, "answered")["answer"]["inline"] == {"text": "cba"}


def test_an_answer_is_delivered_before_the_agent_ends(called):
    called.wait_for_worker()
    called.hold_worker()
    called.call(1, "abc")
    called.wait_for_state(1, "accepted")
    called.store.kill()
    called.release_worker()
    wait_for(lambda: "Callback sent" in (called.root / "worker.log").read_text(), "the worker's answer")
    called.agent.process.terminate()
    time.sleep(0.5)
    assert called.agent.process.poll() is None
    called.start_store()
    assert called.agent.process.wait(60) == 0
    assert called.record(1)["state"] == "answered"

"""Uploads that go on where they broke off, with the real command and a real store, both of which may be killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.gpux.processes import KEY, ROOT, SOURCE, Lab, Process, accepts, laboratory, token, wait_for
from tests.faults.gpux.relay import Relay
from tests.support.ports import free_port
from tests.support.s3 import s3_server

pytestmark = pytest.mark.faults

MIB = 1 << 20
SIZE = 24 * MIB
FILES = token(scope="files")


class Upwards(Relay):
    """A way to the store that counts what goes there, and breaks off when it was so much."""

    def __init__(self, port: int) -> None:
        self.limits: list[int] = []
        super().__init__(port)

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as store:

            def downwards() -> None:
                with contextlib.suppress(OSError):
                    while data := store.recv(MIB):
                        client.sendall(data)
                    client.shutdown(socket.SHUT_RDWR)

            returning = threading.Thread(target=downwards, daemon=True)
            returning.start()
            while data := client.recv(MIB // 4):
                store.sendall(data)
                self.passed += len(data)
                if self.limits and self.passed > self.limits[0]:
                    self.limits.pop(0)
                    self.at_limit()
                    client.shutdown(socket.SHUT_RDWR)
                    break
            with contextlib.suppress(OSError):
                store.shutdown(socket.SHUT_RDWR)
            returning.join()


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    (tmp_path / "lab").mkdir()
    with laboratory(tmp_path / "lab") as made:
        made.start_store()
        yield made


@pytest.fixture
def content(tmp_path) -> bytes:
    made = os.urandom(SIZE)
    (tmp_path / "a.bin").write_bytes(made)
    return made


@pytest.fixture
def way(lab) -> Iterator[Upwards]:
    with contextlib.closing(Upwards(lab.external_port)) as made:
        yield made


def started(
    url: str, root: Path, verb: str = "put", *arguments: str, **options: Any
) -> subprocess.Popen[bytes]:
    (root / "token").write_text(FILES)
    command = [sys.executable, "-m", "opengpu_operator.cli.main", "files", verb]
    where = ["--server", url, "--token-file", str(root / "token"), "--job-id", "task-1"]
    environment = {
        "PYTHONPATH": str(ROOT / "operator"),
        "PATH": os.environ["PATH"],
        "XDG_STATE_HOME": str(root / "state"),
    }
    return subprocess.Popen(
        [*command, *where, *(arguments or ["a.bin"])],
        cwd=root,
        env=environment,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def interrupted(way: Upwards, root: Path, *, by: int = signal.SIGKILL) -> int:
    """Have a command end in the middle of its upload; its exit status."""
    way.limits = [12 * MIB]
    process = started(way.url, root)

    def end() -> None:
        process.send_signal(by)
        process.wait()

    way.at_limit = end
    process.communicate()
    return process.returncode


def put(url: str, root: Path) -> bytes:
    process = started(url, root)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b""), err
    return bytes(out)


def stored(lab: Lab, content: bytes) -> bool:
    name = hashlib.sha1(content).hexdigest()
    return lab.ask("GET", f"/v1/files/{name}", bearer=token())[2] == content


def notes(root: Path) -> list[Path]:
    return list((root / "state" / "opengpu" / "uploads").iterdir())


def said(content: bytes) -> bytes:
    return f"{hashlib.sha1(content).hexdigest()}  a.bin\n".encode()


def test_a_connection_that_breaks_off_again_and_again(lab, way, content, tmp_path):
    way.limits = [6 * MIB, 12 * MIB, 13 * MIB, 20 * MIB]
    assert put(way.url, tmp_path) == said(content)
    assert way.limits == []
    # What was on the way at each of the breaks went twice.
    assert way.passed < SIZE + 8 * MIB
    assert stored(lab, content)
    assert notes(tmp_path) == []
    assert not list((lab.data / "tmp").iterdir())


@pytest.mark.parametrize(("by", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_command_that_is_ended_and_run_again_goes_on(lab, way, content, tmp_path, by, status):
    assert interrupted(way, tmp_path, by=by) == status
    assert len(notes(tmp_path)) == 1
    assert len(list((lab.data / "tmp").iterdir())) == 1
    way.passed = 0
    assert put(way.url, tmp_path) == said(content)
    assert way.passed < SIZE - 8 * MIB
    assert stored(lab, content)
    assert notes(tmp_path) == []
    assert not list((lab.data / "tmp").iterdir())


def test_a_store_that_is_killed_is_sent_it_anew(lab, way, content, tmp_path):
    def killed() -> None:
        lab.store.kill()
        lab.start_store()

    way.limits, way.at_limit = [12 * MIB], killed
    assert put(way.url, tmp_path) == said(content)
    assert way.passed > SIZE + 8 * MIB
    assert stored(lab, content)
    assert not list((lab.data / "tmp").iterdir())


def test_a_file_that_has_changed_since_is_another(lab, way, content, tmp_path):
    interrupted(way, tmp_path)
    other = os.urandom(100) + content[100:]
    (tmp_path / "a.bin").write_bytes(other)
    assert put(way.url, tmp_path) == said(other)
    assert stored(lab, other)


def test_what_is_not_gone_on_with_leaves_nothing(tmp_path, content):
    (tmp_path / "lab").mkdir()
    with laboratory(tmp_path / "lab") as lab:
        lab.start_store("--upload-seconds", "2")
        with contextlib.closing(Upwards(lab.external_port)) as way:
            interrupted(way, tmp_path)
        wait_for(lambda: not list((lab.data / "tmp").iterdir()), "the end of an upload")
        assert put(lab.external_url, tmp_path) == said(content), "it begins anew"


def test_strangers(lab):
    status, _, answer = lab.outside("POST", "/v1/uploads", bearer=FILES)
    assert status == 201
    path = f"/v1/uploads/{json.loads(answer)['id']}"
    at_start = {"Upload-Offset": "0"}
    assert lab.outside("PATCH", path, bearer=FILES, headers=at_start, body=b"abc")[0] == 200
    for stranger in (token(scope="files", namespace="other"), token(scope="files", task="task-2")):
        for method, place in (
            ("GET", path),
            ("PATCH", path),
            ("DELETE", path),
            ("POST", f"{path}/done"),
        ):
            assert lab.outside(method, place, bearer=stranger, headers={"Upload-Offset": "3"})[0] == 404
    assert lab.outside("GET", path)[0] == lab.outside("POST", "/v1/uploads")[0] == 401
    assert lab.outside("GET", path, bearer=token())[0] == 401, "a job's token is nothing outside"
    for offset, status in (("-1", 400), ("x", 400), ("2", 409), ("4", 409), ("9" * 30, 400)):
        found, headers, _ = lab.outside(
            "PATCH", path, bearer=FILES, headers={"Upload-Offset": offset}, body=b"d"
        )
        assert found == status
        assert headers.get("upload-offset") == ("3" if status == 409 else None)
    # The task itself, from inside the cluster.
    assert lab.ask("POST", f"{path}/done", bearer=token())[0] == 201
    assert stored(lab, b"abc")


def test_who_begins_too_many_gets_no_more_but_everybody_else_does(lab, content, tmp_path):
    statuses = [lab.outside("POST", "/v1/uploads", bearer=FILES)[0] for _ in range(9)]
    assert statuses == [201] * 8 + [429]
    assert lab.ask("POST", "/v1/uploads", bearer=token(namespace="other"))[0] == 201
    assert put(lab.external_url, tmp_path) == said(content), "plainly"
    assert stored(lab, content)


def test_a_store_that_ends_forgets_what_has_begun(lab, content):
    for _ in range(3):
        path = json.loads(lab.ask("POST", "/v1/uploads", bearer=token())[2])["id"]
        lab.ask("PATCH", f"/v1/uploads/{path}", bearer=token(), headers={"Upload-Offset": "0"}, body=content)
    assert len(list((lab.data / "tmp").iterdir())) == 3
    assert lab.store.stop() == 0
    assert not list((lab.data / "tmp").iterdir())


def test_over_a_bucket(tmp_path, content):
    key = tmp_path / "key"
    key.write_bytes(KEY)
    port, external = free_port(), free_port()
    with s3_server(tmp_path / "s3") as server:
        store = Process(
            [
                *(sys.executable, "-m", "gpux.store", *server.arguments(server.options())),
                *(f"--listen=127.0.0.1:{port}", f"--external-listen=127.0.0.1:{external}"),
                *(f"--key-file={key}", "--sweep-seconds=0"),
            ],
            environment={"PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path)},
            log=tmp_path / "store.log",
        )
        try:
            wait_for(lambda: accepts(external), "the store's start")
            with contextlib.closing(Upwards(external)) as way:
                way.limits = [10 * MIB, 20 * MIB]
                assert put(way.url, tmp_path) == said(content)
                assert way.passed < SIZE + 6 * MIB
        finally:
            store.kill()


def test_a_terminal_shows_the_breaks(lab, way, content, tmp_path):
    way.limits = [12 * MIB]
    text = shown(way.url, tmp_path, "put", "a.bin")
    assert "broke off, again in 0.5 s" in text
    assert "24.0 MiB of 24.0 MiB" in text.rstrip().rpartition("\r")[2]


def test_a_terminal_shows_a_download_from_where_it_goes_on(lab, content, tmp_path):
    put(lab.external_url, tmp_path)
    name = hashlib.sha1(content).hexdigest()
    text = shown(lab.external_url, tmp_path, "get", name, "-o", "b.bin")
    assert "b.bin  [########################] 100%  24.0 MiB of 24.0 MiB" in text
    (tmp_path / "c.bin.part").write_bytes(content[: SIZE - 1])
    text = shown(lab.external_url, tmp_path, "get", name, "-o", "c.bin")
    (line,) = [line for line in text.split("\n") if "c.bin  [" in line]
    # All but a byte was there, and speed is of what came.
    assert "100%  24.0 MiB of 24.0 MiB" in line
    assert "MiB/s" not in line
    assert (tmp_path / "b.bin").read_bytes() == (tmp_path / "c.bin").read_bytes() == content


def shown(url: str, root: Path, *command: str) -> str:
    """What a terminal has of a command that does what it should."""
    ours, theirs = pty.openpty()
    process = started(url, root, *command, stderr=theirs)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):
        while data := os.read(ours, 4096):
            text += data
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0, text
    assert b"%" not in out
    return text.decode()

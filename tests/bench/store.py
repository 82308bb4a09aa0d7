"""The gpux store and agent, as processes of their own."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gpux.tokens import sign
from tests.bench.row import Figure, Row, median_of
from tests.bench.transfer import reachable
from tests.support.stack import eventually

KEY = b"a key for measuring, of no secret"
SIZE = 256 * 1024 * 1024
BLOCK = os.urandom(1024 * 1024)
CLAIMS = {"scope": "job", "namespace": "bench", "task": "t", "exp": 2**33}
OPERATOR = Path(__file__).resolve().parents[2] / "operator"


class Served(NamedTuple):
    """A store that runs."""

    address: tuple[str, int]
    connection: http.client.HTTPConnection
    pid: int


@contextmanager
def serve(root: Path, *options: str) -> Iterator[Served]:
    """Run a store."""
    key = root / "key"
    key.write_bytes(KEY)
    command = [sys.executable, "-m", "gpux.store", f"--key-file={key}", "--listen=127.0.0.1:0", *options]
    # Parts of uploads wait where the files are, as they would on one node.
    environment = {**os.environ, "TMPDIR": str(root)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        try:
            host, _, port = json.loads(process.stderr.readline())["addresses"][0].partition(":")
            address = (host, int(port))
            yield Served(address, http.client.HTTPConnection(*address, timeout=120), process.pid)
        finally:
            process.terminate()


@contextmanager
def store(root: Path) -> Iterator[http.client.HTTPConnection]:
    """Run a store over a directory; give a connection to it."""
    with serving(root) as served:
        yield served.connection


@contextmanager
def serving(root: Path) -> Iterator[Served]:
    """Run a store over a directory."""
    (root / "data").mkdir()
    with serve(root, f"--root={root / 'data'}") as served:
        yield served


def _post(connection: http.client.HTTPConnection, seed: int, size: int) -> None:
    """Put a file that isn't there yet."""

    def body() -> Iterator[bytes]:
        yield seed.to_bytes(8, "big")
        for _ in range(size // len(BLOCK)):
            yield BLOCK

    length = 8 + size // len(BLOCK) * len(BLOCK)
    headers = {"Authorization": f"Bearer {sign(KEY, CLAIMS)}", "Content-Length": str(length)}
    connection.request("POST", "/v1/files", body=body(), headers=headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 201, answer.status


def post_large() -> Figure:
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, store(Path(folder)) as connection:
        start = time.perf_counter()
        _post(connection, 1, SIZE)
        value = SIZE / (time.perf_counter() - start) / 1e6
        # The least that the store must do: both hashes, and the bytes on disk.
        start = time.perf_counter()
        hashes = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
        with (Path(folder) / "plain").open("wb") as file:
            for _ in range(SIZE // len(BLOCK)):
                for hashed in hashes:
                    hashed.update(BLOCK)
                file.write(BLOCK)
            file.flush()
            os.fdatasync(file.fileno())
        return Figure(value=value, reference=SIZE / (time.perf_counter() - start) / 1e6, unit="MB/s")


def post_small() -> Figure:
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, store(Path(folder)) as connection:
        start = time.perf_counter()
        for seed in range(300):
            _post(connection, seed, 0)
        value = (time.perf_counter() - start) / 300
        start = time.perf_counter()
        for seed in range(300):
            path = Path(folder) / f"plain{seed}"
            with path.open("wb") as file:
                file.write(seed.to_bytes(8, "big"))
                file.flush()
                os.fdatasync(file.fileno())
        return Figure(value=1000 * value, reference=1000 * (time.perf_counter() - start) / 300, unit="ms")


def _resident(pid: int) -> float:
    """Return the memory that a process and its children have to themselves, in MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
    shared = next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return max(own, shared) / 1024 + sum(_resident(int(child)) for child in children)


@contextmanager
def agent(folder: Path, *, url: str = "http://127.0.0.1:9") -> Iterator[tuple[Path, int]]:
    """Run an agent; its socket and the pid of its first process."""
    token, path = folder / "token", folder / "api.sock"
    token.write_text(sign(KEY, CLAIMS))
    environment = {
        "PYTHONPATH": str(OPERATOR),
        "GPUX_STORE_URL": url,
        "GPUX_TOKEN_FILE": str(token),
        "GPUX_SOCKET": str(path),
        "GPUX_SPOOL": str(folder / "spool"),
        "GPUX_TASK_UID": "t",
        "GPUX_POD_UID": "p",
        "GPUX_CALLBACK_LISTEN": "127.0.0.1:0",
    }
    command = [sys.executable, "-S", "-m", "gpux.agent"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            # An answer comes from the serving process, whose memory counts too.
            eventually(lambda: reachable(str(path)) and _answers(path), within=20, otherwise="no agent")
            yield path, process.pid
        finally:
            process.terminate()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 404")


def agent_memory() -> Figure:
    bare = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(60)"]
    with (
        tempfile.TemporaryDirectory() as folder,
        agent(Path(folder)) as (_, pid),
        subprocess.Popen(bare, stdout=subprocess.PIPE) as idle,
    ):
        try:
            assert idle.stdout
            idle.stdout.readline()
            value = median_of(3, lambda: _resident(pid))
            return Figure(value=value, reference=_resident(idle.pid), unit="MiB")
        finally:
            idle.terminate()


ROWS = [
    Row(
        name="store-post-256MiB",
        measure=post_large,
        target=0.5,
        better="higher",
        why="hashing and writing the bytes",
    ),
    Row(name="store-post-8B", measure=post_small, target=12.0, why="writing a file and syncing it"),
    Row(name="agent-memory", measure=agent_memory, target=5.0, why="a Python that does nothing"),
]

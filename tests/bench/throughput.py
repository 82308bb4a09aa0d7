"""Files of a GiB and of 4 KiB through the store and the agent, beside nginx, which neither hashes nor syncs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from gpux.tokens import sign
from tests.bench.nginx import Nginx, nginx, program
from tests.bench.row import Figure, Row, median_of
from tests.bench.store import BLOCK, CLAIMS, KEY, Served, agent, serving
from tests.bench.transfer import Address, download, rate, upload

LARGE, SMALL = 1 << 30, 4096
HEADERS = {"Authorization": f"Bearer {sign(KEY, CLAIMS)}"}


class Stand(NamedTuple):
    """A store and nginx side by side, in a folder on the same disk."""

    folder: Path
    store: Served
    nginx: Nginx


@contextmanager
def stand() -> Iterator[Stand]:
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = Path(name)
        with serving(folder) as store:
            host, port = store.address
            with nginx(folder / "nginx", behind=f"{host}:{port}") as yardstick:
                yield Stand(folder, store, yardstick)


def make(path: Path, size: int) -> str:
    """Write a file that no store has yet; its SHA-1."""
    digest = hashlib.sha1(usedforsecurity=False)
    block = os.urandom(16) + BLOCK[16:]
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            piece = block[: size - start]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _speed(size: int, seconds: float) -> float:
    return size / seconds / 1e6


def get_large() -> Figure:
    with stand() as at:
        sha1 = make(at.nginx.files / "large", LARGE)
        upload(at.store.address, "POST", "/v1/files", HEADERS, file=at.nginx.files / "large")
        ours = median_of(3, lambda: download(at.store.address, f"/v1/files/{sha1}", HEADERS, size=LARGE))
        theirs = median_of(3, lambda: download(at.nginx.address, "/large", {}, size=LARGE))
    return Figure(value=_speed(LARGE, ours), reference=_speed(LARGE, theirs), unit="MB/s")


def post_large() -> Figure:
    def both() -> tuple[float, float]:
        # What was written last has a part of the memory, which a virtual machine may have to get from its host first.
        with stand() as at:
            file = at.folder / "large"
            make(file, LARGE)
            return (
                upload(at.store.address, "POST", "/v1/files", HEADERS, file=file),
                upload(at.nginx.address, "PUT", "/large", {}, file=file),
            )

    ours, theirs = zip(*(both() for _ in range(5)), strict=True)
    return Figure(value=_speed(LARGE, median(ours)), reference=_speed(LARGE, median(theirs)), unit="MB/s")


def get_small() -> Figure:
    wrk = program("wrk", "wrk")
    with stand() as at:
        sha1 = make(at.nginx.files / "small", SMALL)
        upload(at.store.address, "POST", "/v1/files", HEADERS, file=at.nginx.files / "small")
        ours = rate(wrk, f"http://{_netloc(at.store.address)}/v1/files/{sha1}", HEADERS)
        theirs = rate(wrk, f"http://{_netloc(at.nginx.address)}/small", {})
    return Figure(value=ours, reference=theirs, unit="1/s")


def _netloc(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def agent_get() -> Figure:
    with stand() as at, agent(at.folder, url=f"http://{_netloc(at.store.address)}") as (socket, _):
        sha1 = make(at.folder / "large", LARGE)
        upload(at.store.address, "POST", "/v1/files", HEADERS, file=at.folder / "large")

        def speed(address: Address, path: str) -> float:
            return _speed(LARGE, median_of(3, lambda: download(address, path, HEADERS, size=LARGE)))

        ours = speed(str(socket), f"/api/file/download/{sha1}")
        return Figure(value=ours, reference=speed(at.nginx.proxy, f"/v1/files/{sha1}"), unit="MB/s")


def agent_post() -> Figure:
    with stand() as at, agent(at.folder, url=f"http://{_netloc(at.store.address)}") as (socket, _):
        file = at.folder / "large"
        make(file, LARGE)
        ours = upload(str(socket), "POST", "/api/file/upload/", {}, file=file)
        make(file, LARGE)
        theirs = upload(at.nginx.proxy, "POST", "/v1/files", HEADERS, file=file)
    return Figure(value=_speed(LARGE, ours), reference=_speed(LARGE, theirs), unit="MB/s")


def peak_memory() -> Figure:
    with stand() as at:
        sha1 = make(at.folder / "large", LARGE)
        upload(at.store.address, "POST", "/v1/files", HEADERS, file=at.folder / "large")
        download(at.store.address, f"/v1/files/{sha1}", HEADERS, size=LARGE)
        status = Path(f"/proc/{at.store.pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return Figure(value=peak / 1024, reference=64.0, unit="MiB")


_NGINX = "nginx, which neither hashes nor syncs"
_PROXY = "nginx on a unix socket before the same store"

ROWS = [
    Row(name="store-get-1GiB", measure=get_large, target=0.9, better="higher", why="nginx's sendfile"),
    Row(name="store-post-1GiB", measure=post_large, target=0.75, better="higher", why=f"PUT to {_NGINX}"),
    Row(
        name="store-get-4KiB",
        measure=get_small,
        target=0.45,
        better="higher",
        why="nginx, over 16 connections",
    ),
    Row(name="store-agent-get-1GiB", measure=agent_get, target=0.6, better="higher", why=_PROXY),
    Row(name="store-agent-post-1GiB", measure=agent_post, target=0.6, better="higher", why=_PROXY),
    Row(
        name="store-peak-memory",
        measure=peak_memory,
        target=1.0,
        why="the 64 MiB that it may need for any size",
    ),
]

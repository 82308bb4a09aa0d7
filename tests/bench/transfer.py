"""The client of the measurements: it moves bytes and does as little else as it can, whoever is at the other end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

#: Host and port, or the path of a unix socket.
Address: TypeAlias = tuple[str, int] | str

_BUFFER = 1 << 20
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")


def reachable(address: Address) -> bool:
    """Return whether somebody listens."""
    try:
        _connect(address).close()
    except OSError:
        return False
    return True


def download(address: Address, path: str, headers: Mapping[str, str], *, size: int) -> float:
    """GET a file and forget it; the seconds that it took."""
    buffer = bytearray(_BUFFER)
    start = time.perf_counter()
    with _connect(address) as connection:
        connection.sendall(_head("GET", path, headers))
        status, length, got = _response(connection)
        assert (status, length) == (200, size), (status, length)
        while got < size:
            count = connection.recv_into(buffer)
            assert count, "the download broke off"
            got += count
    return time.perf_counter() - start


def upload(address: Address, method: str, path: str, headers: Mapping[str, str], *, file: Path) -> float:
    """Send a file and wait for its acknowledgement; the seconds that it took. What was written before is on disk."""
    os.sync()
    with file.open("rb") as content, _connect(address) as connection:
        size = os.fstat(content.fileno()).st_size
        start = time.perf_counter()
        connection.sendall(_head(method, path, {**headers, "Content-Length": str(size)}))
        connection.sendfile(content)
        status, _, _ = _response(connection)
        seconds = time.perf_counter() - start
    assert status in {200, 201, 204}, status
    return seconds


def rate(wrk: str, url: str, headers: Mapping[str, str]) -> float:
    """Ask for a URL over sixteen connections for a while; answers per second."""
    options = [option for name, value in headers.items() for option in ("-H", f"{name}: {value}")]
    command = [wrk, "-t1", "-c16", "-d3s", *options, url]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in shown, shown
    found = re.search(r"Requests/sec: *([0-9.]+)", shown)
    assert found, shown
    return float(found[1])


def _connect(address: Address) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout=120)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(120)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _response(connection: socket.socket) -> tuple[int, int | None, int]:
    """Return the status, the length that was announced, and how much of the body came along with the head."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, "closed before a response"
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return int(head.split(b" ")[1]), int(length[1]) if length else None, len(body)

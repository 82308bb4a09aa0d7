"""The job's store, as GPUX gives it to every job: HTTP over the unix socket ``/gpux_api``."""

from __future__ import annotations

import http.client
import json
import socket
import time
from http import HTTPStatus

SOCKET = "/gpux_api"
TIMEOUT = 240
PATIENCE = 240
"""Seconds to ask again for while the store is away: a worker that gives up never answers its call."""
PAUSE = 1.0


class StoreError(Exception):
    """The store didn't do what was asked."""


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(SOCKET)


def _request(method: str, path: str, body: bytes | None = None) -> bytes:
    deadline = time.monotonic() + PATIENCE
    while True:
        status, content = _ask(method, path, body)
        if status == HTTPStatus.OK:
            return content
        if status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            message = f"{method} {path}: {status} {content[:200].decode(errors='replace')}"
            raise StoreError(message)
        time.sleep(PAUSE)


def _ask(method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    connection = _Connection("dontcare")
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        message = f"{method} {path}: {error}"
        raise StoreError(message) from error
    finally:
        connection.close()


def download(sha1: str) -> bytes:
    """Return the file with a hash."""
    return _request("GET", f"/api/file/download/{sha1}")


def upload(content: bytes) -> str:
    """Put a file into the store and return its sha1."""
    return str(json.loads(_request("POST", "/api/file/upload/", content))["sha1"])

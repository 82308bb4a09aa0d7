"""The job's store, as GPUX gives it to every job: HTTP over the unix socket ``/gpux_api``."""

from __future__ import annotations

import http.client
import json
import socket
from http import HTTPStatus

SOCKET = "/gpux_api"
TIMEOUT = 60


class StoreError(Exception):
    """The store didn't do what was asked."""


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(SOCKET)


def _request(method: str, path: str, body: bytes | None = None) -> bytes:
    connection = _Connection("dontcare")
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        message = f"{method} {path}: {error}"
        raise StoreError(message) from error
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        message = f"{method} {path}: {answer.status} {content[:200].decode(errors='replace')}"
        raise StoreError(message)
    return content


def download(sha1: str) -> bytes:
    """Return the file with a hash."""
    return _request("GET", f"/api/file/download/{sha1}")


def upload(content: bytes) -> str:
    """Put a file into the store and return its sha1."""
    return str(json.loads(_request("POST", "/api/file/upload/", content))["sha1"])

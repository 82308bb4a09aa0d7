"""The agent's side of the store's API."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any, NamedTuple

from gpux.agent.config import Address
from gpux.agent.http1 import ProtocolError, Reader, head

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 120.0
_ANSWER_LIMIT = 2 << 20


class StoreAwayError(Exception):
    """The store can't be reached, or can't serve now, or takes our token for nothing. Later it may."""


class Reply(NamedTuple):
    """What the store said."""

    status: int
    document: Any


class Link:
    """Requests to the store, each on a connection of its own and with the token as it is in its file now."""

    def __init__(self, store: Address, token_file: str) -> None:
        self._store = store
        self._token_file = token_file

    def connect(self, to: Address | None = None) -> socket.socket:
        """Open a connection, to one of several stores if told so. Raises OSError."""
        connection = socket.create_connection(to or self._store, timeout=_CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_IDLE_SECONDS)
        return connection

    def head(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        """Write the head of a request. Raises OSError if there is no token."""
        with open(self._token_file, encoding="ascii") as file:
            token = file.read().strip()
        fixed = {"Host": self._store.host, "Authorization": f"Bearer {token}", "Connection": "close"}
        return head(f"{method} {path} HTTP/1.1", fixed | headers)

    def request(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        seconds: float = 15.0,
        to: Address | None = None,
    ) -> Reply:
        """Send a small document, read a small answer. Raises StoreAwayError."""
        content = b"" if document is None else json.dumps(document).encode()
        headers = {"Content-Length": str(len(content)), "Content-Type": "application/json"}
        try:
            with self.connect(to) as connection:
                connection.sendall(self.head(method, path, headers) + content)
                return self._reply(Reader(connection), method, seconds)
        except (OSError, ProtocolError, ValueError) as error:
            raise StoreAwayError(str(error) or type(error).__name__) from error

    def send_file(self, method: str, path: str, file: str) -> Reply:
        """Send a file as the body. Raises StoreAwayError; FileNotFoundError is a bug and stays one."""
        with open(file, "rb") as content:
            size = os.fstat(content.fileno()).st_size
            try:
                with self.connect() as connection:
                    connection.sendall(self.head(method, path, {"Content-Length": str(size)}))
                    connection.sendfile(content)
                    return self._reply(Reader(connection), method, _IDLE_SECONDS)
            except (OSError, ProtocolError, ValueError) as error:
                raise StoreAwayError(str(error) or type(error).__name__) from error

    def _reply(self, reader: Reader, method: str, seconds: float) -> Reply:
        response = reader.response(seconds=seconds)
        content = reader.response_body(response, method=method).read_all(limit=_ANSWER_LIMIT)
        if response.status in {401, 403, 408, 429} or response.status >= 500:
            raise StoreAwayError(f"HTTP {response.status}: {content[:200].decode(errors='replace')}")
        return Reply(response.status, json.loads(content) if content else None)


class Backoff:
    """Growing, jittered pauses, which end early when somebody sets the event."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        """Start small again."""
        self._next = self._first

    def pause(self, *, until: threading.Event) -> None:
        """Wait for half to all of the current pause, and make the next one longer."""
        until.wait(self._next * (0.5 + os.urandom(1)[0] / 512))
        self._next = min(self._next * 2, self._longest)

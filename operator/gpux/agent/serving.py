"""Serves HTTP on a listening socket: one thread per connection, and never more than so many."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

from gpux.agent.http1 import BUFFER, Body, ProtocolError, Reader, Request, head
from gpux.log import log

_HEAD_SECONDS = 30.0
_IDLE_SECONDS = 300.0
"""Without a byte for so long inside a body, the peer has gone. Long, since a job may stream what it computes."""
_LINGER_SECONDS = 5.0
_REASONS = {
    200: "OK",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


class Exchange:
    """One request and the means to answer it."""

    def __init__(self, connection: socket.socket, request: Request, body: Body) -> None:
        self.connection = connection
        self.request = request
        self.body = body
        self.answered = False
        self._continued = False

    def proceed(self) -> None:
        """Tell a client that asked whether to send its body (`Expect`) to do so."""
        if self.request.headers.get("expect", "").lower() == "100-continue" and not self._continued:
            self._continued = True
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, status: int, headers: dict[str, str]) -> None:
        """Send a response's head."""
        self.answered = True
        if not self.keeps_alive:
            headers = {**headers, "Connection": "close"}
        self.connection.sendall(head(f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", headers))

    def reply(self, status: int, document: object, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON."""
        content = json.dumps(document).encode() + b"\n"
        self.start(
            status,
            {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})},
        )
        if self.request.method != "HEAD":
            self.connection.sendall(content)

    def fail(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer with an error."""
        self.reply(status, {"error": message}, headers)

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow: what is left of a body could be taken for one."""
        return self.request.keep_alive and self.body.ended


def serve(
    listener: socket.socket, handle: Callable[[Exchange], None], *, connections: int, name: str
) -> None:
    """Accept for ever. What comes when all are busy waits in the listener's queue."""
    free = threading.BoundedSemaphore(connections)

    def run(connection: socket.socket) -> None:
        try:
            _converse(connection, handle)
        finally:
            connection.close()
            free.release()

    while True:
        free.acquire()
        try:
            connection, _ = listener.accept()
            connection.settimeout(_IDLE_SECONDS)
            threading.Thread(target=run, args=(connection,), daemon=True, name=name).start()
        except (OSError, RuntimeError, MemoryError) as error:
            # Out of descriptors, threads or memory: what is being served will free some.
            free.release()
            log("warning", "a connection could not be accepted", listener=name, error=str(error))
            time.sleep(0.1)


def _converse(connection: socket.socket, handle: Callable[[Exchange], None]) -> None:
    reader = Reader(connection)
    try:
        while True:
            exchange = None
            try:
                request = reader.request(seconds=_HEAD_SECONDS)
                if request is None:
                    return
                exchange = Exchange(connection, request, reader.request_body(request))
                handle(exchange)
            except ProtocolError as error:
                if exchange is None:
                    unread = Body(reader, length=None)
                    exchange = Exchange(connection, Request("GET", "", {}, keep_alive=False), unread)
                if not exchange.answered:
                    exchange.fail(error.status, error.message)
                _linger(connection)
                return
            if not exchange.keeps_alive:
                _linger(connection)
                return
    except OSError:
        # The peer went away or stalled: there is nobody to tell.
        return
    except MemoryError:
        log("warning", "a connection was dropped for lack of memory")


def _linger(connection: socket.socket) -> None:
    """Let the peer read our answer: closing with its bytes unread would tear it away."""
    connection.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + _LINGER_SECONDS
    scratch = bytearray(BUFFER)
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        if not connection.recv_into(scratch):
            return

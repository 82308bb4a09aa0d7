"""HTTP/1.1 on blocking sockets, the strict little that the agent needs of it.

Not http.client and http.server: they bring the mail parser along and cost more memory than all of the agent. Strict,
because what comes from a job is passed on to the store: a request is understood in one way or refused.
"""

from __future__ import annotations

import re
import socket
import time
from typing import NamedTuple

BUFFER = 1 << 17
"""How much is moved at once; every transfer has one such buffer."""

_HEAD_LIMIT = 16 * 1024
_LINE_LIMIT = 1024
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]{1,8000}) HTTP/(1\.[01])")
_RESPONSE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[\t\x20-\x7e]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_SINGLE = {"content-length", "transfer-encoding", "host", "expect", "range"}


class ProtocolError(Exception):
    """The peer's bytes are not HTTP as we take it; the status says what to answer, where there is a choice."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Request(NamedTuple):
    """The head of a request."""

    method: str
    path: str
    """Without query, scheme and authority, as sent."""
    headers: dict[str, str]
    keep_alive: bool


class Response(NamedTuple):
    """The head of a response."""

    status: int
    headers: dict[str, str]


class Reader:
    """Reads heads and bodies off one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()

    def request(self, *, seconds: float) -> Request | None:
        """The next request's head, None if the peer has closed instead. Raises ProtocolError, TimeoutError."""
        raw = self._head(seconds)
        if raw is None:
            return None
        first, headers = _parse(raw)
        found = _REQUEST.fullmatch(first)
        if not found:
            raise ProtocolError(400, "malformed request line")
        target = found[2].decode()
        if target.startswith("http://"):
            # The form for proxies: published commands have filler names for hosts, so all of them are ours.
            target = "/" + target[len("http://") :].partition("/")[2]
        tokens = headers.get("connection", "").lower()
        keep_alive = "close" not in tokens if found[3] == b"1.1" else "keep-alive" in tokens
        return Request(found[1].decode(), target.partition("?")[0], headers, keep_alive)

    def response(self, *, seconds: float) -> Response:
        """The next response's head that isn't an interim one. Raises ProtocolError, OSError."""
        deadline = time.monotonic() + seconds
        while True:
            raw = self._head(max(0.001, deadline - time.monotonic()))
            if raw is None:
                raise ConnectionResetError("closed before a response")
            first, headers = _parse(raw)
            found = _RESPONSE.fullmatch(first)
            if not found:
                raise ProtocolError(502, "malformed response")
            status = int(found[1])
            if status >= 200:
                return Response(status, headers)

    def request_body(self, request: Request) -> Body:
        """The body that a request's head announces."""
        encoding = request.headers.get("transfer-encoding")
        length = request.headers.get("content-length")
        if encoding is not None:
            if length is not None or encoding.lower() != "chunked":
                raise ProtocolError(400, "conflicting or unknown framing of the body")
            return Body(self, length=None, chunked=True)
        return Body(self, length=_length(length or "0"))

    def response_body(self, response: Response, *, method: str) -> Body:
        """The body that a response's head announces."""
        if method == "HEAD" or response.status in {204, 304}:
            return Body(self, length=0)
        if response.headers.get("transfer-encoding", "").lower() == "chunked":
            return Body(self, length=None, chunked=True)
        length = response.headers.get("content-length")
        return Body(self, length=None if length is None else _length(length))

    def read_into(self, view: memoryview) -> int:
        """Fill part of the view; 0 at the end of the stream."""
        if self._buffer:
            count = min(len(view), len(self._buffer))
            view[:count] = self._buffer[:count]
            del self._buffer[:count]
            return count
        return self.connection.recv_into(view)

    def buffered(self) -> int:
        """How many bytes were read from the connection and not from here."""
        return len(self._buffer)

    def line(self) -> bytes:
        """One line of the chunked coding, without its end."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LINE_LIMIT or not self._more():
                raise ProtocolError(400, "malformed chunk")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _head(self, seconds: float) -> bytes | None:
        # The whole head has one deadline: a byte now and then doesn't hold a thread.
        deadline = time.monotonic() + seconds
        before = self.connection.gettimeout()
        try:
            while (end := self._buffer.find(b"\r\n\r\n")) < 0:
                if len(self._buffer) > _HEAD_LIMIT:
                    raise ProtocolError(431, "the head is too large")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the head didn't come in time")
                self.connection.settimeout(left)
                if not self._more():
                    if self._buffer:
                        raise ConnectionResetError("closed inside a head")
                    return None
        finally:
            self.connection.settimeout(before)
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return head

    def _more(self) -> bool:
        received = self.connection.recv(4096)
        self._buffer += received
        return bool(received)


class Body:
    """A body on its way in: of known length, chunked, or until the peer closes."""

    def __init__(self, reader: Reader, *, length: int | None, chunked: bool = False) -> None:
        self._reader = reader
        self._left = 0 if chunked else length
        self._chunked = chunked
        self._first = True
        self.length = length
        """None if only its end will tell."""
        self.ended = length == 0

    def read_into(self, view: memoryview) -> int:
        """Fill part of the view; 0 at the end. Raises ProtocolError, OSError (also for a body that breaks off)."""
        if self.ended:
            return 0
        if self._chunked and not self._left and not self._next_chunk():
            self.ended = True
            return 0
        wanted = view if self._left is None else view[: min(len(view), self._left)]
        count = self._reader.read_into(wanted)
        if not count:
            if self._left is not None:
                raise ConnectionResetError("the body broke off")
            self.ended = True
        elif self._left is not None:
            self._left -= count
            self.ended = not self._left and not self._chunked
        return count

    @property
    def directly(self) -> int:
        """How many bytes may be taken off the connection itself, past this reader; 0 if some are buffered here."""
        return 0 if self._chunked or self._reader.buffered() else self._left or 0

    @property
    def connection(self) -> socket.socket:
        """Where the body comes from."""
        return self._reader.connection

    def took(self, count: int) -> None:
        """Account for bytes taken off the connection directly."""
        self._left = (self._left or 0) - count
        self.ended = not self._left

    def read_all(self, *, limit: int) -> bytes:
        """All of it. Raises ProtocolError 413 beyond the limit."""
        result = bytearray()
        view = memoryview(bytearray(min(BUFFER, limit + 1)))
        while count := self.read_into(view):
            result += view[:count]
            if len(result) > limit:
                raise ProtocolError(413, f"larger than {limit} bytes")
        return bytes(result)

    def _next_chunk(self) -> bool:
        if not self._first and self._reader.line():
            raise ProtocolError(400, "malformed chunk")
        self._first = False
        found = _CHUNK.fullmatch(self._reader.line())
        if not found:
            raise ProtocolError(400, "malformed chunk")
        self._left = int(found[1], 16)
        if self._left:
            return True
        trailers = 0
        while self._reader.line():
            trailers += 1
            if trailers > 32:
                raise ProtocolError(400, "too many trailers")
        return False


def head(first: str, headers: dict[str, str]) -> bytes:
    """Write a head."""
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _parse(raw: bytes) -> tuple[bytes, dict[str, str]]:
    first, *lines = raw.lstrip(b"\r\n").split(b"\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ProtocolError(400, "malformed header")
        key, text = name.decode().lower(), value.strip(b" \t").decode("latin-1")
        if key in headers:
            if key in _SINGLE:
                raise ProtocolError(400, f"{key} occurs twice")
            text = f"{headers[key]}, {text}"
        headers[key] = text
    return first, headers


def _length(text: str) -> int:
    if not _LENGTH.fullmatch(text):
        raise ProtocolError(400, "malformed content-length")
    return int(text)

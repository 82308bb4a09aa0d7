"""Request bodies on their way in: as aiohttp parses them, or straight from the socket where much is still to come.

aiohttp looks at each byte of a body and copies it twice. In one whose length is known there is nothing to look for. So
a long one is read past aiohttp, which is deaf meanwhile. aiohttp can't be told how far the body is then; that
connection takes no other request.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from aiohttp import HttpVersion11, web

from gpux.store.connection import Connection
from gpux.store.http import HttpError, check_length

#: A peer that sends nothing for so long, in the middle of something, has gone.
IDLE_SECONDS = 60.0

Chunk: TypeAlias = bytes | memoryview
"""Part of a body, which stays what it is."""

BUFFER = 1 << 20
_KEPT = 3
"""So many buffers are enough where two batches are under way while another is collected."""

_LONG = 4 << 20
"""Whoever sends less keeps his connection for the next request; that is worth more."""
_FIRST = 16 * 1024
"""Whoever was silent is read so far at first: he may have to wait for a slot with what has come. Whoever sends less is
slow, and needs no larger buffer."""
_GATHER_SECONDS = 0.05
"""How long the rest of a buffer may take; who is slower is read in smaller pieces."""


class Body:
    """The body of a request. To be closed by whoever reads it."""

    def __init__(self, request: web.BaseRequest, *, straight: bool = False) -> None:
        """``straight``: what is long may be read past aiohttp, and is closed in the end."""
        self._request = request
        self._may_go_straight = straight
        self._straight: _Straight | None = None

    async def chunks(self, *, limit: int, silence: float | None = None) -> AsyncIterator[Chunk]:
        """Yield the body as it comes. Raises HttpError for one that is too large, stalls or breaks off.

        When nothing has come for ``silence`` seconds, an empty chunk says so.
        """
        # Somebody who asks first is told now, when everything but the body has been checked.
        request = self._request
        asks = (
            request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"
        )
        if asks and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        size = 0
        while True:
            chunk = await self._next(IDLE_SECONDS if silence is None else silence)
            if chunk is None and silence is not None:
                yield b""
                chunk = await self._next(IDLE_SECONDS)
            if chunk is None:
                raise HttpError(408, "the body stalled")
            if not chunk:
                return
            size += len(chunk)
            if size > limit:
                raise HttpError(413, f"the body is larger than {limit} bytes")
            yield chunk
            self._go_straight(size)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let the rest wait in the sender's hands. What follows a whole body is aiohttp's to hold back."""
        transport = self._request.transport
        if transport is None or self._straight is not None or self._request.content.is_eof():
            yield
            return
        transport.pause_reading()
        try:
            yield
        finally:
            transport.resume_reading()

    def rest(self) -> None:
        """Keep as little memory as can be until more has come."""
        if self._straight is not None:
            self._straight.rest()

    def close(self) -> None:
        """Leave what wasn't read to aiohttp. May be repeated."""
        straight, self._straight = self._straight, None
        if straight is not None:
            straight.close()

    def _go_straight(self, size: int) -> None:
        """Read past aiohttp from now on, if that is worth it and aiohttp holds none of what comes next."""
        request = self._request
        left = (request.content_length or 0) - size
        if (
            self._may_go_straight
            and self._straight is None
            and left >= _LONG
            and request.content.total_bytes == size
        ):
            connection = request.protocol
            if (
                isinstance(connection, Connection)
                and (taken := connection.bypass(request.content)) is not None
            ):
                self._straight = _Straight(connection, taken, left)

    async def _next(self, seconds: float) -> Chunk | None:
        """Read what has come: nothing at the end, None if nothing comes for so long."""
        if self._straight is not None:
            return await self._straight.read(seconds)
        try:
            async with asyncio.timeout(seconds):
                return await self._request.content.readany()
        except TimeoutError:
            return None
        except (web.RequestPayloadError, ConnectionError):
            raise _broken_off() from None


class _Straight:
    """The rest of a body whose length is known, read from the socket."""

    def __init__(self, connection: Connection, taken: socket.socket, left: int) -> None:
        self._connection = connection
        self._socket = taken
        self._left = left
        self._fast = False
        self._buffers: list[bytearray] = []

    def rest(self) -> None:
        """Have no large buffer until something has come again."""
        self._fast = False
        self._buffers.clear()

    def close(self) -> None:
        """Give the connection back."""
        self._socket.close()
        self._connection.end_bypass(self._left)

    async def read(self, seconds: float) -> Chunk | None:
        """Read the next bytes: nothing at the end, None if nothing comes for so long. Raises HttpError."""
        if not self._left:
            return b""
        buffer = memoryview(self._buffer() if self._fast else bytearray(_FIRST))[: self._left]
        count = await self._fill(buffer, seconds)
        if not count:
            return None
        self._left -= count
        self._fast = count == len(buffer)
        return buffer[:count]

    def _buffer(self) -> bytearray:
        """Return a large buffer that nobody has: memory that is new to the process is slow."""
        found = next(filter(_is_free, self._buffers), None)
        if found is None:
            found = bytearray(BUFFER)
            self._buffers = [*self._buffers[-_KEPT:], found]
        return found

    async def _fill(self, buffer: memoryview, seconds: float) -> int:
        """Wait for the next bytes, and a moment for more; how many came."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        filled = 0
        while filled < len(buffer):
            try:
                count = self._socket.recv_into(buffer[filled:])
            except BlockingIOError:
                if await self._readable(until - loop.time()):
                    continue
                break
            except OSError:
                # However the connection ended: a host that is gone is no other case than one that hangs up.
                count = 0
            if not count:
                if not filled:
                    raise _broken_off()
                break
            if not filled:
                until = loop.time() + _GATHER_SECONDS
            filled += count
        return filled

    async def _readable(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._socket, _set, ready)
        try:
            async with asyncio.timeout(seconds):
                await ready
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._socket)
        return True


def _is_free(buffer: bytearray) -> bool:
    """Whether no memoryview shows any of it. Python doesn't let what is shown change its size."""
    try:
        buffer.pop()
    except BufferError:
        return False
    buffer.append(0)
    return True


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def read_object(request: web.BaseRequest, *, limit: int) -> dict[str, Any]:
    """Read a JSON object."""
    check_length(request, limit=limit)
    raw = b"".join([chunk async for chunk in Body(request).chunks(limit=limit)])
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise HttpError(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise HttpError(400, "the body is not a JSON object")
    return document


def _broken_off() -> HttpError:
    return HttpError(400, "the body ended early")

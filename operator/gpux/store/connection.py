"""A connection to the store: aiohttp's, with a limit for the first request, a plain voice, and the fast lane."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import StreamReader, web

from gpux.store.fastlane import Lane
from gpux.store.http import reply

_FIRST_REQUEST_SECONDS = 30.0
_KEEPALIVE_SECONDS = 75.0
_READ_AHEAD = 256 * 1024
"""As much as asyncio reads at once: with less, every piece of an upload would halt its connection."""


class _Bypassed:
    """A body that was read past aiohttp, of which some may be left. Whatever follows it is for nobody."""

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self.left = 0

    def pass_over(self, count: int) -> None:
        """Forget what has come; at the end of the body aiohttp is told that it was there."""
        self.left = max(0, self.left - count)
        if not self.left and not self._content.is_eof():
            self._content.feed_eof()


class Connection(web.RequestHandler):
    """A connection that must make its first request soon: aiohttp bounds only the time between requests.

    A request may take the fast lane when it came in one piece, on a connection where everything before it is answered
    and has left. So it never overtakes another, and neither waits for a slow reader nor adds to what waits for him.
    """

    __slots__ = ("_between", "_bypassed", "_first", "_head", "_lane")

    _first: asyncio.TimerHandle | None

    def __init__(self, manager: Listener, *, lane: Lane | None, **options: Any) -> None:
        super().__init__(manager, **options)
        self._first = None
        self._lane = lane
        self._between = True
        """Whether the parser has nothing of a request that isn't whole yet."""
        self._head: bytes | None = None
        """What the request that is being answered was sent as, if it may be learned from."""
        self._bypassed: _Bypassed | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._first = loop.call_later(_FIRST_REQUEST_SECONDS, transport.close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing any more."""
        self.request_came()
        if self._bypassed is not None:
            self._bypassed.pass_over(self._bypassed.left)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer from memory, or leave it to aiohttp."""
        if self._bypassed is not None:
            self._bypassed.pass_over(len(data))
            return
        lane, waiter = self._lane, self._waiter
        if lane is None:
            super().data_received(data)
            return
        idle = waiter is not None and not waiter.done() and not self._messages
        fresh = idle and self._between
        if fresh and self.transport is not None and not self.transport.get_write_buffer_size():
            answer = lane.answer(data)
            if answer is not None:
                self.request_came()
                # As after any answer; the timer that looks at it runs while a connection is idle.
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                self.transport.write(answer)
                return
        count = self._request_count
        super().data_received(data)
        # One head that ends where the data does: whatever was before it, nothing is left over. If a body has to follow,
        # it comes before the connection is idle again.
        self._between = idle and data.endswith(b"\r\n\r\n") and self._request_count == count + 1
        self._head = data if fresh and self._between else None

    def bypass(self, content: StreamReader) -> socket.socket | None:
        """Read nothing more of a request's body; the connection's socket, from which somebody else does now."""
        if self.transport is None or self.transport.is_closing():
            return None
        try:
            taken: socket.socket = self.transport.get_extra_info("socket").dup()
        except OSError:
            return None
        self.transport.pause_reading()
        self._bypassed = _Bypassed(content)
        return taken

    def end_bypass(self, left: int) -> None:
        """Read again, to pass over what is left of the body. No other request comes after it."""
        if self._bypassed is not None:
            self._bypassed.left = left
            self._bypassed.pass_over(0)
        if self.transport is not None:
            self.transport.resume_reading()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and have the fast lane learn from it."""
        head, self._head = self._head, None
        if self._bypassed is not None:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if self._lane is not None and head is not None:
            self._lane.learn(head, request, resp)
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 the same
        message: str | None = None,  # noqa: ARG002 the same
    ) -> web.StreamResponse:
        """Answer what is no HTTP as everything else, without repeating it to its sender."""
        response = reply(
            {"error": "the request is malformed" if status < 500 else "internal error"}, status=status
        )
        response.force_close()
        return response

    def request_came(self) -> None:
        """Take the limit for the first request away."""
        if self._first is not None:
            self._first.cancel()
            self._first = None


class Listener(web.Server):
    """aiohttp's server with our connections."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        lane: Lane | None = None,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._lane = lane

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a new connection."""
        return Connection(
            self,
            lane=self._lane,
            loop=asyncio.get_running_loop(),
            # What a job uploads is stored as it is, whatever encoding it says it has.
            auto_decompress=False,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            read_bufsize=_READ_AHEAD,
        )

"""The store's connections without sockets or threads, so that a test sees each piece that comes and goes."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future

from gpux import tokens
from gpux.store.connection import Listener
from gpux.store.fastlane import Lane
from gpux.store.files import FileApi
from gpux.store.metrics import Metrics
from gpux.store.server import Server, bearer
from gpux.store.transfer import Limits, Transfer

KEY = b"a key for tests, of thirty-two b"
_TURNS = 40
"""Turns of the loop in which everything that can happen without waiting for somebody has happened."""


def head(path, *lines, method="GET", version="HTTP/1.1") -> bytes:
    return "\r\n".join([f"{method} {path} {version}", "Host: x", *lines, "", ""]).encode()


def authorization(scope="job", *, key=KEY, **claims) -> str:
    return "Authorization: Bearer " + tokens.sign(
        key, {"scope": scope, "namespace": "a", "task": "t", "exp": 2**33, **claims}
    )


class _Inline(Executor):
    """Does at once what it is given."""

    def submit(self, function, /, *arguments, **options):
        future: Future[object] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 the future's to raise
            future.set_exception(error)
        return future


class _Wire(asyncio.Transport):
    """Keeps what is sent."""

    def __init__(self):
        super().__init__()
        self.sent, self.closed, self.stuck = b"", False, 0

    def write(self, data):
        self.sent += data

    def writelines(self, pieces):
        self.sent += b"".join(pieces)

    def get_write_buffer_size(self):
        return self.stuck

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = True

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Store:
    """A store of files, with the fast lane or without."""

    def __init__(self, blobs, *, key=lambda: KEY, lane=True, **options):
        self.metrics = Metrics(free_bytes=blobs.free_bytes, usage=blobs.usage, calls=dict)
        transfer = Transfer(blobs=blobs, executor=_Inline(), metrics=self.metrics, limits=Limits())
        self._server = Server([FileApi(transfer)], authenticate=bearer(key), metrics=self.metrics)
        self.lane = Lane(blobs.watch, key=key, metrics=self.metrics, **options) if lane else None
        self.listener = Listener(self._handle, lane=self.lane)
        self.parsed = 0
        """How many requests came to the ordinary path."""

    async def _handle(self, request):
        self.parsed += 1
        request.protocol.request_came()
        return await self._server(request)

    async def connect(self):
        connection = Connected(self.listener())
        # A loop never gives data in the turn in which it connects.
        await asyncio.sleep(0)
        return connection


class Connected:
    """A connection, as its client has it."""

    def __init__(self, protocol):
        self._protocol, self.wire = protocol, _Wire()
        protocol.connection_made(self.wire)

    async def send(self, data, *, settle=True) -> bytes:
        """Send one piece; all that has been answered so far, also to former ones."""
        if not self.wire.closed:
            self._protocol.data_received(data)
        if settle:
            return await self.settled()
        await asyncio.sleep(0)
        return self.wire.sent

    async def settled(self) -> bytes:
        """All that is answered without more from the client."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return self.wire.sent

    async def ask(self, data) -> bytes:
        """Send a request; its answer."""
        before = len(self.wire.sent)
        return (await self.send(data))[before:]

    async def leave(self):
        self._protocol.connection_lost(None)
        await self.settled()

"""Contents on their way in and out, whichever part of the API they belong to."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import BinaryIO, NamedTuple, TypeVar

from aiohttp import web

from gpux.blobs import Blob, Blobs, Content, Keeper, check_quotas
from gpux.errors import UnavailableError
from gpux.hashes import FileHash
from gpux.log import log
from gpux.splice import Pipe
from gpux.store.body import Chunk
from gpux.store.http import HttpError, byte_range, check_length, has_etag
from gpux.store.metrics import Metrics
from gpux.store.uploads import Slot, Slots, receive

_SMALL_FILE = 64 * 1024
"""Files up to this size are read at once; larger ones go from the page cache to the socket by the kernel."""
_PIECE = 8 << 20
_PATIENCE_SECONDS = 0.1
"""How long a thread waits for a reader; one that is slower is waited for without a thread."""
_TURN_SECONDS = 0.1
"""After so long a thread is given back, since others may wait for one."""
_PIECE_SECONDS = 120.0
"""Eight megabytes in two minutes: a reader slower than that has gone."""

T = TypeVar("T")


class Limits(NamedTuple):
    """What one store takes on."""

    file_bytes: int = 1 << 40
    uploads: int = 16
    uploads_per_namespace: int = 8


class _Held:
    """A small content that was read when it was opened, so that it takes one way to a thread and back, not two."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def file(self) -> None:
        return None

    def read(self, start: int, end: int) -> Generator[bytes]:
        yield self.data[start:end]

    def stream(self, start: int, end: int, pipe: Pipe) -> Generator[bytes | None]:  # noqa: ARG002 it is small
        return self.read(start, end)

    def close(self) -> None:
        """Nothing is open."""


class Transfer:
    """Takes contents in, and gives them out."""

    def __init__(self, *, blobs: Blobs, executor: Executor, metrics: Metrics, limits: Limits) -> None:
        self.blobs = blobs
        self.executor = executor
        self.metrics = metrics
        self.limits = limits
        self._slots = Slots(total=limits.uploads, per_namespace=limits.uploads_per_namespace)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Do something that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, function)

    # ------------------------------------------------------------------------------------------------ in

    @asynccontextmanager
    async def slot(
        self, request: web.BaseRequest, namespace: str, *, slots: Slots | None = None
    ) -> AsyncIterator[Slot]:
        """Have a place among the uploads that are under way. Raises HttpError."""
        async with (slots or self._slots).take(request, namespace) as slot:
            with self.metrics.uploads.track_inprogress():
                yield slot

    async def receive(
        self,
        request: web.BaseRequest,
        keeper: Keeper,
        *,
        limit: int | None = None,
        slots: Slots | None = None,
    ) -> tuple[Blob, bool]:
        """Store the body of a request, in its turn among other files or in ``slots``; see `Upload.commit`."""
        most = self.limits.file_bytes if limit is None else limit
        check_length(request, limit=most)
        check_quotas(keeper, request.content_length or 0)
        async with self.slot(request, keeper.namespace, slots=slots) as slot:
            return await receive(
                within_quotas(slot.chunks(limit=most), keeper),
                blobs=self.blobs,
                keeper=keeper,
                size=request.content_length,
                executor=self.executor,
                count=self.metrics.received.inc,
            )

    # ------------------------------------------------------------------------------------------------ out

    @asynccontextmanager
    async def opened(self, namespace: str, name: FileHash) -> AsyncIterator[tuple[Blob, Content]]:
        """Open a content of a namespace. Raises HttpError."""
        found = await self.in_thread(lambda: self._open(namespace, name))
        if found is None:
            raise HttpError(404, "no such file")
        try:
            yield found
        finally:
            # Closing a descriptor waits for nothing; a backend that isn't files takes care of itself.
            found[1].close()

    def _open(self, namespace: str, name: FileHash) -> tuple[Blob, Content] | None:
        found = self.blobs.open(namespace, name)
        if found is None or found[0].size > _SMALL_FILE:
            return found
        blob, content = found
        try:
            return blob, _Held(b"".join(content.read(0, blob.size)))
        finally:
            content.close()

    async def send(self, request: web.BaseRequest, blob: Blob, content: Content) -> web.StreamResponse:
        """Answer with a content, as a whole or the range that is asked for."""
        etag = f'"{blob.sha256}"'
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "ETag": etag,
            "X-Content-Type-Options": "nosniff",
        }
        if has_etag(request.headers.get("If-None-Match", ""), etag):
            return web.Response(status=304, headers=headers)
        wanted = byte_range(request, size=blob.size, etag=etag)
        start, end = wanted or (0, blob.size)
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        status = 206 if wanted else 200
        if request.method != "HEAD" and end - start <= _SMALL_FILE:
            if isinstance(content, _Held):
                body = content.data[start:end]
            else:
                body = await self.in_thread(lambda: b"".join(content.read(start, end)))
            self.metrics.sent.inc(len(body))
            return web.Response(body=body, status=status, headers=headers)
        headers["Content-Length"] = str(end - start)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            await self.write(request, response, content, start=start, end=end)
        await response.write_eof()
        return response

    async def write(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        content: Content,
        *,
        start: int,
        end: int,
    ) -> None:
        """Send bytes of a content as part of a body whose length is announced."""
        file = content.file()
        if end - start <= _SMALL_FILE:
            body = await self.in_thread(lambda: b"".join(content.read(start, end)))
            if len(body) < end - start:
                raise ConnectionResetError("the content ended early")
            await response.write(body)
            self.metrics.sent.inc(len(body))
        elif file is None:
            await self._stream(request, content, start, end)
        else:
            await self._sendfile(request, file, start, end)

    async def _sendfile(self, request: web.BaseRequest, file: BinaryIO, start: int, end: int) -> None:
        loop = asyncio.get_running_loop()
        while start < end:
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the reader has gone")
            count = min(_PIECE, end - start)
            try:
                async with asyncio.timeout(_PIECE_SECONDS):
                    await loop.sendfile(transport, file, start, count)
            except TimeoutError:
                transport.abort()
                raise ConnectionResetError("the reader stalled") from None
            self.metrics.sent.inc(count)
            start += count

    async def _stream(self, request: web.BaseRequest, content: Content, start: int, end: int) -> None:
        """Send what has to be read first, from the thread that reads it as long as the reader keeps up.

        Past the transport, which has nothing of its own to send meanwhile: the headers are gone when it is drained.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the reader has gone")
        while transport.get_write_buffer_size():  # noqa: ASYNC110 the transport tells its protocol, not us
            await asyncio.sleep(0.001)
        loop = asyncio.get_running_loop()
        pipe = Pipe()
        pieces = content.stream(start, end, pipe)
        target = transport.get_extra_info("socket").dup()
        pumping = None
        try:
            while start < end:
                pumping = loop.run_in_executor(self.executor, _pump, pieces, target, pipe)
                count, rest = await pumping
                if not count:
                    break
                async with asyncio.timeout(_PIECE_SECONDS):
                    await loop.sock_sendall(target, rest)
                self.metrics.sent.inc(count)
                start += count
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError("the reader stalled") from None
        except UnavailableError as error:
            log("warning", "a content broke off", error=str(error))
        finally:
            if pumping is not None:
                await asyncio.wait((pumping,))
            target.close()
            await self.in_thread(pieces.close)
        if start < end:
            # The backend has lost it midway; the length that was announced tells the reader.
            raise ConnectionResetError("the content ended early")


def _pump(
    pieces: Iterator[bytes | None], target: socket.socket, pipe: Pipe
) -> tuple[int, bytes | memoryview]:
    """Send the next pieces as long as the reader takes them; how much they are, and what of the last is left over."""
    until = time.monotonic() + _TURN_SECONDS
    count = 0
    rest: bytes | memoryview = b""
    target.settimeout(_PATIENCE_SECONDS)
    try:
        with pipe:
            for piece in pieces:
                count += pipe.held if piece is None else len(piece)
                rest = _push(piece, target, pipe)
                if rest or time.monotonic() > until:
                    break
    finally:
        target.settimeout(0)
    return count, rest


def _push(piece: bytes | None, target: socket.socket, pipe: Pipe) -> bytes | memoryview:
    """Send a piece, from the pipe if it is None; what is left of it when the reader is too slow."""
    rest = memoryview(piece or b"")
    try:
        while rest:
            rest = rest[target.send(rest) :]
        pipe.drain(target)
    except TimeoutError:
        return rest or pipe.rest()
    return b""


async def within_quotas(
    chunks: AsyncIterator[Chunk], keeper: Keeper, *, size: int = 0
) -> AsyncIterator[Chunk]:
    """Pass a body on until it is too large, so that nobody fills the disk with what is refused in the end.

    ``size`` is how much there was before.
    """
    async for chunk in chunks:
        size += len(chunk)
        check_quotas(keeper, size)
        yield chunk

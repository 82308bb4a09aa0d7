"""The part of the API for uploads in several requests, which go on where the connection broke.

In the manner of tus and the IETF's draft on resumable uploads. An upload whose hashes are running can't be written
down, so it is in this process's memory between two requests, for a while and a few per namespace: at another replica,
or after a restart, nobody knows it, and the client begins anew. Whoever finds no place here still has the plain upload.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager

from aiohttp import web

from gpux.blobs import Blob, Keeper, Upload, check_quotas
from gpux.store.body import Chunk
from gpux.store.feeding import feed
from gpux.store.http import HttpError, reply
from gpux.store.routes import FILES, Context, route
from gpux.store.transfer import Transfer, within_quotas

#: How long an upload is kept without another byte, in seconds, and its answer after its end.
KEEP_SECONDS = 900.0

_TOTAL = 32
"""Over a bucket each has a part in the scratch space, which those under way need too."""
_PER_NAMESPACE = 8
_ANSWERS_PER_NAMESPACE = 64
_ID = r"(?P<id>[0-9a-f]{32})"
_OFFSET = "Upload-Offset"
_LENGTH = "Upload-Length"


class _Open:
    """An upload between its requests."""

    def __init__(self, keeper: Keeper, *, length: int | None, until: float) -> None:
        self.id = secrets.token_hex(16)
        self.namespace = keeper.namespace
        self.whose = _whose(keeper)
        """Whose requests it takes."""
        self.length = length
        self.offset = 0
        self.until = until
        self.busy = False
        self.upload: Upload | None = None
        self.answer: tuple[Blob, bool] | None = None
        self.timer: asyncio.TimerHandle | None = None


class ResumeApi:
    """The routes below ``/v1/uploads``."""

    def __init__(self, transfer: Transfer, *, seconds: float = KEEP_SECONDS) -> None:
        """``seconds`` is as `KEEP_SECONDS`."""
        self._transfer = transfer
        self._seconds = seconds
        # In the order in which they began.
        self._known: dict[str, _Open] = {}
        self.routes = [
            route("resumable", "/v1/uploads/?", POST=(FILES, self._begin)),
            route(
                "resumable-one",
                f"/v1/uploads/{_ID}",
                PATCH=(FILES, self._append),
                GET=(FILES, self._tell),
                HEAD=(FILES, self._tell),
                DELETE=(FILES, self._abort),
            ),
            route("resumable-done", f"/v1/uploads/{_ID}/done", POST=(FILES, self._done)),
        ]

    def close(self) -> None:
        """Forget all of them but those that a request has, which sees to its own."""
        for opened in list(self._known.values()):
            if not opened.busy:
                self._forget(opened)

    # ------------------------------------------------------------------------------------------------ requests

    async def _begin(self, context: Context) -> web.StreamResponse:
        keeper = context.keeper
        length = _number(context.request.headers, _LENGTH)
        if (length or 0) > self._transfer.limits.file_bytes:
            raise _too_large(self._transfer.limits.file_bytes)
        check_quotas(keeper, length or 0)
        unfinished = [opened for opened in self._known.values() if opened.answer is None]
        own = [opened for opened in unfinished if opened.namespace == keeper.namespace]
        if len(unfinished) >= _TOTAL or len(own) >= _PER_NAMESPACE:
            raise HttpError(429, "too many uploads have begun and not ended", headers={"Retry-After": "60"})
        opened = _Open(keeper, length=length, until=self._now() + self._seconds)
        # Before it is really open, so that it has its place among the others.
        self._known[opened.id] = opened
        with self._used(opened):
            try:
                opened.upload = await self._transfer.in_thread(
                    lambda: self._transfer.blobs.begin(size=length)
                )
            except BaseException:
                self._forget(opened)
                raise
        return _state(opened, status=201)

    async def _tell(self, context: Context) -> web.StreamResponse:
        with self._used(self._find(context)) as opened:
            return _state(opened)

    async def _append(self, context: Context) -> web.StreamResponse:
        with self._used(self._find(context)) as opened:
            offset = _number(context.request.headers, _OFFSET)
            if offset is None:
                raise HttpError(400, f"{_OFFSET} is needed: where in the upload the body belongs")
            if offset != opened.offset or opened.upload is None:
                raise _elsewhere(opened)
            await self._take(context, opened, opened.upload)
            return _state(opened)

    async def _take(self, context: Context, opened: _Open, upload: Upload) -> None:
        """Add a body, also if it breaks off. Raises HttpError after what came of it was added."""
        request, keeper = context.request, context.keeper
        most = self._transfer.limits.file_bytes if opened.length is None else opened.length
        size = opened.offset + (request.content_length or 0)
        if size > most:
            raise _too_large(most)
        check_quotas(keeper, size)
        body = _Body()
        async with self._transfer.slot(request, keeper.namespace) as slot:
            chunks = body.chunks(slot.chunks(limit=most - opened.offset))
            try:
                await feed(
                    within_quotas(chunks, keeper, size=opened.offset),
                    upload=upload,
                    executor=self._transfer.executor,
                    count=self._transfer.metrics.received.inc,
                )
            except BaseException:
                # The hashes may be ahead of the bytes.
                self._forget(opened)
                raise
        if body.size:
            opened.offset += body.size
            opened.until = self._now() + self._seconds
        if body.error is not None:
            raise body.error

    async def _done(self, context: Context) -> web.StreamResponse:
        with self._used(self._find(context)) as opened:
            if opened.upload is not None:
                if opened.length not in {None, opened.offset}:
                    raise _elsewhere(opened)
                opened.answer = await self._commit(context, opened, opened.upload)
                opened.upload = None
                opened.until = self._now() + self._seconds
                self._make_room(opened.namespace)
            if opened.answer is None:
                raise _unknown()
            blob, new = opened.answer
            return reply(blob.document(), status=201 if new else 200)

    async def _commit(self, context: Context, opened: _Open, upload: Upload) -> tuple[Blob, bool]:
        async with self._transfer.slot(context.request, opened.namespace):
            try:
                answer = await self._transfer.in_thread(lambda: upload.commit(context.keeper))
            except BaseException:
                self._forget(opened)
                raise
            await self._transfer.in_thread(upload.abort)
        return answer

    async def _abort(self, context: Context) -> web.StreamResponse:
        with self._used(self._find(context)) as opened:
            gone = self._forget(opened)
            if gone is not None:
                await asyncio.wrap_future(gone)
        return web.Response(status=204)

    # ------------------------------------------------------------------------------------------------ keeping

    def _find(self, context: Context) -> _Open:
        """Return the upload in the path. Raises HttpError; one of somebody else is none."""
        keeper = context.keeper
        opened = self._known.get(context.path["id"])
        if opened is None or opened.whose != _whose(keeper):
            raise _unknown()
        return opened

    @contextmanager
    def _used(self, opened: _Open) -> Iterator[_Open]:
        """Have an upload for one request; its time goes on afterwards. Raises HttpError."""
        if opened.busy:
            raise HttpError(409, "another request for this upload is under way", headers={"Retry-After": "1"})
        opened.busy = True
        if opened.timer is not None:
            opened.timer.cancel()
        try:
            yield opened
        finally:
            opened.busy = False
            if opened.id in self._known:
                loop = asyncio.get_running_loop()
                opened.timer = loop.call_at(opened.until, self._forget, opened)

    def _forget(self, opened: _Open) -> Future[None] | None:
        """End an upload; when nothing of it is left, if there was anything."""
        self._known.pop(opened.id, None)
        if opened.timer is not None:
            opened.timer.cancel()
        upload, opened.upload = opened.upload, None
        return None if upload is None else self._transfer.executor.submit(upload.abort)

    def _make_room(self, namespace: str) -> None:
        """Forget a namespace's oldest answers."""
        own = [known for known in self._known.values() if known.namespace == namespace and known.answer]
        for known in own[:-_ANSWERS_PER_NAMESPACE]:
            self._forget(known)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class _Body:
    """A body that simply ends where it breaks off, and remembers that it did."""

    def __init__(self) -> None:
        self.size = 0
        self.error: HttpError | None = None

    async def chunks(self, source: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        try:
            async for chunk in source:
                self.size += len(chunk)
                yield chunk
        except HttpError as error:
            self.error = error


def _whose(keeper: Keeper) -> tuple[str, frozenset[str]]:
    return keeper.namespace, frozenset(keeper.references)


def _state(opened: _Open, *, status: int = 200) -> web.Response:
    document: dict[str, str | int] = {"id": opened.id, "offset": opened.offset}
    headers = {_OFFSET: str(opened.offset), "Cache-Control": "no-store"}
    if opened.length is not None:
        document["length"] = opened.length
        headers[_LENGTH] = str(opened.length)
    return reply(document, status=status, headers=headers)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    """Read a number of bytes. Raises HttpError."""
    text = headers.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise HttpError(400, f"{name} is not a number of bytes")
    return int(text)


def _elsewhere(opened: _Open) -> HttpError:
    message = f"the upload is at {opened.offset}"
    if opened.length is not None:
        message += f" of {opened.length}"
    return HttpError(409, message, headers={_OFFSET: str(opened.offset)})


def _too_large(most: int) -> HttpError:
    return HttpError(413, f"the upload would be larger than {most} bytes")


def _unknown() -> HttpError:
    return HttpError(404, "no such upload; one that the store has forgotten begins anew")

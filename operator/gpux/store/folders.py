"""The part of the API for folders: a tar in, its files stored one by one and a manifest of them; and a tar out again.

The archive is never as a whole anywhere. What was stored of one that is refused, or breaks off, goes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from aiohttp import web

from gpux import folders
from gpux.blobs import Blob, Keeper, check_quotas
from gpux.folders import BLOCK, File, Folder, FolderError, Member
from gpux.hashes import FileHash
from gpux.log import log
from gpux.store.body import Chunk
from gpux.store.http import HttpError, check_length, has_etag, reply
from gpux.store.routes import FILES, HASH, Context, route
from gpux.store.transfer import Transfer
from gpux.store.uploads import Slots, receive

_AT_ONCE = 4
"""Folders on their way in: each remembers the names of all its files."""
_EXTENDED = frozenset("xgL")


class FolderApi:
    """The routes below ``/v1/folders``."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._places = Slots(total=_AT_ONCE, per_namespace=_AT_ONCE // 2)
        self.routes = [
            route("folders", "/v1/folders/?", POST=(FILES, self._store), PUT=(FILES, self._store)),
            route("folder", f"/v1/folders/{HASH}", GET=(FILES, self._read), HEAD=(FILES, self._read)),
        ]

    # ------------------------------------------------------------------------------------------------ in

    async def _store(self, context: Context) -> web.StreamResponse:
        keeper, limit = context.keeper, self._transfer.limits.file_bytes
        check_length(context.request, limit=limit)
        stored: list[_Stored] = []
        kept = False
        # Its own kind of place first: who waits for it takes none of those of other uploads.
        async with (
            self._places.take(context.request, keeper.namespace),
            self._transfer.slot(context.request, keeper.namespace) as slot,
        ):
            try:
                source = _Source(slot.chunks(limit=limit))
                folder = await self._take(source, keeper, stored)
                manifest = await self._put(_once(folder.manifest()), keeper, stored)
                await self._refer(keeper, [each.blob for each in stored])
                kept = True
            except FolderError as error:
                raise HttpError(400, str(error)) from None
            finally:
                if not kept:
                    await self._forget(keeper.namespace, [each.blob for each in stored if each.new])
        document = {**manifest.blob.document(), "folder": True, "files": len(folder.files)}
        return reply(document, status=201 if manifest.new else 200)

    async def _refer(self, keeper: Keeper, blobs: Sequence[Blob]) -> None:
        try:
            await self._transfer.in_thread(lambda: self._transfer.blobs.refer(keeper, blobs))
        except KeyError:
            raise HttpError(503, "a file of the folder was removed meanwhile; send it again") from None

    async def _forget(self, namespace: str, blobs: Sequence[Blob]) -> None:
        try:
            await self._transfer.in_thread(lambda: self._transfer.blobs.forget(namespace, blobs))
        except Exception as error:  # noqa: BLE001 why the folder was refused matters more; the sweep does the rest
            log("warning", "files of a refused folder are left to the sweep", error=repr(error))

    async def _take(self, source: _Source, keeper: Keeper, stored: list[_Stored]) -> Folder:
        """Store the members of an archive, and make its folder. Raises FolderError, HttpError, QuotaError."""
        files: list[File] = []
        directories: list[str] = []
        paths = folders.Paths()
        counted: set[str] = set()
        total = 0
        while (member := await _next(source)) is not None:
            if not member.path:
                continue
            paths.add(member.path, directory=member.directory)
            if member.directory:
                directories.append(member.path)
                continue
            check_quotas(keeper, member.size)
            one = await self._put(source.content(member.size), keeper, stored, size=member.size)
            # The same file in several places counts once.
            if one.blob.sha1 not in counted:
                counted.add(one.blob.sha1)
                total += member.size
                check_quotas(keeper, total)
            files.append(File(member.path, one.blob.sha1, member.size, member.executable))
        # Whatever follows the end is no part of the archive, but the sender wants to get rid of it.
        async for _ in source.rest():
            pass
        return Folder(files, directories)

    async def _put(
        self,
        chunks: AsyncIterator[Chunk],
        keeper: Keeper,
        stored: list[_Stored],
        *,
        size: int | None = None,
    ) -> _Stored:
        """Store one file to which nothing refers yet."""
        blob, new = await receive(
            chunks,
            blobs=self._transfer.blobs,
            keeper=keeper._replace(references={}),
            size=size,
            executor=self._transfer.executor,
            count=self._transfer.metrics.received.inc,
        )
        stored.append(_Stored(blob, new))
        return stored[-1]

    # ------------------------------------------------------------------------------------------------ out

    async def _read(self, context: Context) -> web.StreamResponse:
        namespace = context.namespace
        async with self._transfer.opened(namespace, context.hash) as (blob, content):
            if blob.size > folders.LONGEST_MANIFEST:
                raise HttpError(400, "not a folder's manifest")
            raw = await self._transfer.in_thread(lambda: b"".join(content.read(0, blob.size)))
        try:
            folder = await self._transfer.in_thread(lambda: folders.read_manifest(raw))
        except FolderError as error:
            raise HttpError(400, str(error)) from None
        etag = f'"{blob.sha256}.tar"'
        headers = {"Content-Type": "application/x-tar", "ETag": etag, "X-Content-Type-Options": "nosniff"}
        if has_etag(context.request.headers.get("If-None-Match", ""), etag):
            return web.Response(status=304, headers=headers)
        await self._transfer.in_thread(lambda: self._look(namespace, folder.files))
        headers["Content-Length"] = str(
            sum(
                len(header) + (file.size + folders.padding(file.size) if file else 0)
                for header, file in folders.archive(folder)
            )
        )
        response = web.StreamResponse(headers=headers)
        await response.prepare(context.request)
        if context.request.method != "HEAD":
            await self._send(context.request, response, namespace, folder)
        await response.write_eof()
        return response

    def _look(self, namespace: str, files: Sequence[File]) -> None:
        """See whether all files are there before anything is sent. Raises HttpError."""
        for file in files:
            opened = self._transfer.blobs.open(namespace, FileHash("sha1", file.sha1))
            if opened is None:
                raise HttpError(404, f"the folder's file {file.path!r} is not there any more")
            opened[1].close()
            if opened[0].size != file.size:
                raise HttpError(400, f"not a folder's manifest: {file.path!r} has another size")

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, namespace: str, folder: Folder
    ) -> None:
        for header, file in folders.archive(folder):
            if file is None:
                await response.write(header)
                continue
            await response.write(header)
            try:
                async with self._transfer.opened(namespace, FileHash("sha1", file.sha1)) as (_, content):
                    await self._transfer.write(request, response, content, start=0, end=file.size)
            except HttpError:
                # The length that was announced tells the reader that something is missing.
                raise ConnectionResetError("a file of the folder has gone") from None
            await response.write(bytes(folders.padding(file.size)))


class _Stored(NamedTuple):
    """A file that was stored for a folder, and whether the namespace had it before."""

    blob: Blob
    new: bool


class _Source:
    """The bytes of an archive as they come, with the empty chunks of `Slot.chunks` among them."""

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks
        self._left: Chunk = b""

    async def take(self, count: int) -> bytes:
        """Return the next bytes, of which there must be so many; few. Raises FolderError."""
        pieces = [bytes(piece) async for piece in self._pieces(count)]
        return b"".join(pieces)

    async def content(self, size: int) -> AsyncIterator[Chunk]:
        """Yield a member's bytes, and pass over what fills its last block. Raises FolderError."""
        async for piece in self._pieces(size):
            yield piece
        filling = folders.padding(size)
        if len(self._left) < filling:
            # The slot may be lost over what is still to come.
            yield b""
        await self.take(filling)

    async def rest(self) -> AsyncIterator[Chunk]:
        """Yield everything that is left."""
        yield self._left
        async for chunk in self._chunks:
            yield chunk
            # Nobody works on this; a sender who is fast enough would have the loop to himself.
            await asyncio.sleep(0)

    async def _pieces(self, count: int) -> AsyncIterator[Chunk]:
        while count:
            chunk: Chunk | None = self._left or await anext(self._chunks, None)
            if chunk is None:
                raise FolderError("the archive ends early")
            piece, self._left = chunk[:count], chunk[count:]
            count -= len(piece)
            yield piece


async def _next(source: _Source) -> Member | None:
    """Read headers up to the next member's; None at the archive's end. Raises FolderError."""
    pending = folders.Pending()
    extended = 0
    while (header := folders.read_header(await source.take(BLOCK))) is not None:
        if header.kind not in _EXTENDED:
            return pending.member(header)
        extended += 1
        if header.size > folders.LONGEST_HEADER or extended > 4:
            raise FolderError("extended headers are too long or too many")
        pending.extend(header, await source.take(header.size))
        await source.take(folders.padding(header.size))
    if extended:
        raise FolderError("the archive ends after an extended header")
    return None


async def _once(content: bytes) -> AsyncIterator[Chunk]:
    yield content

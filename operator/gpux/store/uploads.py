"""Taking in a stream: hash and write in threads while the next bytes arrive, in constant memory.

The loop only collects what the sockets give. A batch goes to three threads at once (both hashes and the file; all
three leave Python's lock alone while they work), and the next batch is collected meanwhile; never more than two are
in memory per upload, and the number of uploads at once is bounded, in all and per namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager

from gpux.blobs import Blob, Blobs, Keeper, Upload
from gpux.store.http import HttpError

_BATCH = 1 << 20
_WAIT_SECONDS = 30.0


class Slots:
    """Bounds how many uploads are under way."""

    def __init__(self, *, total: int, per_namespace: int) -> None:
        self._total = asyncio.Semaphore(total)
        self._per_namespace = per_namespace
        self._namespaces: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def take(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a slot; the body waits in the sender's hands meanwhile. Raises HttpError 503 after a while."""
        own, users = self._namespaces.get(namespace, (asyncio.Semaphore(self._per_namespace), 0))
        self._namespaces[namespace] = own, users + 1
        try:
            # The namespace's own first, so that its queue doesn't hold what others could use.
            async with _acquired(own), _acquired(self._total):
                yield
        finally:
            own, users = self._namespaces.pop(namespace)
            if users > 1:
                self._namespaces[namespace] = own, users - 1


@asynccontextmanager
async def _acquired(semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await semaphore.acquire()
    except TimeoutError:
        raise HttpError(503, "too many uploads at once", headers={"Retry-After": "10"}) from None
    try:
        yield
    finally:
        semaphore.release()


async def receive(
    chunks: AsyncIterator[bytes],
    *,
    blobs: Blobs,
    keeper: Keeper,
    size: int | None,
    executor: Executor,
    count: Callable[[int], object],
) -> tuple[Blob, bool]:
    """Store a stream; see `Upload.commit`."""
    loop = asyncio.get_running_loop()
    upload = await loop.run_in_executor(executor, lambda: blobs.begin(size=size))
    try:
        await feed(chunks, upload=upload, executor=executor, count=count)
        return await loop.run_in_executor(executor, upload.commit, keeper)
    finally:
        await loop.run_in_executor(executor, upload.abort)


async def feed(
    chunks: AsyncIterator[bytes], *, upload: Upload, executor: Executor, count: Callable[[int], object]
) -> None:
    """Add a stream to an upload. Whatever it raises, nobody knows then how much of the stream was added."""
    loop = asyncio.get_running_loop()
    working: asyncio.Future[list[None]] | None = None
    try:
        batch: list[bytes] = []
        collected = 0
        async for chunk in chunks:
            batch.append(chunk)
            collected += len(chunk)
            if collected >= _BATCH:
                if working is not None:
                    await working
                working = _start(loop, executor, upload, batch)
                count(collected)
                batch, collected = [], 0
        if working is not None:
            await working
        working = _start(loop, executor, upload, batch)
        await working
        count(collected)
    finally:
        if working is not None and not working.done():
            await asyncio.wait((working,))


def _start(
    loop: asyncio.AbstractEventLoop, executor: Executor, upload: Upload, batch: list[bytes]
) -> asyncio.Future[list[None]]:
    def each(function: Callable[[bytes], None]) -> None:
        for chunk in batch:
            function(chunk)

    steps = (upload.update_sha1, upload.update_sha256, upload.write)
    return asyncio.gather(*(loop.run_in_executor(executor, each, step) for step in steps))

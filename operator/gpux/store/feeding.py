"""What is done with the bytes of an upload: both hashes and the file, each in a thread and at its own pace.

All three leave Python's lock alone while they work, and the loop collects what the sockets give meanwhile. None waits
for the others before memory is short: two processors are busy only if none of them ever waits for another.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor

from gpux.blobs import Upload
from gpux.store.body import BUFFER, Chunk

AHEAD = 2
"""So many batches may be under way while another is collected."""
_TURN = 8
"""After so many batches a thread is for others, if any wait for one."""


async def feed(
    chunks: AsyncIterator[Chunk], *, upload: Upload, executor: Executor, count: Callable[[int], object]
) -> None:
    """Add a stream to an upload. Whatever it raises, nobody knows then how much of the stream was added.

    When an empty chunk was taken, nothing is left in memory.
    """
    work = _Work((upload.update_sha1, upload.update_sha256, upload.write), executor)
    try:
        batch: list[Chunk] = []
        collected = 0
        async for chunk in chunks:
            batch.append(chunk)
            collected += len(chunk)
            if collected >= BUFFER or not chunk or isinstance(chunk, memoryview):
                work.add(batch)
                count(collected)
                batch, collected = [], 0
                await work.until(AHEAD if chunk else 0)
        work.add(batch)
        count(collected)
        await work.until(0)
    finally:
        await work.end()


class _Batch:
    """Chunks, and how many steps haven't been taken with them yet."""

    def __init__(self, chunks: Sequence[Chunk], *, steps: int) -> None:
        self.chunks = chunks
        # Counting is one step of the interpreter, so that exactly one of the threads is the last.
        self._left = itertools.count(steps - 1, -1)

    def ended(self) -> bool:
        """Count one step; whether it was the last."""
        return not next(self._left)


class _Work:
    """Takes steps with batches, each step in their order."""

    def __init__(self, steps: Sequence[Callable[[Chunk], None]], executor: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self._steps = [_Step(step, executor, self._ended) for step in steps]
        self._under_way = 0
        self._waiting: asyncio.Future[None] | None = None

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Begin with a batch."""
        self._under_way += 1
        batch = _Batch(chunks, steps=len(self._steps))
        for step in self._steps:
            step.add(batch)

    async def until(self, most: int) -> None:
        """Wait until no more than so many batches are under way. Raises what a step has raised."""
        while self._under_way > most:
            self._waiting = self._loop.create_future()
            await self._waiting
        for step in self._steps:
            if step.error is not None:
                raise step.error

    async def end(self) -> None:
        """Wait until nothing is under way, whatever was raised."""
        for step in self._steps:
            step.stop()
        while self._under_way:
            self._waiting = self._loop.create_future()
            await self._waiting
        for step in self._steps:
            # It would keep this, and by its traceback the stream and what the stream has.
            step.error = None

    def _ended(self, batch: _Batch) -> None:
        if batch.ended():
            self._loop.call_soon_threadsafe(self._count_down)

    def _count_down(self) -> None:
        self._under_way -= 1
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


class _Step:
    """One thing that is done with each batch, in a thread as long as there are any."""

    def __init__(
        self, function: Callable[[Chunk], None], executor: Executor, ended: Callable[[_Batch], None]
    ) -> None:
        self.error: BaseException | None = None
        self._function = function
        self._executor = executor
        self._ended = ended
        self._lock = threading.Lock()
        self._queue: deque[_Batch] = deque()
        self._busy = False
        self._stopped = False

    def add(self, batch: _Batch) -> None:
        """Queue a batch up."""
        with self._lock:
            self._queue.append(batch)
            if self._busy:
                return
            self._busy = True
        self._begin()

    def stop(self) -> None:
        """Do nothing more with any batch."""
        self._stopped = True

    def _work(self) -> None:
        for _ in range(_TURN):
            with self._lock:
                if not self._queue:
                    self._busy = False
                    return
                batch = self._queue.popleft()
            self._take(batch)
        self._begin()

    def _begin(self) -> None:
        try:
            self._executor.submit(self._work)
        except RuntimeError as error:
            # There is no thread. Should it be queued all the same: after an error batches are only counted.
            self.error = error
            self._work()

    def _take(self, batch: _Batch) -> None:
        try:
            for chunk in batch.chunks:
                if self.error is None and not self._stopped:
                    self._function(chunk)
        except BaseException as error:  # noqa: BLE001 the loop raises it
            self.error = error
        finally:
            self._ended(batch)

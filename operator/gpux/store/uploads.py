"""Taking in a stream: it is hashed and written while the next bytes arrive, in constant memory.

A few batches are in memory per upload, and the number of uploads that have any is bounded, in all and per namespace. A
sender who is silent has none: else a few who send a byte now and then would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager

from aiohttp import web

from gpux.blobs import Blob, Blobs, Keeper
from gpux.store.body import Body, Chunk
from gpux.store.feeding import feed
from gpux.store.http import HttpError

UNDER_WAY = 64
"""Uploads of a namespace, with a slot or without: each is a connection, a temporary file and two unfinished hashes."""
_WAIT_SECONDS = 30.0
_TURN_SECONDS = 0.25
"""Whoever sends nothing for so long has no slot any more."""
_TURN_BYTES = 64 * 1024
"""Whoever sends less in a turn is slow."""


class Slots:
    """Bounds how many uploads have bytes here, and are written and hashed.

    More may be under way: who sends nothing has no slot meanwhile. The next slot is for the namespace that has fewest,
    and there for who came first.
    """

    def __init__(self, *, total: int, per_namespace: int) -> None:
        self._free = total
        self._per_namespace = per_namespace
        self._taken: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self._queue: dict[asyncio.Future[None], str] = {}

    @asynccontextmanager
    async def take(self, request: web.BaseRequest, namespace: str) -> AsyncIterator[Slot]:
        """Wait for a slot; the body waits in the sender's hands meanwhile. Raises HttpError 503 after a while."""
        if self._under_way[namespace] >= UNDER_WAY:
            raise _too_many()
        self._under_way[namespace] += 1
        slot = Slot(self, request, namespace)
        try:
            await slot.take()
            yield slot
        finally:
            slot.close()
            _count_down(self._under_way, namespace)

    def ask(self, namespace: str) -> asyncio.Future[None]:
        """Queue up; the future is done when there is a slot."""
        turn = asyncio.get_running_loop().create_future()
        self._queue[turn] = namespace
        self._hand_out()
        return turn

    def give_back(self, turn: asyncio.Future[None], namespace: str) -> None:
        """End what `ask` has begun, whether a slot came of it or not."""
        if self._queue.pop(turn, None) is None:
            _count_down(self._taken, namespace)
            self._free += 1
            self._hand_out()

    def wanted(self, namespace: str, *, slow: bool) -> bool:
        """Whether one of the namespace's slots is for somebody else now: of a slow sender for anybody who waits.

        Others keep theirs, so that they come to an end, unless the namespace has more than its part.
        """
        return (slow and bool(self._queue)) or any(
            self._taken[other] + 1 < self._taken[namespace] for other in self._queue.values()
        )

    def _hand_out(self) -> None:
        while self._free and (able := [each for each in self._queue.items() if self._may_have(*each)]):
            turn, namespace = min(able, key=lambda each: self._taken[each[1]])
            del self._queue[turn]
            self._taken[namespace] += 1
            self._free -= 1
            turn.set_result(None)

    def _may_have(self, turn: asyncio.Future[None], namespace: str) -> bool:
        return not turn.done() and self._taken[namespace] < self._per_namespace


class Slot:
    """What one upload has of some slots: one, or none while its sender is silent or others have their turn."""

    def __init__(self, slots: Slots, request: web.BaseRequest, namespace: str) -> None:
        self._slots = slots
        self._body = Body(request, straight=True)
        self._namespace = namespace
        self._turn: asyncio.Future[None] | None = None
        self._until = 0.0
        self._came = 0

    async def take(self) -> None:
        """Wait for a slot, and take in nothing meanwhile. Raises HttpError 503 after a while."""
        loop = asyncio.get_running_loop()
        self._turn = turn = self._slots.ask(self._namespace)
        if not turn.done():
            with self._body.held_back():
                try:
                    async with asyncio.timeout(_WAIT_SECONDS):
                        await turn
                except TimeoutError:
                    raise _too_many() from None
        self._until, self._came = loop.time() + _TURN_SECONDS, 0

    def give_back(self) -> None:
        """Have none, or wait for none. May be repeated."""
        turn, self._turn = self._turn, None
        if turn is not None:
            self._slots.give_back(turn, self._namespace)

    def close(self) -> None:
        """Be done with the body, too."""
        self.give_back()
        self._body.close()

    async def chunks(self, *, limit: int) -> AsyncIterator[Chunk]:
        """Yield the body as `Body.chunks` does, with a slot whenever there is something.

        Before the slot is given back comes an empty chunk: who has kept anything in memory writes it down now.
        """
        async for chunk in self._body.chunks(limit=limit, silence=_TURN_SECONDS):
            if not chunk:
                yield chunk
                self._body.rest()
                self.give_back()
            elif self._turn is None:
                await self.take()
                yield chunk
            elif self._is_over(len(chunk)):
                # This is all that has come; the rest waits in the sender's hands.
                with self._body.held_back():
                    yield chunk
                    yield b""
                self._body.rest()
                self.give_back()
                await self.take()
            else:
                yield chunk
        if self._turn is None:
            await self.take()

    def _is_over(self, size: int) -> bool:
        """Count what came, and say whether somebody else is to have the slot."""
        self._came += size
        now = asyncio.get_running_loop().time()
        if now < self._until:
            return False
        slow = self._came < _TURN_BYTES
        self._until, self._came = now + _TURN_SECONDS, 0
        return self._slots.wanted(self._namespace, slow=slow)


def _count_down(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def _too_many() -> HttpError:
    return HttpError(503, "too many uploads at once", headers={"Retry-After": "10"})


async def receive(
    chunks: AsyncIterator[Chunk],
    *,
    blobs: Blobs,
    keeper: Keeper,
    size: int | None,
    executor: Executor,
    count: Callable[[int], object],
) -> tuple[Blob, bool]:
    """Store a stream; see `feed` and `Upload.commit`."""
    loop = asyncio.get_running_loop()
    upload = await loop.run_in_executor(executor, lambda: blobs.begin(size=size))
    try:
        await feed(chunks, upload=upload, executor=executor, count=count)
        return await loop.run_in_executor(executor, upload.commit, keeper)
    finally:
        await loop.run_in_executor(executor, upload.abort)

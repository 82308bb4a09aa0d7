"""Feeding an upload: each step with every byte, in order, and with little of it in memory."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpux.store.body import BUFFER
from gpux.store.feeding import AHEAD, feed
from tests.support.patience import PATIENCE


class Taken:
    """An upload that keeps what each step was given, and may hold a step up or let it fail."""

    def __init__(self):
        self.sha1, self.sha256, self.file = [], [], []
        self.open = threading.Event()
        self.open.set()
        self.fails_at = None

    def update_sha1(self, chunk):
        assert self.open.wait(60 * PATIENCE)
        self.sha1.append(bytes(chunk))

    def update_sha256(self, chunk):
        self.sha256.append(bytes(chunk))

    def commit(self, keeper):
        raise AssertionError

    def abort(self):
        raise AssertionError

    def write(self, chunk):
        if len(self.file) == self.fails_at:
            raise OSError("full")
        self.file.append(bytes(chunk))


async def fed(chunks, upload, *, threads=4):
    async def stream():
        for chunk in chunks:
            yield chunk

    counted: list[int] = []
    with ThreadPoolExecutor(threads) as executor:
        await feed(stream(), upload=upload, executor=executor, count=counted.append)
    return sum(counted)


@pytest.mark.parametrize("threads", [1, 4])
async def test_every_step_takes_every_byte_in_order(threads):
    content = [bytes([number % 251]) * (number * 7919 % 300_000) or b"x" for number in range(60)]
    upload = Taken()
    assert await fed(content, upload, threads=threads) == sum(map(len, content))
    whole = b"".join(content)
    assert b"".join(upload.sha1) == b"".join(upload.sha256) == b"".join(upload.file) == whole


async def test_whoever_is_ahead_waits_when_memory_is_short():
    upload = Taken()
    upload.open.clear()
    asked = []

    async def stream():
        for number in range(10):
            asked.append(number)
            yield bytes(BUFFER)

    with ThreadPoolExecutor(4) as executor:
        feeding = asyncio.create_task(feed(stream(), upload=upload, executor=executor, count=int))
        async with asyncio.timeout(60 * PATIENCE):
            while len(upload.file) <= AHEAD:  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.001)
        assert asked == list(range(AHEAD + 1)), "nothing more is asked for"
        assert not upload.sha1
        upload.open.set()
        await feeding
    assert len(upload.sha1) == len(upload.file) == 10


@pytest.mark.parametrize("fails_at", [0, 5])
async def test_what_a_step_raises_ends_it(fails_at):
    upload = Taken()
    upload.fails_at = fails_at
    asked = []

    async def stream():
        for number in range(1000):
            asked.append(number)
            yield bytes(BUFFER // 8)

    with ThreadPoolExecutor(4) as executor:
        with pytest.raises(OSError, match="full"):
            await feed(stream(), upload=upload, executor=executor, count=int)
        assert len(upload.file) == fails_at
    assert len(asked) < 1000


async def test_nothing_is_under_way_when_it_is_given_up():
    upload = Taken()
    upload.open.clear()
    begun = asyncio.Event()

    async def stream():
        yield bytes(BUFFER)
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(4) as executor:
        feeding = asyncio.create_task(feed(stream(), upload=upload, executor=executor, count=int))
        await begun.wait()
        feeding.cancel()
        await asyncio.sleep(0)
        assert not feeding.done(), "a thread has the upload"
        upload.open.set()
        with pytest.raises(asyncio.CancelledError):
            await feeding
    assert len(upload.sha1) <= 1


class Threadless(ThreadPoolExecutor):
    """Has no thread left after so many pieces of work."""

    def __init__(self, left):
        super().__init__(4)
        self.left = left

    def submit(self, *arguments, **options):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("can't start new thread")
        return super().submit(*arguments, **options)


@pytest.mark.parametrize("left", range(8))
async def test_no_thread_is_an_error_and_no_hang(left):
    async def stream():
        for _ in range(100):
            yield bytes(BUFFER)

    with Threadless(left) as executor, pytest.raises(RuntimeError, match="new thread"):
        async with asyncio.timeout(60 * PATIENCE):
            await feed(stream(), upload=Taken(), executor=executor, count=int)


async def test_an_error_keeps_nothing():
    """Without the garbage collector, which comes late, since there is little to count."""
    upload = Taken()
    upload.fails_at = 1
    ended = []

    async def stream():
        try:
            while True:
                yield memoryview(bytearray(BUFFER))
        finally:
            ended.append(True)

    gc.collect()
    gc.disable()
    try:
        with ThreadPoolExecutor(4) as executor, pytest.raises(OSError, match="full"):
            await feed(stream(), upload=upload, executor=executor, count=int)
        for _ in range(5):
            # The loop closes generators that nobody has any more.
            await asyncio.sleep(0)
        assert ended
    finally:
        gc.enable()

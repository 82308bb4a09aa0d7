"""The queue, in a loop whose time jumps from one timer to the next."""

import asyncio
import logging
from contextlib import asynccontextmanager
from itertools import pairwise

import looptime
import pytest

from opengpu_operator.api.errors import Transient
from opengpu_operator.kube.errors import TooManyRequests
from opengpu_operator.reconcile.queue import FIRST_DELAY, LONGEST_DELAY, KeyedQueue


@pytest.fixture
def in_loop():
    """Run a coroutine function in such a loop."""

    def run(main):
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(main())

    return run


def now():
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def started(queue):
    stop = asyncio.Event()
    running = asyncio.create_task(queue.run(stop))
    await asyncio.sleep(0)
    yield
    stop.set()
    await running


def make(process, **options):
    options = {"workers": 4, "group": lambda key: key[0], "rand": lambda: 1.0, **options}
    return KeyedQueue(process, **options)


def test_a_key_that_was_added_many_times_runs_once(in_loop):
    runs = []

    async def process(key):
        runs.append(key)

    async def main():
        queue = make(process)
        for _ in range(3):
            queue.add("a")
        async with started(queue):
            for _ in range(3):
                queue.add("b")
            await asyncio.sleep(1)

    in_loop(main)
    assert runs == ["a", "b"]


def test_a_key_that_is_added_while_it_runs_runs_once_more_afterwards(in_loop):
    runs: list[tuple[float, float]] = []

    async def process(_key):
        start = now()
        await asyncio.sleep(1)
        runs.append((start, now()))

    async def main():
        queue = make(process)
        async with started(queue):
            queue.add("a")
            await asyncio.sleep(0.5)
            queue.add("a")
            queue.add("a")
            await asyncio.sleep(10)

    in_loop(main)
    assert runs == [(0, 1), (1, 2)]


def test_failures_are_retried_later_and_later_until_a_success(in_loop):
    starts = []

    async def process(_key):
        starts.append(now())
        if len(starts) != 13 and len(starts) < 15:
            raise Transient("Broken", "try again")

    async def main():
        queue = make(process)
        async with started(queue):
            queue.add("a")
            await asyncio.sleep(2000)
            queue.add("a")
            await asyncio.sleep(2000)
            assert queue.retrying == 0

    in_loop(main)
    gaps = [after - before for before, after in pairwise(starts)]
    assert gaps[:12] == pytest.approx([min(FIRST_DELAY * 2**n, LONGEST_DELAY) for n in range(12)], abs=1e-3)
    # A success starts the count anew.
    assert gaps[13] == pytest.approx(FIRST_DELAY, abs=1e-3)


@pytest.mark.parametrize(
    "error",
    [Transient("Busy", "later", retry_after=40), TooManyRequests("slow down", retry_after=40)],
    ids=lambda error: type(error).__name__,
)
def test_an_error_says_when_to_try_again(in_loop, error):
    starts = []

    async def process(_key):
        starts.append(now())
        if len(starts) == 1:
            raise error

    async def main():
        queue = make(process)
        async with started(queue):
            queue.add("a")
            await asyncio.sleep(100)

    in_loop(main)
    assert starts == [0, 50]  # a quarter more, by chance (which is 1 here)


def test_the_result_says_when_to_run_again(in_loop):
    starts = []

    async def process(_key):
        starts.append(now())
        return 10 if len(starts) < 3 else None

    async def main():
        queue = make(process)
        async with started(queue):
            queue.add("a")
            await asyncio.sleep(100)
            assert queue.delayed == 0

    in_loop(main)
    assert starts == [0, 10, 20]


def test_of_two_delays_the_earlier_counts(in_loop):
    starts = []

    async def process(_key):
        starts.append(now())

    async def main():
        queue = make(process)
        queue.add_after("a", 20)
        queue.add_after("a", 5)
        queue.add_after("a", 30)
        async with started(queue):
            await asyncio.sleep(100)

    in_loop(main)
    assert starts == [5]


def test_a_run_does_for_an_earlier_request_for_a_later_one(in_loop):
    starts = []

    async def process(_key):
        starts.append(now())

    async def main():
        queue = make(process)
        async with started(queue):
            queue.add_after("a", 20)
            queue.add("a")
            await asyncio.sleep(100)

    in_loop(main)
    assert starts == [0]


def test_one_tenants_thousand_keys_delay_anothers_one_by_one_run(in_loop):
    waits = {}

    async def process(key):
        await asyncio.sleep(1)
        waits[key] = now()

    async def main():
        queue = make(process, workers=8)
        for number in range(1000):
            queue.add(("a", number))
        async with started(queue):
            await asyncio.sleep(10.5)
            queue.add(("b", 0))
            await asyncio.sleep(200)

    in_loop(main)
    assert waits["b", 0] == 11.5  # at once: two of the eight workers are never the same tenant's
    assert len(waits) == 1001


def test_namespaces_take_turns(in_loop):
    order = []

    async def process(key):
        order.append(key)

    async def main():
        queue = make(process, workers=1)
        for key in ("a1", "a2", "a3", "b1", "b2", "c1"):
            queue.add(key)
        async with started(queue):
            await asyncio.sleep(1)

    in_loop(main)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_run_that_hangs_is_ended_and_retried(in_loop, caplog):
    starts = []

    async def process(_key):
        starts.append(now())
        if len(starts) == 1:
            await asyncio.Event().wait()

    async def main():
        queue = make(process, timeout=30, workers=1)
        async with started(queue):
            queue.add("a")
            await asyncio.sleep(1)
            queue.add("b")
            await asyncio.sleep(20)
            assert queue.stuck_for == pytest.approx(21)
            assert queue.oldest_age == pytest.approx(20)
            await asyncio.sleep(100)
            assert queue.stuck_for == 0

    in_loop(main)
    assert starts == pytest.approx([0, 30, 30 + FIRST_DELAY], abs=1e-3)
    assert "took too long" in caplog.text


def test_runs_finish_at_the_stop_and_nothing_new_starts(in_loop):
    done = []

    async def process(key):
        await asyncio.sleep(key[1])
        done.append(key)

    async def main():
        queue = make(process, workers=2, grace=5)
        queue.add(("a", 3))
        queue.add(("b", 60))
        queue.add(("c", 1))
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1, stop.set)
        await queue.run(stop)
        assert now() == 6

    in_loop(main)
    assert done == [("a", 3)]


def test_every_run_is_reported(in_loop):
    seen = []

    async def process(key):
        await asyncio.sleep(2)
        if key == "bad":
            raise Transient("Broken", "try again", retry_after=1000)

    async def main():
        queue = make(process, workers=1, observe=lambda *seen_: seen.append(seen_))
        queue.add("good")
        queue.add("bad")
        async with started(queue):
            await asyncio.sleep(10)

    in_loop(main)
    assert seen == [("good", "success", 0, 2), ("bad", "Transient", 2, 2)]


def test_what_nobody_foresaw_is_logged_with_its_traceback(in_loop, caplog):
    async def process(_key):
        raise KeyError("spec")

    async def main():
        queue = make(process)
        async with started(queue):
            queue.add(("tasks", "ns", "name"))
            await asyncio.sleep(0.1)

    in_loop(main)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert "tasks/ns/name" in record.getMessage()


def test_outdated_timers_do_not_pile_up(in_loop):
    async def process(_key):
        return 600

    async def main():
        queue = make(process)
        async with started(queue):
            for _ in range(5000):
                queue.add("a")
                await asyncio.sleep(0.01)
            assert len(queue._timers) <= 1002
            assert queue.delayed == 1

    in_loop(main)

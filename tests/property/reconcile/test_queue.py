"""Whatever is asked of the queue, whenever, and however runs end: what it promises holds."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import looptime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opengpu_operator.api.errors import Transient
from opengpu_operator.reconcile.queue import FIRST_DELAY, LONGEST_DELAY, KeyedQueue

KEYS = st.tuples(st.sampled_from("abc"), st.integers(0, 3))
#: (seconds since the last one, key, delay; None to run it at once)
REQUESTS = st.lists(st.tuples(st.floats(0, 20), KEYS, st.none() | st.floats(0, 30)), min_size=1, max_size=40)
#: How a run goes: how long it takes, and its result: done, again after seconds, or failed (with retry_after).
RUNS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.1, 3.0)),
        st.just("done")
        | st.tuples(st.just("again"), st.floats(0, 50))
        | st.sampled_from(("fail", "fail-10")),
    ),
    max_size=60,
)
#: The loop's clock, to which times are rounded.
TICK = 1e-3


@dataclass
class History:
    asked: list[tuple[tuple[str, int], float, float]] = field(default_factory=list)
    """(key, when, at the latest)"""
    runs: list[tuple[tuple[str, int], float, float, str]] = field(default_factory=list)
    """(key, start, end, result)"""
    overlaps: int = 0
    most_in_a_group: int = 0
    most: int = 0


async def play(requests, outcomes, workers):
    history, outcomes = History(), iter(outcomes)
    running: Counter[tuple[str, int]] = Counter()
    loop = asyncio.get_running_loop()

    async def process(key):
        start = loop.time()
        duration, result = next(outcomes, (0.0, "done"))
        history.overlaps += running[key]
        running[key] += 1
        history.most = max(history.most, running.total())
        groups = Counter(group for group, _ in running.elements())
        history.most_in_a_group = max(history.most_in_a_group, *groups.values())
        try:
            await asyncio.sleep(duration)
        finally:
            running[key] -= 1
            name, again = (result, None) if isinstance(result, str) else result
            history.runs.append((key, start, loop.time(), name))
        if again is not None:
            history.asked.append((key, loop.time(), loop.time() + again))
            return again
        if name.startswith("fail"):
            raise Transient("Broken", "try again", retry_after=10 if name == "fail-10" else None)
        return None

    queue = KeyedQueue(process, group=lambda key: key[0], workers=workers)
    stop = asyncio.Event()
    task = asyncio.create_task(queue.run(stop))
    for pause, key, delay in requests:
        await asyncio.sleep(pause)
        if delay is None:
            queue.add(key)
        else:
            queue.add_after(key, delay)
        history.asked.append((key, loop.time(), loop.time() + (delay or 0)))
    while queue.depth or queue.delayed or queue.running:  # noqa: ASYNC110 - the queue tells nobody that it is empty
        await asyncio.sleep(10)  # of the loop's own time, which costs none
    assert queue.retrying == 0
    stop.set()
    await task
    return history


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(requests=REQUESTS, outcomes=RUNS, workers=st.integers(1, 8))
def test_the_promises_of_the_queue(requests, outcomes, workers):
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        history = runner.run(play(requests, outcomes, workers))

    assert history.overlaps == 0, "one key ran twice at once"
    assert history.most <= workers
    assert history.most_in_a_group <= -(-workers * 3 // 4), "a tenant held nearly all workers"

    for key, when, latest in history.asked:
        starts = [start for other, start, _, _ in history.runs if other == key and start >= when - TICK]
        assert starts, f"{key}, asked for at {when}, was lost"
        if workers == 8:
            # At most nine keys compete for six places, with runs of three seconds at most.
            assert min(starts) <= latest + 10, f"{key}, wanted by {latest}, ran at {min(starts)}"

    for key in {key for key, *_ in history.runs}:
        failures = 0
        runs = sorted(run[1:] for run in history.runs if run[0] == key)
        for (_, end, result), (start, _, _) in pairwise(runs):
            failures = failures + 1 if result.startswith("fail") else 0
            asked_between = any(
                other == key and end - 5 <= latest <= start + TICK for other, _, latest in history.asked
            )
            if not failures or asked_between:
                continue
            expected = min(FIRST_DELAY * 2 ** (failures - 1), LONGEST_DELAY)
            least, most = (10, 12.5) if result == "fail-10" else (0.75 * expected, expected)
            # Waiting for a worker comes on top.
            assert least - TICK <= start - end <= most + 10


@given(keys=st.lists(KEYS, min_size=1, max_size=200))
def test_each_key_waits_for_at_most_one_run_of_each_other_tenant_between_its_own_tenants_runs(keys):
    order = []

    async def process(key):
        order.append(key)

    async def main():
        queue = KeyedQueue(process, group=lambda key: key[0], workers=1)
        for key in keys:
            queue.add(key)
        stop = asyncio.Event()
        task = asyncio.create_task(queue.run(stop))
        while queue.depth or queue.running:  # noqa: ASYNC110 - the same
            await asyncio.sleep(1)
        stop.set()
        await task

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(main())
    assert sorted(order) == sorted(set(keys))
    left = Counter(group for group, _ in order)
    for before, after in pairwise(order):
        left[before[0]] -= 1
        if before[0] == after[0]:
            assert not any(left[group] for group in left if group != before[0]), "a tenant was passed over"

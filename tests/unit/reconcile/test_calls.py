"""What is known of calls, whose store may be away, restart or lose everything."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any, cast

import looptime
import pytest

from gpux.client import StoreClient, StoreRefused, StoreUnavailable
from opengpu_operator.reconcile.calls import Calls
from tests.unit.reconcile.builders import NOW
from tests.unit.reconcile.fakes import Clock, Store

UID = "task-1"
AWAY = StoreUnavailable("the store can't be reached")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def calls(store) -> Calls:
    return Calls(store=cast("StoreClient", store), changed=lambda *_: None, clock=Clock())


async def put(calls: Calls, attempt: int = 1) -> None:
    fixed: dict[str, Any] = {"namespace": "team", "function": "read", "data": {}, "deadline": 1.0}
    await calls.put(task=UID, attempt=attempt, address=f"0x{attempt}", **fixed)


async def test_a_record_is_asked_for_once_per_state(store, calls):
    await put(calls)
    assert (await calls.record(UID, 1))["state"] == "queued"
    store.now(UID, "answered", answered=1)
    assert (await calls.record(UID, 1))["state"] == "queued", "nobody announced anything"
    assert (await calls.record(UID, 1, fresh=True))["state"] == "answered"
    assert store.asked == {"put": 1, "get": 2}


async def test_a_store_that_is_away_says_nothing_fresh(store, calls):
    await put(calls)
    await calls.record(UID, 1)
    calls.since = NOW
    store.leave()
    assert (await calls.record(UID, 1))["state"] == "queued"
    assert calls.since == NOW
    with pytest.raises(StoreUnavailable):
        await calls.record(UID, 1, fresh=True)
    assert calls.since is None


async def test_a_call_that_was_put_though_the_answer_was_lost_is_put_again(store, calls):
    store.now(UID, "claimed", claimed=1)
    await put(calls)
    assert calls.state(UID) == (1, "queued"), "until the feed says more"
    assert (await calls.record(UID, 1))["state"] == "claimed"


async def test_what_was_offered_first_stands(store, calls):
    store.error = StoreRefused(409, "another call is recorded for this attempt")
    await put(calls)
    assert calls.state(UID) == (1, "queued")
    store.error = StoreRefused(400, "the function is malformed")
    with pytest.raises(StoreRefused):
        await put(calls, 2)
    assert calls.state(UID) == (1, "queued")


async def test_a_call_that_the_store_lost_is_unknown(calls):
    await put(calls)
    calls.lost(UID)
    assert calls.state(UID) is None


async def test_what_is_forgotten_is_remembered_until_the_store_has_forgotten_it(store, calls):
    await put(calls)
    store.leave()
    with pytest.raises(StoreUnavailable):
        await calls.forget(UID)
    assert calls.state(UID) == (1, "queued")
    store.error = None
    await calls.forget(UID)
    assert calls.state(UID) is None
    assert store.records == {}


# --- the feed ---------------------------------------------------------------------------------------------------------


class Feed(Store):
    """Gives what a test puts into it: changes, or errors."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.after: list[tuple[int, str]] = []

    async def changes(self, *, after: int, epoch: str, wait: int) -> dict[str, Any]:
        assert wait > 0
        self.after.append((after, epoch))
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def say(self, last: int, *changes: tuple[int, str], epoch: str = "first") -> None:
        fixed = {"namespace": "team", "task": UID}
        listed = [{**fixed, "attempt": attempt, "state": state} for attempt, state in changes]
        self.answers.put_nowait({"last": last, "epoch": epoch, "changes": listed})


def following(test):
    """Run a test with a feed that is followed, in an event loop whose time jumps from one timer to the next."""

    async def run() -> None:
        feed, clock, told = Feed(), Clock(), []
        calls = Calls(store=cast("StoreClient", feed), changed=lambda *what: told.append(what), clock=clock)
        task = asyncio.create_task(calls.follow())
        await test(feed=feed, calls=calls, clock=clock, told=told)
        assert not task.done(), "whatever the store says, it is followed"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def wrapped() -> None:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(run())

    wrapped.__name__ = test.__name__
    return wrapped


@following
async def test_news_are_passed_on_and_echoes_arent(feed, calls, told, **_):
    await put(calls)
    feed.say(1, (1, "queued"))
    feed.say(2, (1, "claimed"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == [("team", UID)]
    assert calls.state(UID) == (1, "claimed")
    await put(calls, 2)
    feed.say(3, (1, "answered"))
    await asyncio.sleep(0)
    assert calls.state(UID) == (2, "queued"), "a late word of an attempt that was given up"
    assert feed.after == [(0, ""), (1, "first"), (2, "first"), (3, "first")]


@following
async def test_whatever_the_store_refuses_it_is_asked_again_and_since_when_it_is_there_is_known(
    feed, calls, clock, **_
):
    assert calls.since is None
    feed.say(1)
    await asyncio.sleep(0)
    assert calls.since == NOW
    for error in (AWAY, StoreRefused(404, "no such path"), AWAY):
        feed.answers.put_nowait(error)
        await asyncio.sleep(10)
        assert calls.since is None
    clock.now += timedelta(seconds=30)
    feed.say(2)
    await asyncio.sleep(10)
    assert calls.since == NOW + timedelta(seconds=30)
    clock.now += timedelta(seconds=30)
    feed.say(2)
    await asyncio.sleep(0)
    assert calls.since == NOW + timedelta(seconds=30), "it was there all the time"


@following
async def test_a_store_that_restarted_between_two_looks_was_away(feed, calls, clock, **_):
    feed.say(1)
    await asyncio.sleep(0)
    clock.now += timedelta(seconds=30)
    feed.say(0, epoch="second")
    await asyncio.sleep(0)
    assert calls.since == clock.now


@following
async def test_a_record_that_couldnt_be_had_is_noticed_before_the_feed_does(feed, calls, clock, **_):
    feed.say(1)
    await asyncio.sleep(0)
    feed.leave()
    with pytest.raises(StoreUnavailable):
        await calls.record(UID, 1)
    assert calls.since is None
    # The request of the feed hung all the while, and is answered.
    clock.now += timedelta(seconds=25)
    feed.say(1)
    await asyncio.sleep(0)
    assert calls.since == clock.now

"""Two books over one bucket, as in two stores."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gpux.blobs import Blob
from gpux.calls import CallConflictError, CallNotFoundError, CallRequest
from gpux.s3.calls import S3CallBook

ANSWER = Blob("1" * 40, "2" * 64, 2)


def request(attempt=1, *, task="t", namespace="a", data=None, deadline=None):
    return CallRequest(namespace, task, attempt, "run", f"0x{attempt}", deadline, data or {"a": 1})


async def report(book, state, *, attempt=1, status=None):
    return await book.report(
        "t", attempt, namespace="a", state=state, status=status, detail=None, sent_at=None
    )


@pytest.fixture
def books(bucket, executor):
    return S3CallBook(bucket, executor=executor), S3CallBook(bucket, executor=executor)


@pytest.fixture
async def following(books):
    tasks = [asyncio.ensure_future(book.follow()) for book in books]
    yield books
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_put_is_idempotent_wherever_it_is_put(books):
    one, other = books
    assert await one.put(request())
    for book in books:
        assert not await book.put(request())
        for different in (request(data={"a": 2}), request(deadline=5.0)):
            with pytest.raises(CallConflictError):
                await book.put(different)
    with pytest.raises(CallConflictError, match="another namespace"):
        await other.put(request(2, namespace="b"))
    assert await other.data(await other.fetch("t", 1)) == {"a": 1}


async def test_of_different_calls_at_once_one_is_recorded_with_its_own_input(books):
    requests = [request(data={"n": number}) for number in range(6)]
    results = await asyncio.gather(
        *(books[n % 2].put(asked) for n, asked in enumerate(requests)), return_exceptions=True
    )
    assert results.count(True) == 1
    assert {type(result) for result in results if result is not True} == {CallConflictError}
    call = await books[0].fetch("t", 1)
    assert await books[1].data(call) == requests[results.index(True)].data


async def test_one_pod_gets_the_claim(books):
    for attempt in range(1, 11):
        await books[0].put(request(attempt))
        results = await asyncio.gather(
            *(books[n % 2].claim("t", attempt, namespace="a", pod=f"p{n}") for n in range(8)),
            return_exceptions=True,
        )
        won = [result for result in results if not isinstance(result, BaseException)]
        assert len(won) == 1
        assert {type(result) for result in results if isinstance(result, Exception)} == {CallConflictError}
        for book in books:
            assert (await book.claim("t", attempt, namespace="a", pod=won[0].claimed_by)) == won[0]


async def test_an_attempt_whose_place_was_taken_cannot_be_claimed(books):
    await books[0].put(request(1))
    await books[1].put(request(2))
    with pytest.raises(CallConflictError, match="newer"):
        await books[0].claim("t", 1, namespace="a", pod="p")


async def test_a_claim_that_looked_before_the_newer_attempt_fails(books, monkeypatch):
    one, other = books
    await one.put(request(1))
    attempts = one._attempts
    listed, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(task):
        found = attempts(task)
        loop.call_soon_threadsafe(listed.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)
        return found

    monkeypatch.setattr(one, "_attempts", slow)
    claim = asyncio.ensure_future(one.claim("t", 1, namespace="a", pod="p"))
    await listed.wait()
    assert await other.put(request(2))
    go_on.set()
    with pytest.raises(CallConflictError, match="newer"):
        await claim


async def test_states_only_move_forward(books):
    one, other = books
    await one.put(request())
    with pytest.raises(CallConflictError):
        await report(other, "sent")
    await one.claim("t", 1, namespace="a", pod="p")
    assert (await report(other, "accepted", status=202)).state == "accepted"
    for late in ("sent", "unknown", "refused", "busy"):
        assert (await report(one, late, status=500)).state == "accepted"
    assert await other.answer("t", 1, namespace="a", answer=ANSWER)
    assert not await one.answer("t", 1, namespace="a", answer=ANSWER)
    with pytest.raises(CallConflictError):
        await one.answer("t", 1, namespace="a", answer=ANSWER._replace(size=3))
    assert (await report(one, "unknown")).state == "answered"


async def test_a_tenant_sees_its_own_calls_only(books):
    await books[0].put(request())
    with pytest.raises(CallNotFoundError):
        await books[1].fetch("t", 1, namespace="b")
    with pytest.raises(CallNotFoundError):
        await books[1].claim("t", 1, namespace="b", pod="p")
    assert await books[1].wait_for_task("t", namespace="b", after=0, seconds=0) is None


async def test_who_waits_learns_of_what_comes_here_and_there(following):
    one, other = following
    waiting = [
        asyncio.ensure_future(b.wait_for_task("t", namespace="a", after=0, seconds=60)) for b in following
    ]
    changes = asyncio.ensure_future(other.wait_for_changes(0, epoch="", seconds=60))
    await one.put(request())
    assert [(await found).attempt for found in waiting] == [1, 1]
    last, seen = await changes
    assert [change.call.state for change in seen] == ["queued"]
    changes = asyncio.ensure_future(other.wait_for_changes(last, epoch=other.epoch, seconds=60))
    await one.claim("t", 1, namespace="a", pod="p")
    last, seen = await changes
    assert [(change.seq, change.call.state) for change in seen] == [(last, "claimed")]
    assert one.epoch != other.epoch
    assert await other.wait_for_changes(last, epoch=one.epoch, seconds=0) == (last, seen)


async def test_deletion_is_seen_everywhere(following):
    one, other = following
    for attempt in (1, 2):
        await one.put(request(attempt))
    await other.put(request(task="u"))
    assert len(await other.fetch_all()) == 3
    await one.delete("t")
    await one.delete("t")
    assert [call.task for call in await other.fetch_all()] == ["u"]
    with pytest.raises(CallNotFoundError):
        await other.claim("t", 1, namespace="a", pod="p")
    assert [found.key.split("/")[1] for found in one._bucket.listing("inputs/")] == ["u"]
    # A task of that name may come again.
    await other.put(request())
    assert len(await one.fetch_all()) == 2


@pytest.mark.parametrize("known", [False, True])
async def test_a_listing_takes_away_nothing_that_was_written_meanwhile(books, monkeypatch, known):
    one, other = books
    if known:
        await one.put(request())
        await other.delete("t")
    listing = one._list
    loop = asyncio.get_running_loop()

    def slow():
        found = listing()
        asyncio.run_coroutine_threadsafe(one.put(request()), loop).result(30)
        return found

    monkeypatch.setattr(one, "_list", slow)
    await one._refresh()
    assert [call.attempt for call in one.all()] == [1]


async def test_everything_is_there_after_a_restart(books, bucket, executor):
    await books[0].put(request(data={"big": "x" * 100_000}))
    await books[0].claim("t", 1, namespace="a", pod="p")
    bucket.put("calls/u/1", b"damaged")
    bucket.put("inputs/t/9-0000", b"left by a crash, but not long ago")
    again = S3CallBook(bucket, executor=executor)
    assert again.all() == books[0].all()
    assert again.counts()["claimed"] == 1
    assert await again.data(again.get("t", 1)) == {"big": "x" * 100_000}
    assert bucket.get("inputs/t/9-0000")


async def test_a_damaged_record_is_said_once_and_mended_by_what_is_right(books, bucket, capfd):
    one, other = books
    await one.put(request())
    right = bucket.get("calls/t/1").body
    bucket.put("calls/t/1", b"damaged")
    bucket.put("calls/u/1", b"damaged")
    capfd.readouterr()
    for _ in range(3):
        await other.fetch_all()
    assert capfd.readouterr().err.count("damaged") == 2
    assert other.all() == []
    bucket.put("calls/t/1", right)
    assert [call.task for call in await other.fetch_all()] == ["t"]

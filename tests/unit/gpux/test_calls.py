from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from gpux.blobs import Blob
from gpux.calls import CallBook, CallConflictError, CallNotFoundError, CallRequest

ANSWER = Blob("1" * 40, "2" * 64, 2)


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def book(tmp_path, executor):
    return CallBook(str(tmp_path), executor=executor)


def request(attempt=1, *, task="t", namespace="a", data=None, deadline=None):
    return CallRequest(namespace, task, attempt, "run", f"0x{attempt}", deadline, data or {"a": 1})


async def report(book, state, *, attempt=1, status=None, detail=None, sent_at=None):
    return await book.report(
        "t", attempt, namespace="a", state=state, status=status, detail=detail, sent_at=sent_at
    )


async def test_put_is_idempotent(book):
    assert await book.put(request())
    assert not await book.put(request())
    for other in (request(data={"a": 2}), request(deadline=5.0)):
        with pytest.raises(CallConflictError):
            await book.put(other)


async def test_a_task_stays_in_its_namespace(book):
    await book.put(request())
    with pytest.raises(CallConflictError):
        await book.put(request(2, namespace="b"))
    with pytest.raises(CallNotFoundError):
        book.get("t", 1, namespace="b")
    with pytest.raises(CallNotFoundError):
        await book.claim("t", 1, namespace="b", pod="p")


async def test_one_pod_gets_the_claim(book):
    await book.put(request())
    pods = [f"p{number}" for number in range(20)]
    results = await asyncio.gather(
        *(book.claim("t", 1, namespace="a", pod=pod) for pod in pods), return_exceptions=True
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    assert len(won) == 1
    assert {type(result) for result in results if isinstance(result, Exception)} == {CallConflictError}
    assert await book.claim("t", 1, namespace="a", pod=won[0].claimed_by) == won[0]


async def test_an_attempt_whose_place_was_taken_cannot_be_claimed(book):
    await book.put(request(1))
    await book.put(request(2))
    with pytest.raises(CallConflictError, match="newer"):
        await book.claim("t", 1, namespace="a", pod="p")


async def test_states_only_move_forward(book):
    await book.put(request())
    with pytest.raises(CallConflictError):
        await report(book, "sent")
    await book.claim("t", 1, namespace="a", pod="p")
    assert (await report(book, "accepted", status=202)).state == "accepted"
    for late in ("sent", "unknown", "refused", "busy"):
        assert (await report(book, late, status=500)).state == "accepted"
    await book.answer("t", 1, namespace="a", answer=ANSWER)
    assert (await report(book, "accepted")).state == "answered"
    call = book.get("t", 1)
    assert call.status == 202
    assert set(call.times) == {"queued", "claimed", "sent", "accepted", "answered"}


async def test_the_agent_says_when_it_sent(book):
    await book.put(request())
    await book.claim("t", 1, namespace="a", pod="p")
    await report(book, "unknown", sent_at="2026-01-02T03:04:05.000+00:00", detail="x" * 9000)
    call = book.get("t", 1)
    assert call.times["sent"] == "2026-01-02T03:04:05.000+00:00"
    assert len(call.detail) == 4096


async def test_one_answer(book):
    await book.put(request())
    assert await book.answer("t", 1, namespace="a", answer=ANSWER)
    assert not await book.answer("t", 1, namespace="a", answer=ANSWER)
    with pytest.raises(CallConflictError):
        await book.answer("t", 1, namespace="a", answer=ANSWER._replace(sha256="3" * 64))


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        (None, "2026-01-01T12:00:00.000+00:00"),
        ("2026-01-01T11:59:00.000+00:00", "2026-01-01T11:59:00.000+00:00"),
        ("2026-01-01T12:01:00.000+00:00", "2026-01-01T12:00:00.000+00:00"),
    ],
    ids=["not said", "while the store was away", "by a clock that is ahead"],
)
async def test_the_agent_says_when_the_worker_answered(tmp_path, executor, said, recorded):
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    book = CallBook(str(tmp_path), executor=executor, clock=lambda: noon)
    await book.put(request())
    await book.answer("t", 1, namespace="a", answer=ANSWER, answered_at=said)
    assert book.get("t", 1).times["answered"] == recorded


async def test_everything_survives_a_restart(tmp_path, executor, book):
    await book.put(request(1, data={"big": "x" * 100_000}))
    await book.claim("t", 1, namespace="a", pod="p")
    await report(book, "refused", status=422, detail="é")
    await book.put(request(2))
    await book.answer("t", 2, namespace="a", answer=ANSWER)
    again = CallBook(str(tmp_path), executor=executor)
    assert sorted(again.all()) == sorted(book.all())
    assert await again.data(again.get("t", 1)) == {"big": "x" * 100_000}
    assert again.epoch != book.epoch


async def test_a_damaged_record_does_not_stop_the_others(tmp_path, executor, book, capfd):
    await book.put(request(1))
    await book.put(request(1, task="u"))
    (tmp_path / "calls/t/1.json").write_text("{")
    again = CallBook(str(tmp_path), executor=executor)
    assert [call.task for call in again.all()] == ["u"]
    assert "damaged" in capfd.readouterr().err
    assert (tmp_path / "calls/t/1.data").exists()


async def test_deletion(tmp_path, executor, book):
    await book.put(request(1))
    await book.put(request(2))
    await book.delete("t")
    await book.delete("t")
    assert book.all() == []
    assert book._changes(0) == []
    assert not list((tmp_path / "calls").iterdir())
    assert CallBook(str(tmp_path), executor=executor).all() == []
    assert await book.put(request(1))


async def test_an_agent_waits_for_its_next_call(book):
    async def wait(after=0, seconds=5.0):
        return await book.wait_for_task("t", namespace="a", after=after, seconds=seconds)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await book.put(request(1, task="other"))
    assert not waiting.done()
    await book.put(request(1))
    assert (await waiting).attempt == 1
    assert (await wait()).attempt == 1
    assert await wait(after=1, seconds=0.0) is None
    assert await book.wait_for_task("t", namespace="b", after=0, seconds=0.0) is None
    await book.answer("t", 1, namespace="a", answer=ANSWER)
    assert await wait(seconds=0.0) is None
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await book.put(request(2))
    assert (await waiting).attempt == 2
    assert not book._watchers


async def test_changes(book):
    last, changes = await book.wait_for_changes(0, epoch=None, seconds=0.0)
    assert (last, changes) == (0, [])
    await book.put(request(1))
    await book.put(request(1, task="u"))
    await book.claim("t", 1, namespace="a", pod="p")
    last, changes = await book.wait_for_changes(0, epoch=book.epoch, seconds=0.0)
    assert [(change.seq, change.call.task, change.call.state) for change in changes] == [
        (2, "u", "queued"),
        (3, "t", "claimed"),
    ]
    assert await book.wait_for_changes(last, epoch=book.epoch, seconds=0.01) == (3, [])
    waiting = asyncio.create_task(book.wait_for_changes(last, epoch=book.epoch, seconds=5.0))
    await asyncio.sleep(0)
    await report(book, "sent")
    assert [change.call.state for change in (await waiting)[1]] == ["sent"]


@pytest.mark.parametrize(("after", "epoch"), [(0, ""), (1, "another"), (99, None)])
async def test_numbers_that_mean_nothing_here_bring_everything(book, after, epoch):
    await book.put(request(1))
    _, changes = await book.wait_for_changes(after, epoch=epoch, seconds=0.0)
    assert len(changes) == 1


async def test_closing_lets_everybody_go(book):
    waiting = [
        asyncio.create_task(book.wait_for_task("t", namespace="a", after=0, seconds=60.0)),
        asyncio.create_task(book.wait_for_changes(0, epoch=None, seconds=60.0)),
    ]
    await asyncio.sleep(0)
    book.close()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [None, (0, [])]

"""Questions about a job's storage, and the agents that come for them or don't."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gpux.store import pulls
from gpux.store.http import HttpError
from gpux.store.pulls import Pulls, Task
from gpux.store.storage import Place, is_job

TASK = Task("team", "11111111-2222-3333-4444-555555555555")


class Request:
    """What is looked at of an agent's poll: whether somebody still reads."""

    def __init__(self, *, alive: bool = True) -> None:
        self.transport: Any = self
        self._alive = alive

    def is_closing(self) -> bool:
        return not self._alive


async def asked(made: Pulls, task: Task = TASK) -> int:
    """Ask; the status."""
    try:
        async with made.ask(task, root="job", path="", kind="list"):
            return 200
    except HttpError as error:
        return error.status


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "_DELIVERY_SECONDS", 0.05)


async def test_without_an_agent_the_one_who_asks_is_told() -> None:
    made = Pulls()
    assert await asked(made) == 503
    # Nothing of it is left for an agent that comes later.
    assert await made.next(TASK, Request(), seconds=0.01) is None  # type: ignore[arg-type]


async def test_what_was_asked_before_the_agent_came_is_there_for_it() -> None:
    made = Pulls()
    waiting = asyncio.create_task(asked(made))
    await asyncio.sleep(0)
    question = await made.next(TASK, Request(), seconds=1)  # type: ignore[arg-type]
    assert question is not None
    assert await made.next(TASK, Request(), seconds=0) is None  # type: ignore[arg-type]
    assert await waiting == 503, "an agent that takes a question and dies is no answer"


async def test_a_poll_that_nobody_reads_gets_no_question() -> None:
    made = Pulls()
    dead = asyncio.create_task(made.next(TASK, Request(alive=False), seconds=0.1))  # type: ignore[arg-type]
    alive = asyncio.create_task(made.next(TASK, Request(), seconds=0.1))  # type: ignore[arg-type]
    newest = asyncio.create_task(made.next(TASK, Request(alive=False), seconds=0.1))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asked(made)
    assert (await alive) is not None
    assert (await dead) is (await newest) is None


async def test_another_tasks_agent_hears_nothing_of_it() -> None:
    made = Pulls()
    other = asyncio.create_task(made.next(Task("team", "other"), Request(), seconds=0.1))  # type: ignore[arg-type]
    namesake = asyncio.create_task(made.next(Task("else", TASK.uid), Request(), seconds=0.1))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asked(made)
    assert (await other) is (await namesake) is None


async def test_no_more_wait_for_one_job_than_is_useful() -> None:
    made = Pulls()
    answers = await asyncio.gather(*(asked(made) for _ in range(20)), asked(made, Task("team", "other")))
    assert set(answers) == {503}
    assert not made._asked
    assert not made._queued
    assert not made._polls


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (TASK.uid, True),
        ("000000000gtdo6i0", False),
        ("", False),
        ("x" * 16, False),
        ("061i6uku7ie62tg1", False),
    ],
)
def test_names_of_a_job(text: str, same: bool) -> None:
    assert is_job(text, TASK.uid) is same


def test_a_job_id_is_the_operators() -> None:
    from datetime import UTC, datetime

    from opengpu_operator.api.jobid import job_id

    made = job_id(datetime(2026, 1, 2, tzinfo=UTC), TASK.uid)
    assert is_job(made, TASK.uid)
    assert not is_job(made, "another")


@pytest.mark.parametrize(
    ("root", "path"),
    [
        *(("etc", ""), ("", "")),
        *(("job", path) for path in ("a\0b", "\ud800", "a" * 5000, "../x", "a/../b", "a//./b", "..")),
    ],
)
def test_places_that_are_none(root: str, path: str) -> None:
    with pytest.raises(HttpError) as refused:
        Place.of(root, path)
    assert refused.value.status == 400


def test_a_place_in_a_link_is_the_same_however_it_is_written() -> None:
    assert Place.of("job", "/out/").in_link == Place.of_link("job/out").in_link == "job/out"
    assert Place.of_link("job").in_link == Place.of("job", "").in_link

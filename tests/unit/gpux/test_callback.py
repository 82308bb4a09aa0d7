"""How an answer gets to the store, which may be away for long."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import cast

import pytest

from gpux.agent.callback import Deliverer
from gpux.agent.link import Backoff, Link, Reply, StoreAwayError
from gpux.agent.spool import Spool

GIVEN = 1_700_000_000.25
WHERE = re.compile(r"/v1/calls/t/1/answer\?answeredAt=1700000000\.250")


class Delivered(Exception):
    """Ends what otherwise never ends."""


class Store(Link):
    """Answers with what is in ``answers``, one after the other."""

    def __init__(self, *answers: int | StoreAwayError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def send_file(self, method: str, path: str, file: str) -> Reply:
        assert (method, Path(file).exists()) == ("PUT", True)
        self.asked.append(path)
        answer = self.answers.pop(0)
        if isinstance(answer, StoreAwayError):
            raise answer
        return Reply(answer, {})


@pytest.fixture
def spool(tmp_path, monkeypatch):
    """A spool with an answer that was given long ago, and a deliverer that doesn't wait."""
    made = Spool(str(tmp_path))
    made.begin(1, "0x1")
    made.mark_sent(5.0)
    path = made.temporary()
    Path(path).write_text("{}")
    os.utime(path, (GIVEN, GIVEN))
    assert made.take_answer("0x1", path) == "wanted"
    monkeypatch.setattr(Backoff, "pause", lambda *_, **__: None)

    def delivered(attempt: int) -> None:
        assert attempt == 1
        raise Delivered

    monkeypatch.setattr(made, "mark_delivered", delivered)
    yield made
    os.close(made._lock_file)


@pytest.mark.parametrize(
    "answers",
    [(201,), (StoreAwayError("refused"), StoreAwayError("HTTP 401"), 200), (302, 409)],
    ids=["at once", "once the store is back", "once it is sure"],
)
def test_an_answer_is_brought_until_it_is_taken_and_says_when_it_was_given(spool, answers):
    store = Store(*answers)
    with pytest.raises(Delivered):
        Deliverer(spool, cast("Link", store), task="t").run()
    assert store.answers == []
    assert all(WHERE.fullmatch(path) for path in store.asked), store.asked

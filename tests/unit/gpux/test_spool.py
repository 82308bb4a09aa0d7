from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from gpux.agent.spool import Spool


@pytest.fixture
def open_spool(tmp_path):
    made: list[Spool] = []

    def make():
        for former in made:
            # What the end of a process does.
            fcntl.flock(former._lock_file, fcntl.LOCK_UN)
        made.append(Spool(str(tmp_path)))
        return made[-1]

    yield make
    for spool in made:
        os.close(spool._lock_file)


def answer(spool, address, content=b"{}"):
    path = spool.temporary()
    Path(path).write_bytes(content)
    try:
        return spool.take_answer(address, path)
    finally:
        Path(path).unlink()


def test_a_new_spool_expects_nothing(open_spool):
    spool = open_spool()
    assert spool.entry() is None
    assert spool.expects("0x1") == "unknown"
    assert answer(spool, "0x1") == "unknown"
    assert spool.settled()


def test_an_answer_is_wanted_only_once_the_call_may_have_left(open_spool):
    spool = open_spool()
    spool.begin(1, "0x1")
    assert spool.expects("0x1") == "unknown"
    spool.mark_sent(5.0)
    assert spool.expects("0x1") == "wanted"
    assert spool.expects("0x2") == "unknown"


@pytest.mark.parametrize(
    ("state", "expected"),
    [("accepted", "wanted"), ("unknown", "wanted"), ("refused", "unknown"), ("busy", "unknown")],
)
def test_what_became_of_the_call_decides(open_spool, state, expected):
    spool = open_spool()
    spool.begin(1, "0x1")
    spool.mark_sent(5.0)
    spool.mark_state(state)
    assert spool.expects("0x1") == expected


def test_the_first_answer_wins(open_spool, tmp_path):
    spool = open_spool()
    spool.begin(1, "0x1")
    spool.mark_sent(5.0)
    assert answer(spool, "0x1", b'"first"') == "wanted"
    assert answer(spool, "0x1", b'"second"') == "duplicate"
    attempt, path = spool.undelivered()
    assert attempt == 1
    assert Path(path).read_bytes() == b'"first"'
    assert not spool.settled()
    spool.mark_delivered(1)
    assert spool.undelivered() is None
    assert spool.expects("0x1") == "duplicate"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["call.json", "lock"]


def test_a_restart_finds_everything_again(open_spool, tmp_path):
    spool = open_spool()
    spool.begin(3, "0x3")
    assert open_spool().entry().step == "claiming"
    spool = open_spool()
    spool.mark_sent(5.0)
    answer(spool, "0x3")
    (tmp_path / "half.tmp").write_bytes(b"half")
    spool = open_spool()
    assert spool.entry().sent_at == 5.0
    assert spool.undelivered()[0] == 3
    assert spool.answer_came.is_set()
    assert not spool.answer_gone.is_set()
    assert not (tmp_path / "half.tmp").exists()
    spool.mark_state("unknown", detail="x")
    spool.mark_delivered(3)
    assert not spool.settled()
    spool.mark_reported(3)
    assert open_spool().settled()


def test_marks_for_another_attempt_change_nothing(open_spool):
    spool = open_spool()
    spool.begin(2, "0x2")
    spool.mark_reported(1)
    spool.mark_delivered(1)
    assert spool.entry().reported is False
    assert spool.entry().delivered is False


def test_two_agents_never_share_a_spool(open_spool, tmp_path):
    open_spool()
    with (tmp_path / "lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""Whatever dies when: the worker is called at most once per attempt, and an answer that was taken arrives once."""

from __future__ import annotations

import random
import shutil
import time

import pytest

from tests.faults.gpux.processes import wait_for, wait_for_end

pytestmark = pytest.mark.faults

BEFORE_SENDING = ["connected", "noted", "claimed"]
BEFORE_THE_ANSWER = ["responded", "state-noted"]
AFTER_THE_ANSWER = ["callback-spooled", "deliver-before", "deliver-after"]
VICTIMS = ("store", "serving-process", "container")


def start(lab, worker_python, *, fault, whole):
    lab.start_store()
    lab.start_worker(worker_python)
    lab.wait_for_worker()
    lab.start_agent(fault=fault, whole=whole)


def wait_for_crash(lab, *, whole):
    """Wait until all that the fault kills is gone: a runtime starts no container before that."""
    crashed = lab.root / "crashed"
    pid = wait_for(lambda: crashed.exists() and crashed.read_text(), "the crash")
    wait_for_end(int(pid))
    if whole:
        assert lab.agent.process.wait(60) == -9


def crash_and_return(lab, *, whole):
    wait_for_crash(lab, whole=whole)
    if whole:
        lab.start_agent()


@pytest.mark.parametrize("whole", [False, True], ids=["serving-process", "container"])
@pytest.mark.parametrize("step", BEFORE_SENDING + BEFORE_THE_ANSWER + AFTER_THE_ANSWER)
def test_killed_where_nothing_is_lost(lab, worker_python, step, whole):
    start(lab, worker_python, fault=step, whole=whole)
    if step in BEFORE_THE_ANSWER:
        lab.hold_worker()
    lab.call(1, "abc")
    crash_and_return(lab, whole=whole)
    if step in BEFORE_THE_ANSWER:
        # The agent is back, as its runtime calls only once.
        lab.release_worker()
    record = lab.wait_for_state(1, "answered")
    assert record["answer"]["inline"] == {"text": "cba"}
    assert lab.posts("abc") == 1


@pytest.mark.parametrize("whole", [False, True], ids=["serving-process", "container"])
def test_killed_between_the_note_and_the_first_byte(lab, worker_python, whole):
    start(lab, worker_python, fault="sent-noted", whole=whole)
    lab.call(1, "abc")
    crash_and_return(lab, whole=whole)
    record = lab.wait_for_state(1, "unknown")
    assert "restarted" in record["detail"]
    # The next attempt is another call, with its own note.
    lab.call(2, "def")
    assert lab.wait_for_state(2, "answered")["answer"]["inline"] == {"text": "fed"}
    assert lab.posts("abc") == 0
    assert lab.record(1)["state"] == "unknown"


@pytest.mark.parametrize("whole", [False, True], ids=["serving-process", "container"])
def test_killed_after_sending_and_before_the_response(lab, worker_python, whole):
    start(lab, worker_python, fault="sent", whole=whole)
    lab.hold_worker()
    lab.call(1, "abc")
    crash_and_return(lab, whole=whole)
    wait_for(lambda: lab.posts("abc"), "the worker being called")
    lab.release_worker()
    assert lab.wait_for_state(1, "answered")["answer"]["inline"] == {"text": "cba"}
    assert lab.posts("abc") == 1


def test_killed_with_an_answer_in_hand_that_was_not_acknowledged(lab, worker_python):
    """The one loss there is: the runtime calls back once, and its call was cut. Nothing false comes of it."""
    start(lab, worker_python, fault="callback-received", whole=False)
    lab.call(1, "abc")
    wait_for_crash(lab, whole=False)
    wait_for(lambda: "Error in `reverse`" in (lab.root / "worker.log").read_text(), "the runtime giving up")
    assert lab.record(1)["state"] in {"accepted", "unknown"}
    lab.call(2, "def")
    lab.wait_for_state(2, "answered")
    assert lab.posts("abc") == 1
    assert lab.record(1)["answer"] is None


@pytest.mark.parametrize("step", ["claimed", "sent", "responded"])
def test_killed_together_with_its_notes(lab, worker_python, step):
    start(lab, worker_python, fault=step, whole=True)
    lab.hold_worker()
    lab.call(1, "abc")
    wait_for_crash(lab, whole=True)
    shutil.rmtree(lab.spool)
    lab.spool.mkdir()
    lab.start_agent()
    record = lab.wait_for_state(1, "unknown", "accepted", "answered")
    assert record["state"] == "unknown"
    assert "spool was lost" in record["detail"]
    lab.release_worker()
    lab.call(2, "def")
    lab.wait_for_state(2, "answered")
    assert lab.posts("abc") == (0 if step == "claimed" else 1)


def kill(lab, victim, *, seconds):
    """Kill one of the processes, and have it back; a store after so long."""
    if victim == "store":
        lab.store.kill()
        time.sleep(seconds)
        lab.start_store()
    elif victim == "container":
        lab.kill_agent()
        lab.start_agent()
    else:
        lab.kill_serving_process()


def test_kills_at_random_moments(lab, worker_python):
    """Twenty-four calls, and in each of them one of the processes dies at a moment drawn from a fixed seed."""
    lab.start_store()
    lab.start_worker(worker_python)
    lab.wait_for_worker()
    lab.start_agent()
    draw = random.Random(20240923)
    for attempt in range(1, 25):
        victim = VICTIMS[attempt % 3]
        text = f"text-{attempt:02}"
        lab.call(attempt, text, seconds=0.3)
        time.sleep(draw.uniform(0.0, 0.6))
        kill(lab, victim, seconds=draw.uniform(0.0, 0.5))

        record = lab.wait_for_end_of_call(attempt, text, what=f"after a kill of the {victim}")
        if record["state"] == "answered":
            assert record["answer"]["inline"] == {"text": text[::-1]}
    answered = [attempt for attempt in range(1, 25) if lab.record(attempt)["state"] == "answered"]
    for attempt in range(1, 25):
        assert lab.posts(f"text-{attempt:02}") <= 1
        # What the worker heard 200 for has arrived.
        if lab.was_heard(attempt):
            assert attempt in answered
    # A store that dies costs nothing; how many of the other answers were cut depends on the moment.
    assert {attempt for attempt in range(1, 25) if VICTIMS[attempt % 3] == "store"} <= set(answered)

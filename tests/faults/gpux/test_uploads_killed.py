"""Store and agent die again and again while files are uploaded and calls are made: what was acknowledged is there."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.gpux.processes import token, wait_for
from tests.faults.gpux.test_kills import VICTIMS, kill

pytestmark = pytest.mark.faults

SEED = 20261125
KILLS, UPLOADS, CALLS = 12, 200, 50
LARGEST = 8 << 20


def contents():
    """What is uploaded, as (seed, size): from nothing to the largest; a fifth of it is what others upload too."""
    draw = random.Random(SEED)
    sizes = [0, 1, LARGEST, *(int(LARGEST ** draw.uniform(0.0, 1.0)) for _ in range(UPLOADS * 4 // 5 - 3))]
    files = list(enumerate(sizes))
    files += draw.choices(files, k=UPLOADS - len(files))
    draw.shuffle(files)
    return files


def content(file):
    seed, size = file
    return random.Random(seed).randbytes(size)


def upload(lab, file):
    """Upload until it is acknowledged, as a job does; what the acknowledgement says, and how often it was tried."""
    data = content(file)
    tries = 0

    def acknowledged():
        nonlocal tries
        tries += 1
        try:
            status, _, answer = lab.ask_agent("POST", "/api/file/upload/", body=data)
        except (OSError, http.client.HTTPException):
            return None
        # 503 is a store that is away; whatever else there is would be for the job to mend.
        assert status in {200, 503}, answer
        return json.loads(answer) if status == 200 else None

    return wait_for(acknowledged, f"the upload of {len(data)} bytes", seconds=120), tries


def persistently(action, *arguments, **options):
    """Do something to a store that may be away."""

    def done():
        try:
            return action(*arguments, **options)
        except (OSError, http.client.HTTPException):
            return None

    return wait_for(done, "the store")


def call(lab, number, attempts):
    """Make a call until it is answered, each time as another attempt, as the operator does."""
    while True:
        attempt = len(attempts) + 1
        text = f"call-{number:02}-{attempt:03}"
        attempts.append(text)
        persistently(lab.call, attempt, text, seconds=0.05)
        record = persistently(lab.wait_for_end_of_call, attempt, text, what="between kills")
        if record["state"] == "answered":
            return


def test_what_is_acknowledged_is_there(lab, worker_python, measured):
    lab.start_store()
    lab.start_worker(worker_python)
    lab.wait_for_worker()
    lab.start_agent()
    draw = random.Random(SEED)
    files = contents()
    attempts: list[str] = []
    start = time.monotonic()
    with ThreadPoolExecutor(UPLOADS) as pool, ThreadPoolExecutor(1) as caller:
        calls = [caller.submit(call, lab, number, attempts) for number in range(CALLS)]
        uploads = []
        for number in range(KILLS):
            # Each kill meets uploads that have just begun, and those that the former ones threw back.
            share = files[number * UPLOADS // KILLS : (number + 1) * UPLOADS // KILLS]
            uploads += [pool.submit(upload, lab, file) for file in share]
            time.sleep(draw.uniform(0.0, 0.4))
            kill(lab, VICTIMS[number % 3], seconds=draw.uniform(0.0, 0.5))
        answers = [future.result() for future in uploads]
        for future in calls:
            future.result()
    seconds = time.monotonic() - start

    # The last word is that of a store that has read all of it from disk.
    lab.store.kill()
    lab.start_store()
    assert not list((lab.data / "tmp").iterdir())
    for file, (told, _) in zip(files, answers, strict=True):
        data = content(file)
        assert told["sha1"] == hashlib.sha1(data).hexdigest()
        assert (told["sha256"], told["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
        status, _, found = lab.ask("GET", f"/v1/files/{told['sha1']}", bearer=token())
        assert (status, found) == (200, data)

    answered = set()
    for attempt, text in enumerate(attempts, 1):
        assert lab.posts(text) <= 1
        record = lab.record(attempt)
        if record["state"] == "answered":
            assert record["answer"]["inline"] == {"text": text[::-1]}
            answered.add(text[: len("call-00")])
        else:
            # Nobody was told that it was taken.
            assert not lab.was_heard(attempt)
    assert len(answered) == CALLS
    tries = sum(tries for _, tries in answers)
    measured(
        f"{KILLS} kills in {seconds:.0f} s: {UPLOADS} uploads acknowledged after {tries} tries, "
        f"{CALLS} calls answered in {len(attempts)} attempts; all bytes and answers there"
    )

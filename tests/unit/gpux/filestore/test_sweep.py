from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from gpux.blobs import PUBLIC, Retention, Swept
from tests.unit.gpux.filestore.kit import DAY, Clock, contents, get, put, sha1, sha256, store

WEEK = Retention(grace=7 * DAY, unused=90 * DAY)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def blobs(tmp_path, clock):
    return store(tmp_path, clock=clock)


def test_what_something_refers_to_stays(blobs, clock):
    put(blobs, b"task")
    put(blobs, b"report", references={"keep:operator": None})
    clock.ahead = 1000 * DAY
    assert blobs.sweep(WEEK) == Swept()
    assert get(blobs, b"task")
    assert get(blobs, b"report")


def test_a_dropped_file_has_its_grace_from_then_on(blobs, clock, tmp_path):
    put(blobs, b"content")
    clock.ahead = 100 * DAY
    blobs.drop("task:t")
    clock.ahead += 6 * DAY
    assert blobs.sweep(WEEK) == Swept()
    clock.ahead += 2 * DAY
    assert blobs.sweep(WEEK) == Swept(entries=1, objects=1, size=7)
    assert get(blobs, b"content") is None
    assert contents(tmp_path) == []
    assert blobs.usage() == (0, 0)


def test_bytes_stay_as_long_as_any_namespace_has_them(blobs, clock, tmp_path):
    put(blobs, b"content")
    put(blobs, b"content", "b", references={"task:u": None})
    blobs.drop("task:t")
    clock.ahead = 8 * DAY
    assert blobs.sweep(WEEK) == Swept(entries=1)
    assert get(blobs, b"content") is None
    assert get(blobs, b"content", "b") == b"content"
    blobs.drop("task:u")
    clock.ahead += 8 * DAY
    assert blobs.sweep(WEEK) == Swept(entries=1, objects=1, size=7)
    assert contents(tmp_path) == []


def test_an_owner_loses_what_is_not_used(blobs, clock):
    owned = {"owner:o": None}
    put(blobs, b"used", references=owned)
    put(blobs, b"unused", references=owned)
    put(blobs, b"tasks", references={"task:t": None, **owned})
    clock.ahead = 60 * DAY
    get(blobs, b"used")
    clock.ahead = 100 * DAY
    assert blobs.sweep(WEEK) == Swept(references=2, entries=1, objects=1, size=6)
    assert get(blobs, b"used") == b"used"
    assert get(blobs, b"tasks") == b"tasks"
    assert blobs._shelves.accounts.used("a", "owner:o") == 4
    clock.ahead = 1000 * DAY
    assert blobs.sweep(WEEK._replace(unused=None)) == Swept()


def test_a_public_file_goes_with_its_task(blobs, clock):
    put(blobs, b"content", public=True)
    blobs.drop("task:t")
    clock.ahead = 8 * DAY
    assert blobs.sweep(WEEK) == Swept(entries=2, objects=1, size=7)
    assert get(blobs, b"content", PUBLIC) is None


def test_what_a_crash_left_goes(blobs, clock, tmp_path):
    put(blobs, b"content")
    entry = tmp_path / "index/a/sha1" / sha1(b"content").hex
    entry.unlink()
    clock.ahead = 8 * DAY
    assert blobs.sweep(WEEK) == Swept(references=1, objects=1, size=7)
    assert not list(tmp_path.glob("index/a/*/*"))
    assert not list(tmp_path.glob("refs/a/*"))
    assert blobs._shelves.accounts.used("a", "task:t") == 0


def test_a_way_back_that_a_crash_took_is_made_again(blobs, tmp_path):
    put(blobs, b"content")
    back = tmp_path / "index/a/sha256" / sha256(b"content")
    back.unlink()
    assert blobs.sweep(WEEK) == Swept()
    assert str(back.readlink()) == sha1(b"content").hex


def test_a_download_goes_on(blobs, clock):
    put(blobs, b"content", references={})
    _, opened = blobs.open("a", sha1(b"content"))
    clock.ahead = 8 * DAY
    with closing(opened):
        assert blobs.sweep(WEEK).objects == 1
        assert b"".join(opened.read(0, 7)) == b"content"


def test_an_upload_under_way_is_left_alone(blobs, clock):
    upload = blobs.begin(size=None)
    upload.write(b"content")
    clock.ahead = 8 * DAY
    blobs.sweep(WEEK)
    upload.abort()


def test_an_upload_that_was_acknowledged_survives_a_sweep_at_any_moment(tmp_path):
    """The same bytes come, go and are swept at the same time, again and again."""
    clock = Clock()
    clock.ahead = DAY
    blobs = store(tmp_path, clock=clock)
    now = Retention(grace=-2 * DAY, unused=None)
    over = threading.Event()

    def sweep():
        swept = 0
        while not over.is_set():
            swept += blobs.sweep(now).objects
        return swept

    def bring(number):
        task = f"task:{number}"
        for _ in range(60):
            put(blobs, b"content", references={task: None})
            assert get(blobs, b"content") == b"content"
            blobs.drop(task)

    with ThreadPoolExecutor(3) as pool:
        sweeping = pool.submit(sweep)
        try:
            list(pool.map(bring, range(2)))
        finally:
            over.set()
        assert sweeping.result() > 0
    blobs.sweep(now)
    assert contents(tmp_path) == []
    assert blobs.usage() == (0, 0)
    assert blobs._shelves.accounts._used == {}

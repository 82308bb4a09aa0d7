from __future__ import annotations

import threading

from gpux.blobs import Retention
from gpux.store.metrics import Metrics
from gpux.store.upkeep import Habits, Upkeep
from tests.unit.gpux.filestore.kit import Clock, get, put, rot, store

HABITS = Habits(
    sweep_seconds=0.01, retention=Retention(grace=1.0, unused=None), scrub_days=1.0, scrub_rate=1e9
)


def upkeep(root, *, habits=HABITS, clock=None):
    blobs = store(root, clock=clock or Clock())
    metrics = Metrics(free_bytes=blobs.free_bytes, usage=blobs.usage, calls=dict)
    return blobs, metrics, Upkeep(blobs, metrics, habits)


def value(metrics, name, labels=None):
    return metrics._registry.get_sample_value(f"gpux_store_{name}", labels)


def test_a_sweep_is_counted_and_logged(tmp_path, capfd):
    clock = Clock()
    blobs, metrics, keep = upkeep(tmp_path, clock=clock)
    put(blobs, b"content", references={})
    assert (value(metrics, "objects"), value(metrics, "bytes")) == (1, 7)
    clock.ahead = 10
    keep.sweep()
    assert value(metrics, "sweeps_total") == 1
    assert value(metrics, "swept_objects_total") == 1
    assert value(metrics, "swept_bytes_total") == 7
    assert (value(metrics, "objects"), value(metrics, "bytes")) == (0, 0)
    assert '"message": "swept"' in capfd.readouterr().err
    keep.sweep()
    assert not capfd.readouterr().err


def test_a_scrub_is_counted_and_logged(tmp_path, capfd):
    blobs, metrics, keep = upkeep(tmp_path)
    put(blobs, b"content")
    rot(tmp_path, b"content")
    keep.scrub()
    assert value(metrics, "scrubbed_bytes_total") == 7
    assert value(metrics, "quarantined_total") == 1
    assert '"level": "error", "message": "scrubbed"' in capfd.readouterr().err
    keep.scrub()
    assert value(metrics, "scrubbed_bytes_total") == 7


def test_it_goes_on_after_a_failure_until_it_is_stopped(tmp_path, capfd):
    blobs, metrics, keep = upkeep(tmp_path)
    swept = threading.Semaphore(0)

    def sweep(retention):
        swept.release()
        raise OSError("broken")

    blobs.sweep = sweep
    keep.start()
    assert all(swept.acquire(timeout=30) for _ in range(3))
    keep.stop()
    for thread in threading.enumerate():
        if thread.name == "sweep":
            thread.join(30)
    assert value(metrics, "upkeep_failures_total", {"step": "sweep"}) >= 3
    assert "broken" in capfd.readouterr().err


def test_a_scrub_takes_its_time_and_can_be_stopped(tmp_path):
    blobs, _, keep = upkeep(tmp_path, habits=HABITS._replace(scrub_rate=1.0))
    put(blobs, b"x" * 1000)
    reading = threading.Thread(target=keep.scrub)
    reading.start()
    reading.join(0.05)
    assert reading.is_alive()
    keep.stop()
    reading.join(30)
    assert not reading.is_alive()
    assert get(blobs, b"x" * 1000)


def test_nothing_is_done_where_that_is_wanted(tmp_path):
    _, _, keep = upkeep(tmp_path, habits=HABITS._replace(sweep_seconds=0.0, scrub_days=0.0))
    before = threading.active_count()
    keep.start()
    assert threading.active_count() == before

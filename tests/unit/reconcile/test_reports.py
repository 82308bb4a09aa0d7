"""Reports go to the store when it can take them, and hold up nobody when it can't."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from datetime import datetime, timedelta
from typing import cast

import looptime
import pytest

from gpux.client import StoreClient, StoreRefused, StoreUnavailable
from opengpu_operator.api.findings import FileReport, Finding, Severity
from opengpu_operator.api.source import StoredReport
from opengpu_operator.reconcile.reports import LONGEST_DELAY, PATIENCE_SECONDS, Reports
from tests.unit.reconcile.builders import NOW

FINDING = Finding(severity=Severity.WARNING, reason="BindReplaced", message="M.")
REPORT = FileReport(environment="cpu", digest="sha256:0", findings=[FINDING])
SOURCE = "11111111-2222-3333-4444-555555555555"
OTHER = FileReport(environment="amd", digest="sha256:0", findings=[FINDING])


class Store:
    """The part of a StoreClient that takes files; ``fails`` is raised instead, if set."""

    def __init__(self) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.references: set[str] = set()
        self.dropped: list[str] = []
        self.tried = 0
        self.fails: Exception | None = None
        self.hangs = False

    async def drop_reference(self, reference: str) -> None:
        self.tried += 1
        if self.fails is not None:
            raise self.fails
        self.dropped.append(reference)

    async def put_file(self, namespace: str, data: bytes, *, reference: str) -> dict[str, object]:
        self.tried += 1
        self.references.add(reference)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails
        self.files.append((namespace, data))
        return {"sha1": hashlib.sha1(data).hexdigest(), "size": len(data), "url": "gpux://x"}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reports(store: Store, clock: Clock) -> Reports:
    return Reports(store=cast("StoreClient", store), clock=clock)


async def test_a_report_is_kept_under_its_hash(reports: Reports, store: Store) -> None:
    kept = await reports.keep("team", SOURCE, REPORT, known=None)
    ((namespace, data),) = store.files
    assert (namespace, json.loads(data)) == ("team", REPORT.dump())
    assert kept == StoredReport(sha1=hashlib.sha1(REPORT.canonical()).hexdigest(), size=len(data))
    assert reports.delay == 0


async def test_what_is_there_isnt_put_again(reports: Reports, store: Store) -> None:
    known = await reports.keep("team", SOURCE, REPORT, known=None)
    assert await reports.keep("team", SOURCE, REPORT, known=known) == known
    store.fails = StoreUnavailable("away")
    assert await reports.keep("team", SOURCE, REPORT, known=known) == known
    assert store.tried == 1
    assert await reports.keep("team", SOURCE, OTHER, known=known) is None


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), StoreRefused(507, "full")], ids=["unavailable", "full"]
)
async def test_after_a_failure_nobody_tries_for_a_while(
    reports: Reports, store: Store, clock: Clock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store.fails = error
    delays = []
    with caplog.at_level(logging.WARNING):
        for _ in range(9):
            assert await reports.keep("team", SOURCE, REPORT, known=None) is None
            tried = store.tried
            assert await reports.keep("team", SOURCE, OTHER, known=None) is None
            assert store.tried == tried
            delays.append(reports.delay)
            clock.passes(reports.delay)
    assert delays[:4] == [15, 30, 60, 120]
    assert delays[-2:] == [LONGEST_DELAY.total_seconds()] * 2
    assert len(caplog.records) == store.tried == 9
    store.fails = None
    assert await reports.keep("team", SOURCE, REPORT, known=None) is not None
    assert reports.delay == 0
    store.fails = error
    assert await reports.keep("team", SOURCE, OTHER, known=None) is None
    assert reports.delay == 15


async def test_failures_at_the_same_time_are_one(reports: Reports, store: Store) -> None:
    store.fails = StoreUnavailable("away")
    gate = asyncio.Event()

    async def put_file(namespace: str, data: bytes, *, reference: str) -> dict[str, object]:
        await gate.wait()
        raise StoreUnavailable(namespace, data)

    store.put_file = put_file  # type: ignore[method-assign]
    many = [asyncio.create_task(reports.keep("team", SOURCE, REPORT, known=None)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*many) == [None] * 5
    assert reports.delay == 15


def test_a_store_that_hangs_holds_nothing_up() -> None:
    store, clock = Store(), Clock()
    store.hangs = True

    async def main() -> float:
        reports = Reports(store=cast("StoreClient", store), clock=clock)
        started = asyncio.get_running_loop().time()
        assert await reports.keep("team", SOURCE, REPORT, known=None) is None
        assert await reports.keep("team", SOURCE, OTHER, known=None) is None
        return asyncio.get_running_loop().time() - started

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        # The loop's own time, which jumps from one timer to the next.
        assert runner.run(main()) == pytest.approx(PATIENCE_SECONDS)
    assert store.tried == 1


async def test_reports_go_with_their_source(store, reports):
    await reports.keep("team", SOURCE, REPORT, known=None)
    await reports.forget(SOURCE)
    assert store.references == {f"keep:{SOURCE}"}
    assert store.dropped == [f"keep:{SOURCE}"]


async def test_a_source_goes_also_while_the_store_is_away(store, reports):
    store.fails = StoreUnavailable("away")
    await reports.forget(SOURCE)
    assert reports.delay > 0
    await reports.forget(SOURCE)
    assert store.tried == 1

"""Calls in a bucket, for several stores at once: one object per attempt, moved on by compare-and-swap.

    calls/TASK/ATTEMPT            the record, with a version that every change counts up
    inputs/TASK/ATTEMPT-DIGEST    what the worker is called with, written before the record and never changed

A change reads the record, takes its step, and writes on the condition that the record is still the one it read; whoever
comes second reads again. So a claim goes to one pod, whichever stores are asked. What waits here for changes of other
stores learns of them by listing: a record whose ETag isn't the known one is read.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, ParamSpec, TypeVar

from gpux.blobs import Blob
from gpux.calls import (
    Call,
    CallBoard,
    CallNotFoundError,
    CallRequest,
    answered,
    check_repeated,
    check_tenant,
    claimed,
    from_record,
    queued,
    reported,
)
from gpux.errors import UnavailableError
from gpux.log import log
from gpux.s3.bucket import Bucket, ChangedError, Found

_INTERVAL_SECONDS = 0.7
"""Between two listings. Every store lists all records so often."""
_SLOWEST_SECONDS = 10.0
_ORPHAN_SECONDS = 3600.0
"""Inputs so old without a record are what a crash or a deletion left."""

P = ParamSpec("P")
T = TypeVar("T")


class _Record(NamedTuple):
    """A call as it is in the bucket."""

    call: Call
    version: int
    etag: str

    @property
    def order(self) -> tuple[str, int]:
        """Grows with every change, also when a task's calls were deleted and put again."""
        return self.call.times["queued"], self.version


class S3CallBook(CallBoard):
    """See `Calls`."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        executor: Executor,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Load what was recorded. Blocks; it is done before the server listens."""
        super().__init__()
        self._bucket = bucket
        self._executor = executor
        self._clock = clock
        self._records: dict[tuple[str, int], _Record] = {}
        self._damaged: dict[str, str] = {}
        """Records that can't be read, by key, with the ETag that they had then."""
        inputs = list(bucket.listing("inputs/"))
        keys = [entry.key for entry in bucket.listing("calls/")]
        for record in executor.map(self._read_key, keys):
            if record is not None:
                self._learn(record)
        recorded = {_input_key(record.call) for record in self._records.values()}
        for entry in inputs:
            if entry.key not in recorded and entry.modified < time.time() - _ORPHAN_SECONDS:
                bucket.delete(entry.key)

    # ------------------------------------------------------------------------------------------------ reading

    async def fetch(self, task: str, attempt: int, *, namespace: str | None = None) -> Call:
        """See `Calls`."""
        return (await self._fetch(task, attempt, namespace=namespace)).call

    async def fetch_all(self) -> list[Call]:
        """See `Calls`."""
        await self._refresh()
        return self.all()

    async def data(self, call: Call) -> Any:
        """See `Calls`."""
        found = await self._in_thread(self._bucket.get, _input_key(call))
        if found is None:
            raise CallNotFoundError
        return json.loads(found.body)

    # ------------------------------------------------------------------------------------------------ changing

    async def put(self, request: CallRequest) -> bool:
        """See `Calls`."""
        async with self._lock(request.task):
            new = await self._put(request)
            # Also where it was there: whoever put it may not have come to this line.
            await self._supersede(request.task, request.attempt)
            return new

    async def claim(self, task: str, attempt: int, *, namespace: str | None, pod: str) -> Call:
        """See `Calls`."""

        async def step(call: Call) -> Call:
            # Listed after the record was read: a newer attempt that comes now changes the record, see `_supersede`.
            newest = max(await self._in_thread(self._attempts, task), default=attempt)
            return claimed(call, pod=pod, newest=newest, now=self._now())

        return (await self._move(task, attempt, namespace=namespace, step=step))[0]

    async def report(
        self,
        task: str,
        attempt: int,
        *,
        namespace: str | None,
        state: str,
        status: int | None,
        detail: str | None,
        sent_at: str | None,
    ) -> Call:
        """See `Calls`."""

        async def step(call: Call) -> Call:
            now = self._now()
            return reported(call, state=state, status=status, detail=detail, sent_at=sent_at, now=now)

        return (await self._move(task, attempt, namespace=namespace, step=step))[0]

    async def answer(
        self, task: str, attempt: int, *, namespace: str | None, answer: Blob, answered_at: str | None = None
    ) -> bool:
        """See `Calls`."""

        async def step(call: Call) -> Call:
            return answered(call, answer=answer, answered_at=answered_at, now=self._now())

        return (await self._move(task, attempt, namespace=namespace, step=step))[1]

    async def delete(self, task: str) -> None:
        """See `Calls`."""
        async with self._lock(task):
            for attempt in await self._in_thread(self._remove, task):
                self._drop(task, attempt)

    async def follow(self) -> None:
        """See `Calls`."""
        reachable = True
        while True:
            started = time.monotonic()
            try:
                await self._refresh()
                reachable = True
            except UnavailableError as error:
                if reachable:
                    log("warning", "the changes of other stores can't be seen", error=str(error))
                reachable = False
            # Where there is so much that listing takes long, it is done less often.
            took = time.monotonic() - started
            await asyncio.sleep(min(max(_INTERVAL_SECONDS, 2 * took), _SLOWEST_SECONDS))

    # ------------------------------------------------------------------------------------------------ inside

    async def _put(self, request: CallRequest) -> bool:
        call = queued(request, now=self._now())
        for attempt in await self._in_thread(self._attempts, request.task):
            known = await self._in_thread(self._read, request.task, attempt)
            if known is None:
                continue
            if attempt == request.attempt:
                check_repeated(known.call, request)
                self._learn(known)
                return False
            check_tenant(known.call, request)
        await self._in_thread(self._bucket.put, _input_key(call), json.dumps(request.data).encode())
        try:
            self._learn(await self._in_thread(self._write, call, 1, None))
        except ChangedError:
            check_repeated((await self._fetch(request.task, request.attempt)).call, request)
            return False
        return True

    async def _supersede(self, task: str, newest: int) -> None:
        """Count up the version of older attempts that nobody has claimed.

        Whoever is about to claim one of them has read it before the newest was there; now that claim fails, and the
        one who tries again sees the newest.
        """
        for attempt in await self._in_thread(self._attempts, task):
            while attempt < newest:
                known = await self._in_thread(self._read, task, attempt)
                if known is None or known.call.state != "queued":
                    break
                try:
                    await self._in_thread(self._write, known.call, known.version + 1, known.etag)
                except ChangedError:
                    continue
                break

    async def _move(self, task: str, attempt: int, *, namespace: str | None, step: Any) -> tuple[Call, bool]:
        """Take a step by compare-and-swap; the call after it, and whether that is another."""
        async with self._lock(task):
            while True:
                known = await self._fetch(task, attempt, namespace=namespace)
                moved: Call = await step(known.call)
                if moved == known.call:
                    return moved, False
                try:
                    record = await self._in_thread(self._write, moved, known.version + 1, known.etag)
                except ChangedError:
                    continue
                self._learn(record)
                return moved, True

    async def _fetch(self, task: str, attempt: int, *, namespace: str | None = None) -> _Record:
        record = await self._in_thread(self._read, task, attempt)
        if record is None or namespace not in {None, record.call.namespace}:
            raise CallNotFoundError
        self._learn(record)
        return record

    async def _refresh(self) -> None:
        before = dict(self._records)
        listed = {entry.key: entry.etag for entry in await self._in_thread(self._list)}
        known = {_key(*where): (where, record) for where, record in before.items()}
        etags = {key: record.etag for key, (_, record) in known.items()} | self._damaged
        changed = [key for key, etag in listed.items() if etags.get(key) != etag]
        read = await asyncio.gather(*(self._in_thread(self._read_key, key) for key in changed))
        for key, record in zip(changed, read, strict=True):
            if record is None:
                self._damaged[key] = listed[key]
            else:
                self._damaged.pop(key, None)
                self._learn(record)
        for key, (where, record) in known.items():
            # Only what the listing can have shown: not what was written while it ran.
            if key not in listed and self._records.get(where) is record:
                self._drop(*where)

    def _learn(self, record: _Record) -> None:
        """Know a record, unless a newer one is known."""
        where = record.call.task, record.call.attempt
        known = self._records.get(where)
        if known is not None and known.order >= record.order:
            return
        self._records[where] = record
        if known is None or known.call != record.call:
            self._index(record.call)

    def _drop(self, task: str, attempt: int) -> None:
        self._records.pop((task, attempt), None)
        self._forget(task, attempt)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: function(*args, **kwargs)
        )

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds")

    # ------------------------------------------------------------------------------------------------ in threads

    def _list(self) -> list[Any]:
        return list(self._bucket.listing("calls/"))

    def _attempts(self, task: str) -> list[int]:
        names = (entry.key.rpartition("/")[2] for entry in self._bucket.listing(f"calls/{task}/"))
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, task: str, attempt: int) -> _Record | None:
        return self._read_key(_key(task, attempt))

    def _read_key(self, key: str) -> _Record | None:
        found = self._bucket.get(key)
        return None if found is None else _parse(key, found)

    def _write(self, call: Call, version: int, match: str | None) -> _Record:
        key = _key(call.task, call.attempt)
        etag = self._bucket.put(key, _body(call, version), match=match, absent=match is None)
        return _Record(call, version, etag)

    def _remove(self, task: str) -> list[int]:
        # The records first: an input without a record is nothing.
        attempts = self._attempts(task)
        for attempt in attempts:
            self._bucket.delete(_key(task, attempt))
        for entry in list(self._bucket.listing(f"inputs/{task}/")):
            self._bucket.delete(entry.key)
        return attempts


def copy(bucket: Bucket, call: Call, data: bytes) -> None:
    """Record a call that was recorded elsewhere, with its input, unless it is there. Blocks."""
    bucket.put(_input_key(call), data)
    with suppress(ChangedError):
        bucket.put(_key(call.task, call.attempt), _body(call, 1), absent=True)


def _body(call: Call, version: int) -> bytes:
    return json.dumps(call.record() | {"version": version}).encode()


def _key(task: str, attempt: int) -> str:
    return f"calls/{task}/{attempt}"


def _input_key(call: Call) -> str:
    return f"inputs/{call.task}/{call.attempt}-{call.digest[:16]}"


def _parse(key: str, found: Found) -> _Record | None:
    try:
        record = json.loads(found.body)
        version = int(record.pop("version"))
        return _Record(from_record(record), version, found.etag)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # Written whole, so this isn't ours. The others must go on.
        log("error", "a call's record is damaged", key=key, error=str(error))
        return None

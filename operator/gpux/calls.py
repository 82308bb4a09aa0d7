"""Calls of workers: what was asked, how far it got, and the answer, each step durable before it is acknowledged.

States only move forward, and a claim goes to the first pod that asks: on that hangs that no worker is called twice for
one attempt. The steps are pure functions; `Calls` is what a backend does with them, and `CallBoard` what all backends
know and tell those who wait. `CallBook` keeps one small file per attempt, replaced as the attempt moves on. Everything
runs on one event loop; a lock per task orders the changes of that task, threads do the writing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar
from weakref import WeakValueDictionary

from gpux.blobs import Blob
from gpux.files import Disk
from gpux.log import log

#: How far a state is on the way; what has the same rank excludes the other.
RANKS = {
    "queued": 0,
    "claimed": 1,
    "sent": 2,
    "unknown": 3,
    "accepted": 4,
    "refused": 4,
    "busy": 4,
    "answered": 5,
}

#: The states that an agent reports.
REPORTED = frozenset({"sent", "accepted", "refused", "busy", "unknown"})

_ATTEMPT_FILE = re.compile(r"([1-9][0-9]{0,6})\.json")
_LONGEST_DETAIL = 4096

P = ParamSpec("P")
T = TypeVar("T")


class CallNotFoundError(Exception):
    """There is no such call, or not for whoever asks."""


class CallConflictError(Exception):
    """The request contradicts what is recorded. The message says how."""


class Call(NamedTuple):
    """One attempt at a task's call, without its input, which may be large and stays on disk."""

    namespace: str
    task: str
    attempt: int
    function: str
    address: str
    deadline: float | None
    digest: str
    """SHA-256 of the request, by which a repeated PUT is told from another one."""
    state: str = "queued"
    claimed_by: str | None = None
    status: int | None = None
    """The HTTP status that the worker answered the POST with."""
    detail: str | None = None
    answer: Blob | None = None
    times: dict[str, str] = {}  # noqa: RUF012 never changed in place

    def record(self) -> dict[str, Any]:
        """As it is kept; `from_record` reads it."""
        return self._asdict() | {"answer": self.answer and self.answer._asdict()}

    def brief(self) -> dict[str, str | int]:
        """As lists show it."""
        return {"namespace": self.namespace, "task": self.task, "attempt": self.attempt, "state": self.state}

    def document(self) -> dict[str, Any]:
        """As the operator sees it, but for the inline answer."""
        names = ("queued", "claimed", "sent", "accepted", "answered")
        return {
            **self.brief(),
            "function": self.function,
            "address": self.address,
            "claimedBy": self.claimed_by,
            "status": self.status,
            "detail": self.detail,
            "answer": None if self.answer is None else {**self.answer._asdict(), "inline": None},
            "times": {name: self.times.get(name) for name in names},
        }


def from_record(record: Mapping[str, Any]) -> Call:
    """Read what `Call.record` wrote. Raises TypeError, KeyError or AttributeError for something else."""
    answer = record["answer"]
    return Call(**{**record, "answer": answer and Blob(**answer)})


class CallRequest(NamedTuple):
    """What a PUT asks for."""

    namespace: str
    task: str
    attempt: int
    function: str
    address: str
    deadline: float | None
    data: Any

    def digest(self) -> str:
        """Name the request by its content."""
        return hashlib.sha256(json.dumps(self._asdict(), sort_keys=True).encode()).hexdigest()


class Change(NamedTuple):
    """One attempt's newest change."""

    seq: int
    call: Call


class Calls(Protocol):
    """A backend. Beside what is said, everything may raise UnavailableError if the backend is a service of its own."""

    @property
    def epoch(self) -> str:
        """What the sequence numbers of changes belong to."""

    def all(self) -> list[Call]:
        """Every attempt of every task, as it was known last."""

    def counts(self) -> dict[str, int]:
        """How many attempts are in each state, as it was known last."""

    async def fetch(self, task: str, attempt: int, *, namespace: str | None = None) -> Call:
        """One attempt as it is now, if it is in that namespace (None: wherever it is). Raises CallNotFoundError."""

    async def fetch_all(self) -> list[Call]:
        """Every attempt of every task as it is now."""

    async def data(self, call: Call) -> Any:
        """The input of a call. Raises CallNotFoundError if it is deleted meanwhile."""

    async def wait_for_task(
        self, task: str, *, namespace: str | None, after: int, seconds: float
    ) -> Call | None:
        """The newest unanswered attempt above `after`, as soon as there is one; None when the time is over."""

    async def wait_for_changes(
        self, after: int, *, epoch: str | None, seconds: float
    ) -> tuple[int, list[Change]]:
        """The last sequence number, and the newest change of every attempt changed since `after`.

        Numbers of another epoch, or from the future, mean nothing here: then everything is returned.
        """

    async def put(self, request: CallRequest) -> bool:
        """Record a call; whether it is new. Raises CallConflictError where another one has its place."""

    async def claim(self, task: str, attempt: int, *, namespace: str | None, pod: str) -> Call:
        """Give an attempt to a pod. Raises CallConflictError if another has it, or a newer attempt took its place."""

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
        """Move an attempt forward; a report that comes late changes no state.

        Raises CallConflictError for an attempt that no pod has claimed: nothing can have become of it.
        """

    async def answer(
        self, task: str, attempt: int, *, namespace: str | None, answer: Blob, answered_at: str | None = None
    ) -> bool:
        """Record the answer; whether it is new. Raises CallConflictError if there is another one.

        ``answered_at`` is when the worker gave it, as the agent says, which may be long before we could be told.
        """

    async def delete(self, task: str) -> None:
        """Forget a task's calls. Their answers stay among the namespace's files."""

    async def follow(self) -> None:
        """Keep up with what others record, until it is cancelled."""

    def close(self) -> None:
        """Let everybody who waits go, now and from now on: the server is about to end."""


# ---------------------------------------------------------------------------------------------------------- the steps


def queued(request: CallRequest, *, now: str) -> Call:
    """How a call begins."""
    return Call(
        namespace=request.namespace,
        task=request.task,
        attempt=request.attempt,
        function=request.function,
        address=request.address,
        deadline=request.deadline,
        digest=request.digest(),
        times={"queued": now},
    )


def check_repeated(known: Call, request: CallRequest) -> None:
    """Make sure that a call that is there is the one that is put. Raises CallConflictError."""
    if known.digest != request.digest():
        raise CallConflictError("another call is recorded for this attempt")


def check_tenant(known: Call, request: CallRequest) -> None:
    """Make sure that a task's calls are in one namespace. Raises CallConflictError."""
    if known.namespace != request.namespace:
        raise CallConflictError("the task belongs to another namespace")


def claimed(call: Call, *, pod: str, newest: int, now: str) -> Call:
    """The attempt in the hands of a pod. Raises CallConflictError."""
    if call.claimed_by == pod:
        return call
    if call.claimed_by is not None:
        raise CallConflictError("another pod has claimed this attempt")
    if call.attempt < newest:
        raise CallConflictError("a newer attempt has taken this one's place")
    return call._replace(state="claimed", claimed_by=pod, times={**call.times, "claimed": now})


def reported(
    call: Call, *, state: str, status: int | None, detail: str | None, sent_at: str | None, now: str
) -> Call:
    """The attempt after a report. Raises CallConflictError."""
    if call.claimed_by is None:
        raise CallConflictError("no pod has claimed this attempt")
    times = dict(call.times)
    times.setdefault("sent", sent_at or now)
    if state == "accepted":
        times.setdefault("accepted", now)
    moved = call._replace(times=times)
    if RANKS[state] > RANKS[call.state]:
        moved = moved._replace(state=state, status=status, detail=detail and detail[:_LONGEST_DETAIL])
    return moved


def answered(call: Call, *, answer: Blob, answered_at: str | None, now: str) -> Call:
    """The attempt with its answer. Raises CallConflictError."""
    if call.answer is not None:
        if call.answer != answer:
            raise CallConflictError("another answer is recorded for this attempt")
        return call
    times = {**call.times, "answered": min(answered_at or now, now)}
    return call._replace(state="answered", answer=answer, times=times)


# ------------------------------------------------------------------------------------------------------ what is known


class CallBoard:
    """Every call as it is known here, in the order of its changes, and those who wait for news of them."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self._tasks: dict[str, dict[int, Call]] = {}
        self._sequence = 0
        self._changed: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._watchers: dict[str | None, set[asyncio.Future[None]]] = {}
        self._closed = False

    def get(self, task: str, attempt: int, *, namespace: str | None = None) -> Call:
        """One attempt, if it is in that namespace (None: wherever it is). Raises CallNotFoundError."""
        call = self._tasks.get(task, {}).get(attempt)
        if call is None or namespace not in {None, call.namespace}:
            raise CallNotFoundError
        return call

    def all(self) -> list[Call]:
        """See `Calls`."""
        return [call for attempts in self._tasks.values() for call in attempts.values()]

    def counts(self) -> dict[str, int]:
        """See `Calls`."""
        result = dict.fromkeys(RANKS, 0)
        for call in self.all():
            result[call.state] += 1
        return result

    async def wait_for_task(
        self, task: str, *, namespace: str | None, after: int, seconds: float
    ) -> Call | None:
        """See `Calls`."""

        def newest() -> Call | None:
            attempts = self._tasks.get(task)
            call = attempts[max(attempts)] if attempts else None
            wanted = (
                call
                and namespace in {None, call.namespace}
                and call.attempt > after
                and call.state != "answered"
            )
            return call if wanted else None

        return await self._wait_until(newest, key=task, seconds=seconds)

    async def wait_for_changes(
        self, after: int, *, epoch: str | None, seconds: float
    ) -> tuple[int, list[Change]]:
        """See `Calls`."""
        if after > self._sequence or epoch not in {None, "", self.epoch}:
            return self._sequence, self._changes(0)
        changes = await self._wait_until(lambda: self._changes(after) or None, key=None, seconds=seconds)
        return self._sequence, changes or []

    def close(self) -> None:
        """See `Calls`."""
        self._closed = True
        for waiting in list(self._watchers):
            self._wake(waiting)

    def _changes(self, after: int) -> list[Change]:
        changes = []
        for (task, attempt), seq in reversed(self._changed.items()):
            if seq <= after:
                break
            changes.append(Change(seq, self._tasks[task][attempt]))
        return changes[::-1]

    async def _wait_until(self, look: Callable[[], T | None], *, key: str | None, seconds: float) -> T | None:
        deadline = asyncio.get_running_loop().time() + seconds
        while (found := look()) is None and not self._closed:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            with self._watching(key) as changed:
                await asyncio.wait((changed,), timeout=left)
        return found

    @contextmanager
    def _watching(self, key: str | None) -> Iterator[asyncio.Future[None]]:
        changed = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(key, set()).add(changed)
        try:
            yield changed
        finally:
            watchers = self._watchers.get(key, set())
            watchers.discard(changed)
            if not watchers:
                self._watchers.pop(key, None)

    def _wake(self, key: str | None) -> None:
        for changed in self._watchers.get(key, ()):
            if not changed.done():
                changed.set_result(None)

    def _lock(self, task: str) -> asyncio.Lock:
        lock = self._locks.get(task)
        if lock is None:
            lock = self._locks[task] = asyncio.Lock()
        return lock

    def _index(self, call: Call) -> None:
        self._tasks.setdefault(call.task, {})[call.attempt] = call
        self._sequence += 1
        self._changed[call.task, call.attempt] = self._sequence
        self._changed.move_to_end((call.task, call.attempt))
        self._wake(call.task)
        self._wake(None)

    def _forget(self, task: str, attempt: int) -> None:
        self._changed.pop((task, attempt), None)
        attempts = self._tasks.get(task, {})
        attempts.pop(attempt, None)
        if not attempts:
            self._tasks.pop(task, None)


# ----------------------------------------------------------------------------------------------------------- in files


class CallBook(CallBoard):
    """All calls of one store, in files. See `Calls`."""

    def __init__(
        self,
        root: str,
        *,
        executor: Executor,
        disk: Disk | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Load what was recorded. Blocks; it is done before the server listens."""
        super().__init__()
        self._disk = disk or Disk()
        self._root = self._disk.make_directories(root, "calls")
        self._executor = executor
        self._clock = clock
        for call in sorted(self._load(), key=lambda call: (call.task, call.attempt)):
            self._index(call)

    async def fetch(self, task: str, attempt: int, *, namespace: str | None = None) -> Call:
        """See `Calls`."""
        return self.get(task, attempt, namespace=namespace)

    async def fetch_all(self) -> list[Call]:
        """See `Calls`."""
        return self.all()

    async def data(self, call: Call) -> Any:
        """See `Calls`."""
        try:
            raw = await self._in_thread(_read, self._path(call.task, call.attempt, "data"))
        except FileNotFoundError:
            raise CallNotFoundError from None
        return json.loads(raw)

    async def put(self, request: CallRequest) -> bool:
        """See `Calls`."""
        async with self._lock(request.task):
            attempts = self._tasks.get(request.task, {})
            if request.attempt in attempts:
                check_repeated(attempts[request.attempt], request)
                return False
            for other in attempts.values():
                check_tenant(other, request)
            call = queued(request, now=self._now())
            await self._in_thread(self._write_data, call, json.dumps(request.data).encode())
            await self._save(call)
            return True

    async def claim(self, task: str, attempt: int, *, namespace: str | None, pod: str) -> Call:
        """See `Calls`."""
        async with self._lock(task):
            call = self.get(task, attempt, namespace=namespace)
            newest = max(self._tasks[task])
            return await self._move(call, claimed(call, pod=pod, newest=newest, now=self._now()))

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
        async with self._lock(task):
            call = self.get(task, attempt, namespace=namespace)
            moved = reported(
                call, state=state, status=status, detail=detail, sent_at=sent_at, now=self._now()
            )
            return await self._move(call, moved)

    async def answer(
        self, task: str, attempt: int, *, namespace: str | None, answer: Blob, answered_at: str | None = None
    ) -> bool:
        """See `Calls`."""
        async with self._lock(task):
            call = self.get(task, attempt, namespace=namespace)
            moved = answered(call, answer=answer, answered_at=answered_at, now=self._now())
            await self._move(call, moved)
            return moved is not call

    async def delete(self, task: str) -> None:
        """See `Calls`."""
        async with self._lock(task):
            attempts = list(self._tasks.get(task, {}))
            await self._in_thread(self._remove, task, attempts)
            for attempt in attempts:
                self._forget(task, attempt)

    async def follow(self) -> None:
        """See `Calls`: nobody else writes to our files."""

    # ------------------------------------------------------------------------------------------------ inside

    async def _move(self, call: Call, moved: Call) -> Call:
        return call if moved == call else await self._save(moved)

    async def _save(self, call: Call) -> Call:
        """Make a call durable, and only then visible."""
        await self._in_thread(self._write_record, call)
        self._index(call)
        return call

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: function(*args, **kwargs)
        )

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds")

    def _path(self, task: str, attempt: int, suffix: str) -> str:
        return f"{self._root}/{task}/{attempt}.{suffix}"

    def _write_data(self, call: Call, data: bytes) -> None:
        self._disk.make_directories(self._root, call.task)
        path = self._path(call.task, call.attempt, "data")
        self._disk.replace(path, data, temporary=f"{path}.tmp")

    def _write_record(self, call: Call) -> None:
        path = self._path(call.task, call.attempt, "json")
        self._disk.replace(path, json.dumps(call.record()).encode(), temporary=f"{path}.tmp")

    def _remove(self, task: str, attempts: list[int]) -> None:
        directory = f"{self._root}/{task}"
        if not os.path.isdir(directory):
            return
        # The records first: data without a record is nothing.
        for suffix in ("json", "data"):
            for attempt in attempts:
                self._disk.unlink(self._path(task, attempt, suffix))
            self._disk.sync_directory(directory)
        self._disk.rmdir(directory)
        self._disk.sync_directory(self._root)

    def _load(self) -> Iterator[Call]:
        for task in os.listdir(self._root):
            directory = f"{self._root}/{task}"
            names = set(os.listdir(directory))
            for name in sorted(names):
                if _ATTEMPT_FILE.fullmatch(name) and name[: -len("json")] + "data" in names:
                    call = _parse(f"{directory}/{name}")
                    if call is not None:
                        yield call
                elif not name.endswith(".json") and name.removesuffix("data") + "json" not in names:
                    # What a crash left: a temporary file, or data whose record was never made or is gone.
                    self._disk.unlink(f"{directory}/{name}")
            if not os.listdir(directory):
                self._disk.rmdir(directory)


def _parse(path: str) -> Call | None:
    try:
        return from_record(json.loads(_read(path)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # Renamed into place when it was durable, so this is a damaged disk, not a crash. The others must go on.
        log("error", "a call's record is damaged", path=path, error=str(error))
        return None


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()

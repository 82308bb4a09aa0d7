"""Which object is reconciled next: one run per key at a time, fair between namespaces, failures later and later.

Keys are added as often as anything about an object changes, and cost one run however often they were added. A key that
is added while it runs is run once more afterwards, so that no change is missed. Namespaces take turns, and none may
hold all workers, so that one tenant's thousand tasks don't delay another's one.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from opengpu_operator.api.errors import ReconcileError
from opengpu_operator.kube.errors import KubeError
from opengpu_operator.observability.logging import about

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 300.0
#: No group (namespace) may hold more than this share of the workers.
_SHARE: Final = 0.75
#: A key that wants to run again at once still lets the others go first.
_SOON: Final = 0.01


class KeyedQueue(Generic[K]):
    """A queue of keys, and the workers that process them.

    Time is the event loop's.
    """

    def __init__(
        self,
        process: Callable[[K], Awaitable[float | None]],
        *,
        group: Callable[[K], str],
        workers: int,
        timeout: float = 120.0,
        grace: float = 5.0,
        rand: Callable[[], float] = random.random,
        observe: Callable[[K, str, float, float], None] | None = None,
    ) -> None:
        """Set up a queue that does nothing before :meth:`run`.

        ``process`` returns after how many seconds the key is to be run again, or None; an exception that it raises
        has the key run again after its ``retry_after``, or else with exponential back-off. ``timeout`` bounds one
        run, ``grace`` what is left of runs at the stop. ``observe`` is told of every run: key, result (``success``
        or the exception's class), seconds waited, seconds run.
        """
        self._process = process
        self._group = group
        self._workers = workers
        self._most_per_group = math.ceil(workers * _SHARE)
        self._timeout = timeout
        self._grace = grace
        self._rand = rand
        self.observe = observe

        self._waiting: dict[K, float] = {}
        """Keys to run now, with when they were added, oldest first."""
        self._turns: dict[str, deque[K]] = {}
        """The same keys by group; the group whose turn it is comes first."""
        self._running: set[K] = set()
        self._running_in: Counter[str] = Counter()
        self._again: set[K] = set()
        self._due: dict[K, float] = {}
        self._timers: list[tuple[float, int, K]] = []
        """A heap of what is in ``_due``, with entries that are outdated."""
        self._sequence = 0
        self._wake: asyncio.TimerHandle | None = None
        self._failures: dict[K, int] = {}

        self._open = False
        self._tasks: set[asyncio.Task[bool]] = set()
        self._context = contextvars.copy_context()
        self._last_progress: float | None = None

    def add(self, key: K) -> None:
        """Have a key run as soon as possible."""
        if key in self._running:
            self._again.add(key)
            return
        if key in self._waiting:
            return
        if not self._waiting and not self._running:
            self._last_progress = self._now()
        self._waiting[key] = self._now()
        self._turns.setdefault(self._group(key), deque()).append(key)
        self._start()

    def add_after(self, key: K, delay: float) -> None:
        """Have a key run in ``delay`` seconds at the latest; any run that starts before then will do."""
        if delay <= 0:
            self.add(key)
            return
        when = self._now() + delay
        if self._due.get(key, when + 1) <= when:
            return
        self._due[key] = when
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, key))
        if len(self._timers) > 2 * len(self._due) + 1000:
            self._timers = [entry for entry in self._timers if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._timers)
        self._set_timer()

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._waiting)

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    @property
    def retrying(self) -> int:
        """How many keys failed last time."""
        return len(self._failures)

    @property
    def running(self) -> int:
        """How many keys are being processed."""
        return len(self._running)

    @property
    def oldest_age(self) -> float:
        """For how long the key that waits longest has been waiting for a worker."""
        return self._now() - next(iter(self._waiting.values())) if self._waiting else 0.0

    @property
    def stuck_for(self) -> float:
        """For how long keys have been waiting without a single run starting or ending; 0 when none waits."""
        if not self._waiting or not self._open or self._last_progress is None:
            return 0.0
        return self._now() - self._last_progress

    async def run(self, stop: asyncio.Event) -> None:
        """Process keys until ``stop``, then let those that are running finish."""
        self._open = True
        self._context = contextvars.copy_context()
        self._last_progress = self._now()
        try:
            self._set_timer()
            for _ in range(self._workers):
                self._start()
            await stop.wait()
        finally:
            self._open = False
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._grace)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _start(self) -> None:
        """Start one more worker, which chooses its key when its turn comes.

        One per key that was added and one per run that ended is enough: neither lets more than one more key run.
        """
        if self._open and self._waiting and len(self._tasks) < self._workers:
            task = asyncio.get_running_loop().create_task(self._work(), context=self._context.copy())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[bool]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error("a worker of the queue failed", exc_info=error)
        if error is not None or task.result():
            self._start()

    def _next(self) -> K | None:
        """Take the key whose turn it is; None if there is none that may run."""
        group = next((group for group in self._turns if self._running_in[group] < self._most_per_group), None)
        if group is None:
            return None
        keys = self._turns.pop(group)
        key = keys.popleft()
        if keys:
            # To the end of the line.
            self._turns[group] = keys
        return key

    async def _work(self) -> bool:
        """Process the key whose turn it is; return whether there was one."""
        key = self._next()
        if key is None:
            return False
        started = self._last_progress = self._now()
        waited = started - self._waiting.pop(key)
        # Whoever asked for a run until now gets it with this one.
        self._due.pop(key, None)
        group = self._group(key)
        self._running.add(key)
        self._running_in[group] += 1
        result = "cancelled"
        try:
            result = await self._attempt(key)
        finally:
            self._running.discard(key)
            self._running_in[group] -= 1
            if not self._running_in[group]:
                del self._running_in[group]
            self._last_progress = self._now()
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if self.observe is not None:
                self.observe(key, result, waited, self._last_progress - started)
        return True

    async def _attempt(self, key: K) -> str:
        """Process a key once; return the name of the result, and see to the next run."""
        try:
            with about(_text(key)):
                async with asyncio.timeout(self._timeout):
                    again = await self._process(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the key is run again
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = self._delay(failures, getattr(error, "retry_after", None))
            self._report(_text(key), error, failures=failures, delay=delay)
            self.add_after(key, delay)
            return type(error).__name__
        self._failures.pop(key, None)
        if again is not None:
            self.add_after(key, max(again, 0.0) or _SOON)
        return "success"

    def _delay(self, failures: int, retry_after: float | None) -> float:
        """Return how long a key that failed waits; never all failed keys for the same time."""
        if retry_after is not None:
            return max(retry_after, _SOON) * (1 + 0.25 * self._rand())
        delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, 32), LONGEST_DELAY)
        return delay * (0.75 + 0.25 * self._rand())

    @staticmethod
    def _report(key: str, error: Exception, *, failures: int, delay: float) -> None:
        if isinstance(error, (ReconcileError, KubeError)):
            logger.warning("%s: %s; run again in %.1f s (failure %d)", key, error, delay, failures)
        elif isinstance(error, TimeoutError):
            logger.warning("%s: took too long; run again in %.1f s (failure %d)", key, delay, failures)
        else:
            logger.error("%s: run again in %.1f s (failure %d)", key, delay, failures, exc_info=error)

    def _set_timer(self) -> None:
        """Wake up when the next delayed key is due."""
        while self._timers and self._due.get(self._timers[0][2]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        if not self._timers or not self._open:
            return
        when = self._timers[0][0]
        if self._wake is not None:
            if self._wake.when() == when:
                return
            self._wake.cancel()
        self._wake = asyncio.get_running_loop().call_at(when, self._on_time)

    def _on_time(self) -> None:
        """Add the keys that are due."""
        self._wake = None
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            when, _, key = heapq.heappop(self._timers)
            if self._due.get(key) == when:
                del self._due[key]
                self.add(key)
        self._set_timer()


def _text(key: object) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)

"""What the store does by itself: sweeping, and reading again what it keeps. In threads of their own, at leisure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from gpux.blobs import Blobs, Retention
from gpux.log import log
from gpux.store.metrics import Metrics

_FIRST_SECONDS = 60.0
_SCRUB_CHECK_SECONDS = 600.0
_DAY = 86_400.0


class Habits(NamedTuple):
    """How the store looks after itself."""

    sweep_seconds: float
    """Between two sweeps; 0: none."""
    retention: Retention
    scrub_days: float
    """Within which everything is read again; 0: never."""
    scrub_rate: float
    """Bytes per second of it."""


class Upkeep:
    """The two threads. They hold nothing up: the process may end in the middle of either."""

    def __init__(self, blobs: Blobs, metrics: Metrics, habits: Habits) -> None:
        self._blobs = blobs
        self._metrics = metrics
        self._habits = habits
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin, a little later: right after a start others have much to do."""
        habits = self._habits
        if habits.sweep_seconds:
            self._thread(
                self.sweep, first=min(_FIRST_SECONDS, habits.sweep_seconds), every=habits.sweep_seconds
            )
        if habits.scrub_days:
            self._thread(self.scrub, first=_FIRST_SECONDS, every=_SCRUB_CHECK_SECONDS)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop.set()

    def sweep(self) -> None:
        """Sweep once."""
        swept = self._blobs.sweep(self._habits.retention)
        self._metrics.sweeps.inc()
        self._metrics.swept_objects.inc(swept.objects)
        self._metrics.swept_bytes.inc(swept.size)
        if any(swept):
            log("info", "swept", **swept._asdict())

    def scrub(self) -> None:
        """Read on, if it is time."""
        found = self._blobs.scrub(every=self._habits.scrub_days * _DAY, pause=self._pause)
        self._metrics.quarantined.inc(found.quarantined)
        self._metrics.unreadable.inc(found.unreadable)
        if any(found):
            log("error" if found.quarantined or found.unreadable else "info", "scrubbed", **found._asdict())

    def _pause(self, size: int) -> bool:
        self._metrics.scrubbed_bytes.inc(size)
        return not self._stop.wait(size / self._habits.scrub_rate)

    def _thread(self, step: Callable[[], None], *, first: float, every: float) -> None:
        def run() -> None:
            pause = first
            while not self._stop.wait(pause):
                pause = every
                try:
                    step()
                except Exception as error:  # noqa: BLE001 the next one may do better
                    self._metrics.upkeep_failures.labels(step.__name__).inc()
                    log("error", "upkeep failed", step=step.__name__, error=repr(error))

        threading.Thread(target=run, name=step.__name__, daemon=True).start()

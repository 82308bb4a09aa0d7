"""The whole reports on sources' files, at the store; a status lists only so many findings.

Nothing waits for the store: what it can't take now is offered again later, by whoever finds its report missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from gpux.client import StoreClient, StoreRefused, StoreUnavailable
from opengpu_operator.api.findings import FileReport
from opengpu_operator.api.source import StoredReport

logger = logging.getLogger(__name__)

#: How long one report may hold up the status that names it.
PATIENCE_SECONDS = 3.0
FIRST_DELAY = timedelta(seconds=15)
LONGEST_DELAY = timedelta(minutes=10)


class Reports:
    """Puts reports into the store. After a failure nobody tries for a while, whichever source it is for."""

    def __init__(self, *, store: StoreClient, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._delay = FIRST_DELAY
        self._retry_at: datetime | None = None

    @property
    def delay(self) -> float:
        """In how many seconds the store is tried again; 0 is now."""
        if self._retry_at is None:
            return 0.0
        return max(0.0, (self._retry_at - self._clock()).total_seconds())

    async def keep(
        self, namespace: str, source: str, report: FileReport, *, known: StoredReport | None
    ) -> StoredReport | None:
        """Return where a report on the source with that UID is kept; None if the store can't take it now.

        What is ``known`` is there already.
        """
        content = report.canonical()
        if known is not None and known.sha1 == hashlib.sha1(content, usedforsecurity=False).hexdigest():
            return known
        if self.delay:
            return None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                stored = await self._store.put_file(namespace, content, reference=_reference(source))
        except (StoreUnavailable, StoreRefused, TimeoutError) as error:
            self._failed(error)
            return None
        self._delay, self._retry_at = FIRST_DELAY, None
        return StoredReport(sha1=stored["sha1"], size=stored["size"])

    async def forget(self, source: str) -> None:
        """Let the store forget the reports on a source that is going. It isn't waited for: they are small."""
        if self.delay:
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._store.drop_reference(_reference(source))
        except (StoreUnavailable, StoreRefused, TimeoutError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self.delay:
            # Several tried at the same time: that is one failure.
            return
        logger.warning("the store does nothing about reports: %s", str(error) or type(error).__name__)
        self._retry_at = self._clock() + self._delay
        self._delay = min(self._delay * 2, LONGEST_DELAY)


def _reference(source: str) -> str:
    return f"keep:{source}"

"""Calls at the store, as this process knows them: one entry per task, fed by the store's change feed.

The feed replays everything when this process or the store restarts, so the entries are a cache that may be lost at
any time. A call is put again whenever nothing is known of it, which the store makes idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any

from gpux.client import StoreClient, StoreRefused, StoreUnavailable

logger = logging.getLogger(__name__)

Record = dict[str, Any]


class Calls:
    """The newest attempt of each task's call."""

    def __init__(
        self,
        *,
        store: StoreClient,
        changed: Callable[[str, str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """``changed(namespace, task uid)`` is told of every change."""
        self._store = store
        self._changed = changed
        self._clock = clock
        self._states: dict[str, tuple[int, str]] = {}
        self._records: dict[tuple[str, int], Record] = {}
        self.since: datetime | None = None
        """Since when the store is there; None while it is away. What it missed, agents tell it a little later."""

    def state(self, task: str) -> tuple[int, str] | None:
        """Return (attempt, state) of the newest attempt that the store is known to have."""
        return self._states.get(task)

    async def put(
        self,
        *,
        namespace: str,
        task: str,
        attempt: int,
        function: str,
        address: str,
        data: Any,
        deadline: float,
    ) -> None:
        """Offer an attempt to the agents of a task; the same attempt again changes nothing."""
        try:
            await self._store.put_call(
                namespace=namespace,
                task=task,
                attempt=attempt,
                function=function,
                address=address,
                data=data,
                deadline=deadline,
            )
        except StoreRefused as error:
            # The attempt is there already, with a deadline from other settings: what was offered first stands.
            if error.status != HTTPStatus.CONFLICT:
                raise
        known = self._states.get(task)
        if known is None or known[0] < attempt:
            self._states[task] = (attempt, "queued")

    async def record(self, task: str, attempt: int, *, fresh: bool = False) -> Record:
        """Return the store's record of an attempt, from memory while its state is the one last announced.

        ``fresh``: the store is asked all the same, since it may be away, and announce nothing.
        """
        state = self._states.get(task)
        cached = self._records.get((task, attempt))
        if not fresh and cached is not None and state == (attempt, cached["state"]):
            return cached
        try:
            record = await self._store.get_call(task, attempt)
        except StoreUnavailable:
            # Seen before the feed does, whose request may still hang.
            self.since = None
            raise
        self._records[task, attempt] = record
        return record

    def lost(self, task: str) -> None:
        """Have a call offered again: the store has no record of it."""
        self._states.pop(task, None)

    async def file(self, namespace: str, sha1: str, *, limit: int) -> bytes:
        """Return a file of a namespace, of at most ``limit`` bytes."""
        return await self._store.get_file(namespace, sha1, limit=limit)

    async def tasks(self) -> list[tuple[str, str]]:
        """Return (namespace, UID) of every task that the store has anything of."""
        return [(entry["namespace"], entry["task"]) for entry in await self._store.list_tasks()]

    async def forget(self, task: str) -> None:
        """Remove a task's calls, and its hold on files, from the store, and the calls from memory."""
        await self._store.delete_task(task)
        known = self._states.pop(task, None)
        if known is not None:
            for attempt in range(1, known[0] + 1):
                self._records.pop((task, attempt), None)

    async def follow(self) -> None:
        """Follow the change feed until cancelled; a store that is away is waited for."""
        after, epoch = 0, ""
        delay, following = 0.2, False
        while True:
            try:
                feed = await self._store.changes(after=after, epoch=epoch, wait=25)
            except (StoreUnavailable, StoreRefused) as error:
                if following:
                    logger.warning("the store is unavailable: %s", error)
                following, self.since = False, None
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10)
                continue
            delay = 0.2
            if not following:
                logger.info("following the store's changes")
            following = True
            if self.since is None or feed["epoch"] != epoch:
                # Another epoch is another process of the store's: for a moment there was none.
                self.since = self._clock()
            after, epoch = feed["last"], feed["epoch"]
            for change in feed["changes"]:
                known = self._states.get(change["task"])
                new = (change["attempt"], change["state"])
                if known == new:
                    # The echo of what was put here.
                    continue
                if known is None or known[0] <= new[0]:
                    self._states[change["task"]] = new
                self._changed(change["namespace"], change["task"])

"""Calls at the store, as this process knows them: one entry per task, fed by the store's change feed.

The feed replays everything when this process or the store restarts, so the entries are a cache that may be lost at
any time. A call is put again whenever nothing is known of it, which the store makes idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from gpux.client import StoreClient, StoreRefused, StoreUnavailable

logger = logging.getLogger(__name__)

Record = dict[str, Any]


class Calls:
    """The newest attempt of each task's call."""

    def __init__(self, *, store: StoreClient, changed: Callable[[str, str], None]) -> None:
        """``changed(namespace, task uid)`` is told of every change."""
        self._store = store
        self._changed = changed
        self._states: dict[str, tuple[int, str]] = {}
        self._records: dict[tuple[str, int], Record] = {}
        self.available = False
        """Whether the store answered last time; nothing is concluded from silence while it doesn't."""

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

    async def record(self, task: str, attempt: int) -> Record:
        """Return the store's record of an attempt, from memory while its state is the one last announced."""
        state = self._states.get(task)
        cached = self._records.get((task, attempt))
        if cached is not None and state == (attempt, cached["state"]):
            return cached
        record = await self._store.get_call(task, attempt)
        self._records[task, attempt] = record
        return record

    def refresh(self, task: str, attempt: int) -> None:
        """Have the next :meth:`record` ask the store."""
        self._records.pop((task, attempt), None)

    def lost(self, task: str) -> None:
        """Have a call offered again: the store has no record of it."""
        self._states.pop(task, None)

    async def file(self, namespace: str, sha1: str, *, limit: int) -> bytes:
        """Return a file of a namespace, of at most ``limit`` bytes."""
        return await self._store.get_file(namespace, sha1, limit=limit)

    async def forget(self, task: str) -> None:
        """Remove a task's calls from the store and from memory."""
        await self._store.delete_calls(task)
        known = self._states.pop(task, None)
        if known is not None:
            for attempt in range(1, known[0] + 1):
                self._records.pop((task, attempt), None)

    def known(self) -> list[str]:
        """Return the UIDs of all tasks that the store holds calls of."""
        return list(self._states)

    async def follow(self) -> None:
        """Follow the change feed until cancelled; a store that is away is waited for."""
        after, epoch = 0, ""
        delay = 0.2
        while True:
            try:
                feed = await self._store.changes(after=after, epoch=epoch, wait=25)
            except StoreUnavailable as error:
                if self.available:
                    logger.warning("the store is unavailable: %s", error)
                self.available = False
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10)
                continue
            delay = 0.2
            if not self.available:
                logger.info("following the store's changes")
            self.available = True
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

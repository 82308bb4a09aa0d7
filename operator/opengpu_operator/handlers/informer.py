"""Hands on what kopf sees, and knows whether that is everything.

kopf has a gate of its own: declare an index per kind, and event handlers wait until all kinds are listed. It isn't
used, because each object that waits is woken for each object that arrives: 2,500 objects took nine seconds of CPU,
and it grows with the square. Instead, everything is handed on at once, and the API server is asked what there is
(names and versions only): once kopf has shown all of that, its lists are complete.

The same question, asked again from time to time, finds what a watch missed: kopf lists again after a gap, but doesn't
tell of what was deleted meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import kopf

from opengpu_operator.handlers.watched import OPTIONAL, field_selector, label_selector, watched
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import KubeError, NotFound
from opengpu_operator.kube.gateway import Gateway, Listing
from opengpu_operator.kube.kinds import CONFIG_MAP, NAMESPACE, Kind
from opengpu_operator.settings import Settings

logger = logging.getLogger(__name__)

Observe = Callable[[Kind, str | None, Mapping[str, Any]], None]

#: Between two looks whether kopf has listed everything.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: A watch may be this much behind before it is called so.
_LAG_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Scope:
    """Where is watched: the whole cluster, or the namespaces that match."""

    settings: Settings

    @property
    def clusterwide(self) -> bool:
        """Whether the whole cluster is watched."""
        return not self.settings.namespaces.watch

    async def list(self, gateway: Gateway, kind: Kind) -> list[tuple[str | None, Listing]]:
        """Return the metadata of all that should be seen of a kind, by namespace (None: the cluster)."""
        places: list[str | None] = [None]
        if kind.namespaced and not self.clusterwide:
            names = [item["metadata"]["name"] for item in await gateway.list(NAMESPACE, metadata_only=True)]
            places = [
                name
                for name in names
                if any(fnmatch.fnmatch(name, glob) for glob in self.settings.namespaces.watch)
            ]
        return [
            (
                place,
                await gateway.list(
                    kind,
                    place,
                    label_selector=label_selector(kind),
                    field_selector=field_selector(kind, self.settings),
                    metadata_only=True,
                ),
            )
            for place in places
        ]


class Informer:
    """Registers the handlers, and compares what they see with what there is."""

    def __init__(self, *, scope: Scope, gateway: Gateway, cache: Cache, observe: Observe) -> None:
        """``observe`` is told of every object that is seen, and how: None from a list, ADDED, MODIFIED, DELETED."""
        self._scope = scope
        self._gateway = gateway
        self._cache = cache
        self._observe = observe
        self._watched = watched(scope.settings)
        self._seen: dict[Kind, set[str]] | None = {kind: set() for kind in self._watched}
        self._missing: set[str] = set()
        """What the API server has of the kind that is waited for, and kopf hasn't shown yet."""
        self._shown = asyncio.Event()
        self.synced = asyncio.Event()
        """Set once every kind was listed. Nothing may be reconciled before."""
        self.behind: dict[Kind, int] = {}
        """Kinds whose watch missed something, and in how many checks on end."""
        self.last_event: dict[Kind, float] = {}
        """When anything was last seen of a kind (monotonic)."""

    @property
    def clusterwide(self) -> bool:
        """Whether the whole cluster is watched."""
        return self._scope.clusterwide

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Register a handler for every kind."""
        for kind in self._watched:
            self._register(registry, kind)

    def _register(self, registry: kopf.OperatorRegistry, kind: Kind) -> None:
        @kopf.on.event(
            group=kind.group, version=kind.version, plural=kind.plural, id="seen", registry=registry
        )
        async def seen(event: kopf.RawEvent, **_: object) -> None:
            obj: Mapping[str, Any] = event["object"]
            self.last_event[kind] = time.monotonic()
            if self._seen is not None:
                self._seen[kind].add(obj["metadata"]["uid"])
                self._missing.discard(obj["metadata"]["uid"])
                if not self._missing:
                    self._shown.set()
            self._hand_on(kind, event["type"], obj)

    def _hand_on(self, kind: Kind, type_: str | None, obj: Mapping[str, Any]) -> None:
        try:
            self._observe(kind, type_, obj)
        except Exception:
            # kopf would swallow it, and one odd object mustn't stop the others.
            metadata = obj.get("metadata") or {}
            logger.exception(
                "%s %s/%s can't be taken over", kind, metadata.get("namespace"), metadata.get("name")
            )

    async def wait(self) -> None:
        """Return once kopf has shown everything that there is; sets ``synced``."""
        started = time.monotonic()
        for kind in self._watched:
            await self._wait_for(kind)
        self._seen = None
        self.synced.set()
        logger.info("every kind is listed, after %.1f s", time.monotonic() - started)

    async def _wait_for(self, kind: Kind) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                # What is deleted before kopf lists is never shown: so the question is asked anew each time.
                expected = _uids(listing for _, listing in await self._scope.list(self._gateway, kind))
            except KubeError as error:
                logger.warning("%s can't be listed: %s", kind.plural, error)
                if isinstance(error, NotFound) and kind in OPTIONAL:
                    # The cluster doesn't know the kind: tasks say so, and go on without URLs. Once it is defined,
                    # kopf begins to watch it.
                    return
                await asyncio.sleep(pause)
            else:
                self._missing = expected - (self._seen or {}).get(kind, set())
                if not self._missing:
                    return
                self._shown.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._shown.wait(), pause)
                    return
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def audit(self) -> None:
        """Compare what we know with what there is; make good what the watches missed."""
        for kind in self._watched:
            try:
                missed = await self._audit(kind)
            except KubeError as error:
                logger.warning("%s can't be audited: %s", kind.plural, error)
                continue
            if missed:
                self.behind[kind] = self.behind.get(kind, 0) + 1
                logger.warning("the watch of %s missed %d changes", kind.plural, missed)
            else:
                self.behind.pop(kind, None)

    async def _audit(self, kind: Kind) -> int:
        """Return how many changes of a kind a watch missed."""
        missed = 0
        for place, listing in await self._scope.list(self._gateway, kind):
            version = listing.resource_version
            # Users' ConfigMaps aren't kept.
            stale = self._stale(kind, listing) if kind != CONFIG_MAP else []
            if not stale and not self._cache.absent(kind, listing, resource_version=version, namespace=place):
                continue
            # They may be on their way.
            await asyncio.sleep(_LAG_SECONDS)
            for obj in self._cache.absent(kind, listing, resource_version=version, namespace=place):
                missed += 1
                self._hand_on(kind, "DELETED", obj)
            for entry in self._stale(kind, stale):
                metadata = entry["metadata"]
                found = await self._gateway.get(kind, metadata.get("namespace"), metadata["name"])
                if found is not None:
                    self._hand_on(kind, None, found)
                    # What is outside of our namespaces isn't kept, so nothing was missed.
                    missed += self._cache.knows(kind, found)
        return missed

    def _stale(self, kind: Kind, listing: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return what a list has in a newer version than we know."""
        return [obj for obj in listing if not self._cache.knows(kind, obj)]


def _uids(listings: Iterable[Listing]) -> set[str]:
    return {obj["metadata"]["uid"] for listing in listings for obj in listing}

"""Ties the parts together: what the watches say goes into the cache and, as keys, into the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from gpux.blobs import PUBLIC
from gpux.client import StoreClient, StoreRefused, StoreUnavailable
from opengpu_operator.api.errors import Transient
from opengpu_operator.api.labels import MANAGED_BY, MANAGER, OWNER_NAME, REQUIRE_OWNER_PROOF, TASK_UID
from opengpu_operator.api.reasons import Reason
from opengpu_operator.compose.client import TranslatorClient
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    NAMESPACE,
    NODE,
    PVC,
    SOURCE,
    TASK,
    Kind,
)
from opengpu_operator.reconcile.calls import Calls
from opengpu_operator.reconcile.owners import OwnerStorage, is_owners
from opengpu_operator.reconcile.queue import KeyedQueue
from opengpu_operator.reconcile.release import Release
from opengpu_operator.reconcile.reports import Reports
from opengpu_operator.reconcile.source import SourceReconciler
from opengpu_operator.reconcile.task import TaskReconciler
from opengpu_operator.reconcile.translations import Translations
from opengpu_operator.reconcile.tunnels import Tunnels
from opengpu_operator.settings import Settings

logger = logging.getLogger(__name__)

#: A source counts its tasks in its status, and a volume its users; this many seconds of changes become one look.
COUNT_DELAY = 5.0

Key = tuple[str, str, str]
"""(plural of the kind or one of the chores below, namespace, name or the task's UID)"""

#: A task was seen to be deleted: its calls go.
_FORGET = "forget"
#: The store has calls of a task that the watches don't show: its calls go once the API server says so too.
_SWEEP = "sweep"
#: The storage of an owner is, or was, in use: that is written down, and its end is seen to.
_OWNER = "owner-storage"
#: A task's claim got a volume: it goes with the claim, whatever its class says.
_VOLUME = "volume"
#: What a task that was deleted in our absence may have left behind: its volumes, and what the store has of it.
_LEFTOVERS = "leftovers"


class App:
    """The operator's core, without kopf and without a process around it."""

    def __init__(
        self,
        *,
        settings: Settings,
        gateway: Gateway,
        cache: Cache,
        recorder: Recorder,
        translator: TranslatorClient,
        store: StoreClient,
        store_key: Callable[[], bytes],
        resolvers: list[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._cache = cache
        self._excluded = {settings.namespace, *settings.namespaces.excluded}
        self.queue: KeyedQueue[Key] = KeyedQueue(
            self._reconcile, workers=settings.reconcile.workers, group=lambda key: key[1]
        )
        self._tasks_by_uid: dict[str, tuple[str, str]] = {}
        self.calls = Calls(store=store, changed=self._call_changed, clock=clock)
        translations = Translations(gateway=gateway, cache=cache)
        self._tunnels = Tunnels(
            settings=settings.tunnels,
            gateway=gateway,
            cache=cache,
            changed=self._tunnel_found,
            clock=clock,
        )
        self._owners = OwnerStorage(
            settings=settings.storage, gateway=gateway, cache=cache, recorder=recorder, clock=clock
        )
        self._release = Release(gateway=gateway, cache=cache)
        self._tasks = TaskReconciler(
            settings=settings,
            gateway=gateway,
            cache=cache,
            recorder=recorder,
            calls=self.calls,
            translations=translations,
            tunnels=self._tunnels,
            storage=self._owners,
            counted=self._task_counts,
            store_key=store_key,
            resolvers=resolvers,
            clock=clock,
        )
        self._sources = SourceReconciler(
            settings=settings,
            gateway=gateway,
            cache=cache,
            recorder=recorder,
            translator=translator,
            translations=translations,
            reports=Reports(store=store, clock=clock),
            changed=self._source_changed,
            revision_of=self._tasks.revision_of,
            clock=clock,
        )

    # --- what the watches say ---------------------------------------------------------------------------------------

    def observe(self, kind: Kind, type_: str | None, obj: Mapping[str, Any]) -> None:
        """Take one watch event (type None: from the initial list). Never awaits, never fails."""
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if namespace in self._excluded:
            return
        if kind == NAMESPACE:
            self._namespace_seen(type_, obj)
            return
        if type_ == "DELETED":
            self._cache.drop(kind, namespace, name, metadata["uid"])
            changed = True
        elif kind == CONFIG_MAP and not _managed(obj):
            # Somebody's file or data: not kept, only taken as a sign to look again.
            changed = True
        else:
            before = self._cache.get(kind, namespace, name)
            changed = self._cache.put(kind, obj)
            if changed and kind == TASK and before and before["metadata"]["uid"] != metadata["uid"]:
                # It has the name of one whose deletion nobody told us of.
                self._task_gone(before)
        if kind == PVC and (volume := self._release.seen(type_, obj)) is not None:
            self.queue.add((_VOLUME, namespace, volume))
        if changed:
            self._enqueue(kind, type_, obj)

    def _namespace_seen(self, type_: str | None, obj: Mapping[str, Any]) -> None:
        name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
        if type_ == "DELETED":
            # What was in it is gone too, and each deletion is seen by itself.
            self._cache.drop(NAMESPACE, "", name, uid)
            return
        before = self._works(name)
        self._cache.put(NAMESPACE, obj)
        if self._works(name) == before:
            return
        for kind in (SOURCE, TASK):
            for inside in self._cache.all(kind, name):
                self.queue.add((kind.plural, name, inside["metadata"]["name"]))
        for claim in self._cache.all(PVC, name):
            if is_owners(claim):
                self.queue.add((_OWNER, name, claim["metadata"]["name"]))

    def _ours(self, namespace: str) -> bool:
        """Return whether the selector lets us work in a namespace.

        What is in the others is seen all the same: watches start in any order, and labels come and go. In a namespace
        that isn't seen yet, or no longer, nothing is done; its own event brings back what is in it.
        """
        seen = self._cache.get(NAMESPACE, "", namespace)
        if seen is None:
            return False
        labels = seen["metadata"].get("labels") or {}
        return all(labels.get(key) == value for key, value in self._settings.namespaces.selector.items())

    def _works(self, namespace: str) -> tuple[object, ...]:
        """Return what of a namespace decides how we work in it."""
        seen = self._cache.get(NAMESPACE, "", namespace) or {}
        annotations = seen.get("metadata", {}).get("annotations") or {}
        proof = annotations.get(REQUIRE_OWNER_PROOF)
        return self._ours(namespace), self._cache.terminating(namespace), proof

    def _enqueue(self, kind: Kind, type_: str | None, obj: Mapping[str, Any]) -> None:
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if kind == TASK:
            self._task_seen(type_, obj)
        elif kind == SOURCE:
            self.queue.add((SOURCE.plural, namespace, name))
            self._source_changed(namespace, name)
        elif kind == CONFIG_MAP and not _managed(obj):
            self._referrers(namespace, name)
        elif kind == CONTROLLER_REVISION:
            for owner in metadata.get("ownerReferences") or []:
                self.queue.add((SOURCE.plural, namespace, owner["name"]))
                self._source_changed(namespace, owner["name"])
        elif kind == NODE:
            # A new node may hold what none could; tasks that wait for one are looked at again.
            for key in list(self._tasks_by_uid.values()):
                if self._waits_for_nodes(*key):
                    self.queue.add((TASK.plural, *key))
        elif kind == PVC and is_owners(obj):
            self._owner_storage_seen(type_, obj)
        else:
            owner_uid = (metadata.get("labels") or {}).get(TASK_UID)
            task = self._tasks_by_uid.get(owner_uid) if owner_uid else None
            if task is not None:
                self.queue.add((TASK.plural, *task))

    def _owner_storage_seen(self, type_: str | None, claim: Mapping[str, Any]) -> None:
        """Look after an owner's claim, and at the tasks that it may have become large enough for."""
        metadata = claim["metadata"]
        if type_ == "DELETED":
            self._owners.forget(metadata["uid"])
        self.queue.add((_OWNER, metadata["namespace"], metadata["name"]))
        for task in self._cache.tasks_of_owner(metadata["namespace"], metadata["annotations"][OWNER_NAME]):
            self.queue.add((TASK.plural, metadata["namespace"], task["metadata"]["name"]))

    def _owner_storage_used(self, namespace: str, owner: str) -> None:
        """Look at the storage of an owner of whom a task has come, ended or gone."""
        for claim in self._owners.claims(namespace, owner):
            self.queue.add_after((_OWNER, namespace, claim), COUNT_DELAY)

    def _task_seen(self, type_: str | None, obj: Mapping[str, Any]) -> None:
        if type_ == "DELETED":
            self._task_gone(obj)
            return
        metadata = obj["metadata"]
        self._tasks_by_uid[metadata["uid"]] = (metadata["namespace"], metadata["name"])
        self.queue.add((TASK.plural, metadata["namespace"], metadata["name"]))
        self._count(obj)

    def _task_gone(self, obj: Mapping[str, Any]) -> None:
        """Drop what is known of a task. What the store has of it goes wherever it was: its namespace may be gone."""
        metadata = obj["metadata"]
        self._tasks_by_uid.pop(metadata["uid"], None)
        self._tasks.forget(metadata["uid"])
        self.queue.add((_FORGET, metadata["namespace"], metadata["uid"]))
        self._count(obj)

    def _count(self, task: Mapping[str, Any]) -> None:
        """Have a task's source count its tasks, and see to the storage that it uses or has ceased to use."""
        namespace, spec = task["metadata"]["namespace"], task.get("spec", {})
        if spec.get("owner"):
            self._owner_storage_used(namespace, spec["owner"])
        reference = spec.get("sourceRef", {}).get("name")
        if reference:
            self.queue.add_after((SOURCE.plural, namespace, reference), COUNT_DELAY)

    def _referrers(self, namespace: str, config_map: str) -> None:
        for source in self._cache.all(SOURCE):
            if source["metadata"]["namespace"] != namespace:
                continue
            files = (source.get("spec", {}).get("imageEnvs") or {}).values()
            if any((file.get("configMapKeyRef") or {}).get("name") == config_map for file in files):
                self._sources.content_changed(namespace, source["metadata"]["name"])
                self.queue.add((SOURCE.plural, namespace, source["metadata"]["name"]))
        for namespace_of, name in list(self._tasks_by_uid.values()):
            task = self._cache.get(TASK, namespace_of, name) if namespace_of == namespace else None
            reference = ((task or {}).get("spec", {}).get("dataFrom") or {}).get("configMapKeyRef") or {}
            if reference.get("name") == config_map:
                self.queue.add((TASK.plural, namespace, name))

    def _waits_for_nodes(self, namespace: str, name: str) -> bool:
        task = self._cache.get(TASK, namespace, name) or {}
        conditions = task.get("status", {}).get("conditions") or []
        return any(
            condition["type"] == "Ready"
            and condition["reason"] in {Reason.NO_NODE_FITS, Reason.SOURCE_NOT_READY}
            for condition in conditions
        )

    def _source_changed(self, namespace: str, name: str) -> None:
        for task in self._cache.tasks_of(namespace, name):
            self.queue.add((TASK.plural, namespace, task["metadata"]["name"]))

    def _task_counts(self, namespace: str, source: str, owner: str | None) -> None:
        self.queue.add_after((SOURCE.plural, namespace, source), COUNT_DELAY)
        if owner is not None:
            self._owner_storage_used(namespace, owner)

    def _call_changed(self, namespace: str, uid: str) -> None:
        task = self._tasks_by_uid.get(uid)
        if task is not None:
            self.queue.add((TASK.plural, *task))
        else:
            self.queue.add((_SWEEP, namespace, uid))

    def _tunnel_found(self, uid: str) -> None:
        task = self._tasks_by_uid.get(uid)
        if task is not None:
            self.queue.add((TASK.plural, *task))

    # --- work -----------------------------------------------------------------------------------------------------

    async def _reconcile(self, key: Key) -> float | None:
        plural, namespace, name = key
        if plural == TASK.plural:
            return await self._tasks.reconcile(namespace, name) if self._ours(namespace) else None
        if plural == SOURCE.plural:
            # Whatever its labels: the end of a namespace would wait for the finalizers of the sources in it.
            works = self._ours(namespace) or self._cache.terminating(namespace)
            return await self._sources.reconcile(namespace, name) if works else None
        if plural == _OWNER:
            works = self._ours(namespace) and not self._cache.terminating(namespace)
            return await self._owners.reconcile(namespace, name) if works else None
        if plural == _VOLUME:
            await self._release.reconcile(name)
            return None
        if plural == _LEFTOVERS:
            return await self._leftovers()
        if plural == _SWEEP:
            # What the store holds in no tenant's namespace may be anybody's.
            alive = await self._gateway.list(TASK, namespace if namespace != PUBLIC else None)
            if any(task["metadata"]["uid"] == name for task in alive):
                return None
        return await self._forget(name)

    async def _forget(self, uid: str) -> float | None:
        """Remove what the store has of a task that is gone: its calls, and what only it referred to."""
        try:
            await self.calls.forget(uid)
        except StoreUnavailable as error:
            raise Transient(Reason.STORE_UNAVAILABLE, str(error)) from error
        except StoreRefused:
            logger.exception("the store refused to forget %s", uid)
        return None

    async def _leftovers(self) -> float | None:
        """Find what is left of tasks that were deleted while nobody looked.

        Who isn't in the cache isn't gone for that: the API server is asked about each before anything is removed.
        """
        await self._release.sweep(self._tasks_by_uid)
        try:
            for namespace, uid in await self.calls.tasks():
                if uid not in self._tasks_by_uid:
                    self.queue.add((_SWEEP, namespace, uid))
        except StoreUnavailable as error:
            raise Transient(Reason.STORE_UNAVAILABLE, str(error)) from error
        except StoreRefused:
            logger.exception("the store doesn't say which tasks it knows")
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``: the queue's workers, the readers of logs, the store's feed and the resync tick."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run(stop))
            group.create_task(self._tunnels.run(stop))
            self.queue.add((_LEFTOVERS, "", ""))
            endless = [group.create_task(self.calls.follow()), group.create_task(self._resync())]
            await stop.wait()
            for task in endless:
                task.cancel()

    async def _resync(self) -> None:
        """Put every key on the queue now and then, so that no missed event is missed for ever."""
        while True:
            await asyncio.sleep(self._settings.reconcile.resync_seconds)
            for kind in (SOURCE, TASK):
                for obj in self._cache.all(kind):
                    self.queue.add((kind.plural, obj["metadata"]["namespace"], obj["metadata"]["name"]))
            self.queue.add((_LEFTOVERS, "", ""))


def _managed(obj: Mapping[str, Any]) -> bool:
    return bool((obj["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER)

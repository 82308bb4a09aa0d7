"""What the watches say, and what is reconciled for it. The API server and the store are dicts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import looptime
import pytest

from gpux.blobs import PUBLIC
from gpux.client import StoreClient
from opengpu_operator.api.labels import (
    MANAGED_BY,
    MANAGER,
    OWNER,
    OWNER_NAME,
    REQUIRE_OWNER_PROOF,
    SOURCE_IN_USE_FINALIZER,
    TASK_UID,
)
from opengpu_operator.api.task import Task
from opengpu_operator.compose.client import TranslatorClient
from opengpu_operator.desired.names import user_volume
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import Unavailable
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway, Listing
from opengpu_operator.kube.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    INGRESS,
    JOB,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    PERSISTENT_VOLUME,
    POD,
    PVC,
    SERVICE,
    SOURCE,
    TASK,
    Kind,
)
from opengpu_operator.reconcile.app import App
from opengpu_operator.reconcile.queue import LONGEST_DELAY
from opengpu_operator.settings import Settings

TASK_KEY = ("opengputasks", "team", "ask")
SOURCE_KEY = ("opengpusources", "team", "ocr")

_versions = itertools.count(1)


def obj(name: str, *, uid: str | None = None, namespace: str = "team", **parts: Any) -> dict[str, Any]:
    """Return an object as a watch delivers it, newer than all before."""
    metadata = {
        "name": name,
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(next(_versions)),
        "generation": 1,
        "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **({"namespace": namespace} if namespace else {}),
        **parts.pop("metadata", {}),
    }
    return {"metadata": metadata, **parts}


def task(uid: str = "uid-ask", *, name: str = "ask", namespace: str = "team", **spec: Any) -> dict[str, Any]:
    return obj(
        name,
        uid=uid,
        namespace=namespace,
        spec={"sourceRef": {"name": "ocr"}, "functionName": "read", **spec},
    )


def space(name: str = "team", *, metadata: dict[str, Any] | None = None, **labels: str) -> dict[str, Any]:
    return obj(name, namespace="", metadata={"labels": labels, **(metadata or {})})


class Cluster:
    """The part of a Gateway that a task without a source needs."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, str]] = []
        """(kind, name, reason of Ready) of each status that was written"""
        self.tasks: list[dict[str, Any]] = []
        self.released: list[str] = []
        self.log = b""
        """Of every container."""
        self.error: Exception | None = None
        """What every list fails with."""

    async def replace_status(
        self, kind: Kind, namespace: str, name: str, status: dict[str, Any], *, uid: str, **_: object
    ) -> dict[str, Any]:
        ready = next(entry for entry in status["conditions"] if entry["type"] == "Ready")
        self.written.append((kind.plural, name, ready["reason"]))
        return task(uid, name=name, namespace=namespace) | {"status": status}

    async def merge_patch(
        self, kind: Kind, namespace: str, name: str, patch: dict[str, Any], **_: object
    ) -> dict[str, Any]:
        assert kind == SOURCE
        assert patch["metadata"]["finalizers"] == []
        self.released.append(name)
        return obj(name, namespace=namespace, spec={"suspend": True})

    async def pod_log(self, *_: object, **__: object) -> bytes:
        return self.log

    async def list(self, kind: Kind, namespace: str | None = None, **_: object) -> Listing:
        if self.error is not None:
            raise self.error
        if kind == PERSISTENT_VOLUME:
            return Listing()
        assert kind == TASK
        return Listing(found for found in self.tasks if namespace in {None, found["metadata"]["namespace"]})


class Store:
    """The part of a StoreClient that the feed and the end of a task need."""

    def __init__(self) -> None:
        self.changed: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.deleted: list[str] = []
        self.tasks: list[tuple[str, str]] = []
        """(namespace, UID) of what it has anything of"""

    async def drop_reference(self, reference: str) -> None:
        """Nobody asks for a source's reports here."""

    async def changes(self, **_: object) -> dict[str, Any]:
        return {"last": 1, "epoch": "e", "changes": [await self.changed.get()]}

    async def list_tasks(self) -> list[dict[str, Any]]:
        return [{"namespace": namespace, "task": uid} for namespace, uid in self.tasks]

    async def delete_task(self, uid: str) -> None:
        self.deleted.append(uid)


class NoEvents:
    """A Recorder that writes nothing."""

    async def event(self, *_: object, **__: object) -> None:
        return


class Operator:
    """An App over dicts."""

    def __init__(self, **namespaces: Any) -> None:
        settings = Settings.model_validate({"namespaces": namespaces})
        self.cluster, self.store, self.cache = Cluster(), Store(), Cache()
        self.app = App(
            settings=settings,
            gateway=cast("Gateway", self.cluster),
            cache=self.cache,
            recorder=cast("Recorder", NoEvents()),
            translator=TranslatorClient(Path("nowhere")),
            store=cast("StoreClient", self.store),
            store_key=lambda: b"k" * 32,
            resolvers=[],
            clock=lambda: datetime.now(UTC),
        )
        self.see = self.app.observe

    @contextlib.asynccontextmanager
    async def running(self, *, retrying: bool = False):
        stop = asyncio.Event()
        running = asyncio.create_task(self.app.run(stop))
        if retrying:
            await asyncio.sleep(1)
            assert self.app.queue.retrying
        else:
            await self.settle()
        yield
        stop.set()
        await running

    async def settle(self) -> None:
        """Wait until all that was caused is done, what waits for another try too; time jumps."""
        await asyncio.sleep(10)
        if self.app.queue.retrying:
            await asyncio.sleep(LONGEST_DELAY)
        assert (self.app.queue.depth, self.app.queue.running, self.app.queue.retrying) == (0, 0, 0)


class Keys:
    """In place of the queue: which keys were added."""

    def __init__(self) -> None:
        self.now: set[tuple[str, str, str]] = set()
        self.later: set[tuple[str, str, str]] = set()

    def add(self, key: tuple[str, str, str]) -> None:
        self.now.add(key)

    def add_after(self, key: tuple[str, str, str], delay: float) -> None:
        assert delay > 0
        self.later.add(key)


def jumping(main):
    """Run a test in an event loop whose time jumps from one timer to the next."""

    def test():
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(main())

    test.__name__ = main.__name__
    return test


# --- namespaces -------------------------------------------------------------------------------------------------------


@jumping
async def test_a_namespace_is_worked_in_once_its_labels_are_seen_and_for_as_long_as_they_fit():
    operator = Operator(selector={"gpu": "yes"})
    written = operator.cluster.written
    operator.see(TASK, None, task())
    async with operator.running():
        assert written == []
        operator.see(NAMESPACE, None, space())
        await operator.settle()
        assert written == []
        operator.see(NAMESPACE, "MODIFIED", space(gpu="yes"))
        await operator.settle()
        assert written == [("opengputasks", "ask", "SourceNotFound")]
        operator.see(NAMESPACE, "MODIFIED", space(gpu="no"))
        operator.see(TASK, "ADDED", task("uid-late", name="late"))
        operator.see(TASK, "MODIFIED", task(function="other"))
        await operator.settle()
        assert len(written) == 1
        operator.see(NAMESPACE, "MODIFIED", space(gpu="yes"))
        await operator.settle()
        assert ("opengputasks", "late", "SourceNotFound") in written


@jumping
async def test_a_task_that_is_seen_before_its_namespace_isnt_lost():
    operator = Operator()
    async with operator.running():
        operator.see(TASK, "ADDED", task())
        await operator.settle()
        assert operator.cluster.written == []
        operator.see(NAMESPACE, "ADDED", space())
        await operator.settle()
        assert operator.cluster.written == [("opengputasks", "ask", "SourceNotFound")]


def test_excluded_namespaces_arent_even_kept():
    operator = Operator(excluded=["kube-system"])
    for namespace in ("kube-system", "opengpu-system"):
        operator.see(TASK, None, task(namespace=namespace))
    assert operator.cache.all(TASK) == []


@jumping
async def test_nothing_is_tried_in_a_namespace_that_goes_or_is_gone():
    operator = Operator()
    operator.see(NAMESPACE, None, space())
    operator.see(NAMESPACE, "MODIFIED", space(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    async with operator.running():
        operator.see(TASK, "ADDED", task())
        await operator.settle()
        operator.see(NAMESPACE, "DELETED", space())
        # Its task's own deletion is still on its way; the rest of what happened isn't.
        operator.see(TASK, "MODIFIED", task(function="other"))
        operator.see(POD, "DELETED", obj("p", metadata={"labels": {TASK_UID: "uid-ask"}}))
        await operator.settle()
        assert operator.cluster.written == []
        assert operator.store.deleted == []
        operator.see(TASK, "DELETED", task())
        await operator.settle()
        assert operator.store.deleted == ["uid-ask"]


@jumping
async def test_a_namespace_that_goes_doesnt_wait_for_sources_that_nobody_works_on():
    operator = Operator(selector={"gpu": "yes"})
    going = {
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": [SOURCE_IN_USE_FINALIZER],
    }
    operator.see(SOURCE, None, obj("ocr", metadata=going, spec={"suspend": True}))
    operator.see(NAMESPACE, None, space())
    async with operator.running():
        assert operator.cluster.released == []
        operator.see(NAMESPACE, "MODIFIED", space(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
        await operator.settle()
        assert operator.cluster.released == ["ocr"]


@pytest.mark.parametrize("changed", [{}, {"other": "label"}])
def test_a_change_of_a_namespace_that_changes_nothing_for_us_wakes_nobody(changed):
    operator = Operator(selector={"gpu": "yes"})
    operator.app.queue = cast("Any", keys := Keys())
    operator.see(TASK, None, task())
    operator.see(NAMESPACE, None, space(gpu="yes"))
    keys.now.clear()
    operator.see(NAMESPACE, "MODIFIED", space(gpu="yes", **changed))
    assert keys.now == set()


# --- ends of tasks ----------------------------------------------------------------------------------------------------


@jumping
async def test_what_the_store_has_of_a_task_that_is_deleted_goes():
    operator = Operator()
    operator.see(NAMESPACE, None, space())
    operator.see(TASK, None, task())
    # Without a call it may have stored files all the same.
    operator.see(TASK, None, task("uid-job", name="job", functionName=None))
    async with operator.running():
        operator.see(TASK, "DELETED", task())
        operator.see(TASK, "DELETED", task("uid-job", name="job", functionName=None))
        await operator.settle()
        assert operator.store.deleted == ["uid-ask", "uid-job"]


@jumping
async def test_what_the_store_has_of_tasks_that_were_deleted_in_our_absence_goes():
    operator = Operator(selector={"gpu": "yes"})
    operator.see(NAMESPACE, None, space(gpu="yes"))
    operator.see(NAMESPACE, None, space("other"))
    operator.see(TASK, None, task())
    operator.see(TASK, None, task("uid-excluded", name="excluded", namespace="other"))
    # Nobody has shown this one, but it is there: the cache is no proof.
    operator.cluster.tasks = [task(), task("uid-unseen", name="unseen")]
    operator.cluster.tasks.append(task("uid-public", name="public"))
    places = {"uid-excluded": "other", "uid-public": PUBLIC}
    known = ("uid-ask", "uid-excluded", "uid-unseen", "uid-public", "uid-gone")
    operator.store.tasks = [(places.get(uid, "team"), uid) for uid in known]
    async with operator.running():
        assert operator.store.deleted == ["uid-gone"]


@jumping
async def test_nothing_goes_while_the_api_server_doesnt_answer():
    operator = Operator()
    operator.cluster.error = Unavailable("no answer")
    operator.store.tasks = [("team", "uid-gone")]
    async with operator.running(retrying=True):
        assert operator.store.deleted == []
        operator.cluster.error = None
        await operator.settle()
        assert operator.store.deleted == ["uid-gone"]


@jumping
async def test_leftovers_are_looked_for_again_and_again():
    operator = Operator()
    async with operator.running():
        operator.store.tasks = [("team", "uid-gone")]
        await asyncio.sleep(Settings().reconcile.resync_seconds)
        await operator.settle()
        assert operator.store.deleted == ["uid-gone"]


# --- volumes ----------------------------------------------------------------------------------------------------------


def claim(name: str, *, task_uid: str | None = None, owner: str | None = None, **spec: Any) -> dict[str, Any]:
    labels = {MANAGED_BY: MANAGER}
    metadata: dict[str, Any] = {"labels": labels}
    if task_uid is not None:
        labels[TASK_UID] = task_uid
        metadata["ownerReferences"] = [
            {"kind": "OpenGPUTask", "name": "ask", "uid": task_uid, "controller": True}
        ]
    if owner is not None:
        labels[OWNER] = "hash"
        metadata["annotations"] = {OWNER_NAME: owner}
    spec = {"volumeName": "pv", "storageClassName": "local", **spec}
    return obj(name, metadata=metadata, spec=spec, status={"phase": "Bound"})


def test_a_task_isnt_looked_at_again_for_the_volumes_of_its_claims():
    """There are thousands, and most of their classes let volumes go with their claims."""
    operator = Operator()
    operator.app.queue = cast("Any", keys := Keys())
    operator.see(TASK, None, task())
    keys.now.clear()
    pending = claim("job", task_uid="uid-ask") | {"status": {"phase": "Pending"}}
    operator.see(PVC, "ADDED", pending)
    assert keys.now == {TASK_KEY}
    keys.now.clear()
    bound = claim("job", task_uid="uid-ask")
    operator.see(PVC, "MODIFIED", bound)
    assert keys.now == {("volume", "team", "pv")}


def test_the_storage_of_an_owner_and_its_tasks_look_at_each_other():
    operator = Operator()
    operator.app.queue = cast("Any", keys := Keys())
    name = user_volume("team", "alice", None)
    operator.see(PVC, None, claim(name, owner="alice"))
    assert keys.now == {("owner-storage", "team", name)}
    operator.see(TASK, "ADDED", task(owner="alice"))
    assert ("owner-storage", "team", name) in keys.later
    operator.see(TASK, "ADDED", task("uid-bobs", name="bobs", owner="bob"))
    keys.now.clear()
    operator.see(PVC, "MODIFIED", claim(name, owner="alice", storageClassName="larger"))
    assert keys.now == {("owner-storage", "team", name), TASK_KEY}
    keys.later.clear()
    operator.see(TASK, "DELETED", task(owner="alice"))
    assert ("owner-storage", "team", name) in keys.later


def test_tasks_are_looked_at_when_their_namespace_begins_to_ask_for_proof():
    operator = Operator()
    operator.app.queue = cast("Any", keys := Keys())
    operator.see(NAMESPACE, None, space())
    operator.see(TASK, None, task())
    keys.now.clear()
    operator.see(NAMESPACE, "MODIFIED", space(metadata={"annotations": {REQUIRE_OWNER_PROOF: "true"}}))
    assert keys.now == {TASK_KEY}


@jumping
async def test_the_calls_go_where_the_selector_no_longer_fits():
    operator = Operator(selector={"gpu": "yes"})
    operator.see(NAMESPACE, None, space(gpu="yes"))
    operator.see(TASK, None, task())
    async with operator.running():
        operator.see(NAMESPACE, "MODIFIED", space())
        operator.see(TASK, "DELETED", task())
        await operator.settle()
        assert operator.store.deleted == ["uid-ask"]


@jumping
async def test_a_namesake_shows_that_a_deletion_was_missed():
    operator = Operator()
    operator.see(NAMESPACE, None, space())
    operator.see(TASK, None, task("uid-old"))
    async with operator.running():
        operator.see(TASK, "ADDED", task("uid-new"))
        await operator.settle()
        assert operator.store.deleted == ["uid-old"]
        # A late word of the old one is no news, and nothing of its children concerns the new one.
        operator.app.queue = cast("Any", keys := Keys())
        operator.see(TASK, "MODIFIED", task("uid-old"))
        operator.see(POD, "ADDED", obj("p", metadata={"labels": {TASK_UID: "uid-old"}}))
        assert keys.now == set()
        operator.see(POD, "ADDED", obj("q", metadata={"labels": {TASK_UID: "uid-new"}}))
        assert keys.now == {TASK_KEY}


@jumping
async def test_calls_of_a_task_that_nobody_knows_go_unless_the_api_server_knows_it():
    operator = Operator()
    operator.cluster.tasks = [task("uid-just-made")]
    async with operator.running():
        for uid in ("uid-just-made", "uid-long-gone"):
            await operator.store.changed.put(
                {"namespace": "team", "task": uid, "attempt": 1, "state": "queued"}
            )
        await operator.settle()
        assert operator.store.deleted == ["uid-long-gone"]


# --- which keys an event adds -----------------------------------------------------------------------------------------


@pytest.fixture
def seen():
    """An operator that knows a source and a task, and the keys that it adds from here on."""
    operator = Operator()
    operator.app.queue = cast("Any", keys := Keys())
    operator.see(NAMESPACE, None, space())
    reference = {"configMapKeyRef": {"name": "files", "key": "cpu.yaml"}}
    operator.see(SOURCE, None, obj("ocr", spec={"imageEnvs": {"cpu": reference}}))
    data = {"configMapKeyRef": {"name": "data", "key": "data.json"}}
    operator.see(TASK, None, task(dataFrom=data))
    operator.see(TASK, None, task("uid-else", name="else", sourceRef={"name": "other"}))
    keys.now.clear()
    keys.later.clear()
    return operator, keys


def test_a_task_is_reconciled_and_its_source_counts_a_little_later(seen):
    operator, keys = seen
    operator.see(TASK, "ADDED", task("uid-new", name="new"))
    assert (keys.now, keys.later) == ({("opengputasks", "team", "new")}, {SOURCE_KEY})


def test_a_source_is_reconciled_with_its_tasks(seen):
    operator, keys = seen
    operator.see(SOURCE, "MODIFIED", obj("ocr", spec={"suspend": True}))
    assert keys.now == {SOURCE_KEY, TASK_KEY}


def test_a_translation_is_its_sources(seen):
    operator, keys = seen
    owner = {
        "apiVersion": "opengpu.network/v1alpha1",
        "kind": "OpenGPUSource",
        "name": "ocr",
        "uid": "uid-ocr",
    }
    operator.see(CONTROLLER_REVISION, "DELETED", obj("r", metadata={"ownerReferences": [owner]}))
    assert keys.now == {SOURCE_KEY, TASK_KEY}


@pytest.mark.parametrize(("name", "woken"), [("files", {SOURCE_KEY}), ("data", {TASK_KEY}), ("else", set())])
def test_a_users_config_map_wakes_who_refers_to_it(seen, name, woken):
    operator, keys = seen
    operator.see(CONFIG_MAP, "MODIFIED", obj(name, data={"cpu.yaml": "x"}))
    operator.see(CONFIG_MAP, "MODIFIED", obj(name, namespace="elsewhere"))
    assert keys.now == woken
    assert operator.cache.all(CONFIG_MAP) == []


@pytest.mark.parametrize(
    "kind",
    [POD, DEPLOYMENT, JOB, SERVICE, INGRESS, PVC, NETWORK_POLICY, ENDPOINT_SLICE, CONFIG_MAP],
    ids=str,
)
def test_a_child_is_its_tasks(seen, kind):
    operator, keys = seen
    labels = {TASK_UID: "uid-ask", MANAGED_BY: MANAGER}
    child = obj("j-1", metadata={"labels": labels})
    operator.see(kind, "ADDED", child)
    assert keys.now == {TASK_KEY}
    keys.now.clear()
    # A resync, or the echo of our own write.
    operator.see(kind, "MODIFIED", child)
    operator.see(kind, "MODIFIED", obj("j-1", metadata={"labels": labels}))
    assert keys.now == set()
    operator.see(kind, "DELETED", child)
    assert keys.now == {TASK_KEY}


@pytest.mark.parametrize("labels", [{}, {TASK_UID: "uid-unknown"}])
def test_what_belongs_to_no_task_wakes_nobody(seen, labels):
    operator, keys = seen
    operator.see(PVC, "ADDED", obj("usr-1", metadata={"labels": {MANAGED_BY: MANAGER, **labels}}))
    assert keys.now == set()


@pytest.mark.parametrize(
    ("reason", "woken"), [("NoNodeFits", {TASK_KEY}), ("SourceNotReady", {TASK_KEY}), ("Called", set())]
)
def test_a_node_wakes_those_that_wait_for_one(seen, reason, woken):
    operator, keys = seen
    ready = {"type": "Ready", "status": "False", "reason": reason}
    operator.see(TASK, "MODIFIED", task() | {"status": {"conditions": [ready]}})
    keys.now.clear()
    operator.see(NODE, "ADDED", obj("node-a", namespace="", status={"allocatable": {"cpu": "2"}}))
    assert keys.now == woken


@jumping
async def test_a_tunnel_that_is_found_has_its_task_looked_at_again():
    operator, reconciled = Operator(), []
    started = "2026-03-01T12:00:00Z"
    operator.cluster.log = f"{started} https://a-b.trycloudflare.com\n".encode()
    operator.see(NAMESPACE, None, space())
    operator.see(TASK, None, task())
    state = {"name": "web", "restartCount": 0, "state": {"running": {"startedAt": started}}}
    pod = obj("web", spec={"nodeName": "a"}, status={"containerStatuses": [state]})
    async with operator.running():
        operator.app.queue.observe = lambda key, *_: reconciled.append(key)
        operator.app._tunnels.observe(Task.model_validate(task()), [pod], main="web")
        await operator.settle()
        assert reconciled == [TASK_KEY]

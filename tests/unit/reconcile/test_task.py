"""A task from its creation to its end, with what a crash, a lost answer or a second operator can do to it."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, cast

import pytest

from gpux import tokens
from gpux.client import StoreClient
from opengpu_operator.api.errors import Transient
from opengpu_operator.api.labels import (
    AGENT_CONTAINER,
    COMPONENT,
    EXTERNAL_STORAGE,
    REQUIRE_OWNER_PROOF,
    REVISION,
    TASK_UID,
)
from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import Restart, Translation
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import ConflictError, TooManyRequests, Unavailable
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    INGRESS,
    JOB,
    KINDS,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    POD,
    PVC,
    SECRET,
    SOURCE,
    STORAGE_CLASS,
    TASK,
    Kind,
)
from opengpu_operator.reconcile.attempt import DELIVERY_GRACE
from opengpu_operator.reconcile.calls import Calls
from opengpu_operator.reconcile.owners import OwnerStorage
from opengpu_operator.reconcile.task import TaskReconciler
from opengpu_operator.reconcile.translations import Translations
from opengpu_operator.reconcile.tunnels import Tunnels
from opengpu_operator.settings import Settings, TunnelSettings
from tests.support.jobs import service, translation, worker
from tests.unit.reconcile.builders import NOW, at, pod, source, terminated
from tests.unit.reconcile.fakes import ApiServer, Clock, Events, Store

UID = "11111111-2222-3333-4444-555555555555"
CALL = translation(worker(gpu=None), environment="cpu")
BATCH = translation(
    service("main", restart=Restart.NO), service("side", restart=Restart.NO), environment="cpu"
)
SPEC = {"sourceRef": {"name": "ocr"}, "expirySeconds": 600}


class World:
    """The API server and the store, which outlive every operator."""

    def __init__(self) -> None:
        self.api, self.store, self.clock, self.events = ApiServer(), Store(), Clock(), Events()
        self.settings: dict[str, Any] = {}

    async def source(self, content: Translation, **spec: Any) -> None:
        """Make or change the source, which offers one translation for cpu."""
        made = source(imageEnvs={"cpu": {"composeUrl": "https://example.com/cpu.yaml"}}, **spec)
        keeper = Translations(gateway=cast("Gateway", self.api), cache=Cache())
        revision = await keeper.keep(made, Environment.CPU, content)
        ready = {"name": "cpu", "ready": True, "revision": revision, "digest": content.digest}
        obj = made.model_dump(mode="json", by_alias=True, exclude_none=True)
        obj["status"] = {"observedGeneration": made.metadata.generation, "environments": [ready]}
        self.api.put(SOURCE, obj)

    def task(self, **spec: Any) -> None:
        metadata = {
            "name": "ask",
            "namespace": "team",
            "uid": UID,
            "generation": 1,
            "creationTimestamp": at(0),
        }
        self.api.put(TASK, {"metadata": metadata, "spec": {**SPEC, **spec}})

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.api.objects[TASK, "team", "ask"].get("status", {}))

    def reason(self, type_: str = "Ready") -> str | None:
        conditions = self.status.get("conditions", [])
        return next((entry["reason"] for entry in conditions if entry["type"] == type_), None)

    def run_pod(self, component: str = "worker", **parts: Any) -> dict[str, Any]:
        """Have a pod of a service run."""
        labels = {TASK_UID: UID, COMPONENT: component}
        return self.api.put(POD, pod(component, metadata={"labels": labels}, **parts))


class Operator:
    """One process, from its start on."""

    def __init__(
        self, world: World, *, sees: Collection[Kind] = KINDS, settings: Mapping[str, Any] | None = None
    ) -> None:
        """``sees``: what the watches have shown so far."""
        self.world, self.cache = world, Cache()
        gateway = cast("Gateway", world.api)
        self.calls = Calls(store=cast("StoreClient", world.store), changed=lambda *_: None, clock=world.clock)
        self.calls.since = NOW - timedelta(hours=1)
        made = Settings.model_validate(
            {"routes": {"domain": "gpux.example"}, **world.settings, **(settings or {})}
        )
        self.tunnels = Tunnels(
            settings=TunnelSettings(),
            gateway=gateway,
            cache=self.cache,
            changed=lambda _: None,
            clock=world.clock,
        )
        self.storage = OwnerStorage(
            settings=made.storage,
            gateway=gateway,
            cache=self.cache,
            recorder=cast("Recorder", world.events),
            clock=world.clock,
        )
        self.tasks = TaskReconciler(
            settings=made,
            gateway=gateway,
            cache=self.cache,
            recorder=cast("Recorder", world.events),
            calls=self.calls,
            translations=Translations(gateway=gateway, cache=self.cache),
            tunnels=self.tunnels,
            storage=self.storage,
            counted=lambda *_: None,
            store_key=lambda: b"a key of sixteen bytes or more",
            resolvers=["10.96.0.10"],
            clock=world.clock,
        )
        self.see(sees)

    def see(self, kinds: Collection[Kind] = KINDS) -> None:
        """Have the watches show everything there is."""
        self.world.api.show(self.cache, kinds)

    async def run(self) -> float | None:
        """Reconcile as the queue does, but for what comes next."""
        return await self.tasks.reconcile("team", "ask")


@pytest.fixture
def world() -> World:
    return World()


async def started(
    world: World, content: Translation = CALL, *, settings: Mapping[str, Any] | None = None, **spec: Any
) -> Operator:
    """Return an operator that has started a task: a call, unless told otherwise."""
    await world.source(content)
    world.task(**spec)
    operator = Operator(world, settings=settings)
    await operator.run()
    world.api.asked.clear()
    world.events.reasons.clear()
    return operator


WRITES = {"create", "patch", "status", "delete", "evict"}


def writes(world: World) -> int:
    return sum(count for (verb, _), count in world.api.asked.items() if verb in WRITES)


# --- the happy path ---------------------------------------------------------------------------------------------------


async def test_a_task_costs_one_write_per_child_and_one_for_its_status(world):
    await world.source(CALL)
    world.task(functionName="read")
    operator = Operator(world)
    world.api.asked.clear()
    await operator.run()
    asked = dict(world.api.asked)
    # Read by the first task of a process that didn't translate the file itself.
    assert asked.pop(("get", "ControllerRevision")) == 1
    assert asked.pop(("status", "OpenGPUTask")) == 1
    assert {verb for verb, _ in asked} == {"create"}
    assert sum(asked.values()) == len(world.api.objects) - 3
    world.api.asked.clear()
    await operator.run()
    operator.see()
    await operator.run()
    assert world.api.asked == {}


async def test_an_end_is_written_before_anything_is_removed(world):
    operator = await started(world, functionName="read")
    world.store.now(UID, "answered", sent=1, answered=2)
    operator.calls._states[UID] = (1, "answered")
    world.api.refusals["status", "OpenGPUTask"] = Unavailable("etcd")
    with pytest.raises(Unavailable):
        await operator.run()
    assert world.api.all(DEPLOYMENT)
    world.api.refusals.clear()
    assert await operator.run() == 0
    assert world.reason("Complete") == "Answered"
    assert world.api.all(DEPLOYMENT)
    await operator.run()
    assert {kind for kind, _, _ in world.api.objects if kind in {DEPLOYMENT, INGRESS, SECRET}} == set()
    assert world.events.reasons == ["Answered"]


# --- crashes ----------------------------------------------------------------------------------------------------------


async def test_after_a_crash_before_the_status_was_written_nothing_is_made_or_chosen_anew(world):
    await world.source(CALL)
    world.task(functionName="read")
    world.api.refusals["status", "OpenGPUTask"] = Unavailable("etcd")
    with pytest.raises(Unavailable):
        await Operator(world).run()
    world.api.refusals.clear()
    made = {key: obj["metadata"]["uid"] for key, obj in world.api.objects.items()}
    (call,) = world.store.records
    # Meanwhile the file has changed: new tasks get the new one.
    await world.source(translation(worker("other", gpu=None), environment="cpu"))
    operator = Operator(world)
    world.api.asked.clear()
    await operator.run()
    after = {key: obj["metadata"]["uid"] for key, obj in world.api.objects.items()}
    assert made.items() <= after.items()
    assert len(after) == len(made) + 1, "the new translation"
    assert writes(world) == 1, "the status"
    assert list(world.store.records) == [call]
    assert world.status["revision"] in {name for _, _, name in made}


@pytest.mark.parametrize("creations", range(1, 5))
async def test_a_crash_after_any_child_leaves_one_of_each(world, creations):
    """The operator dies after so many creations; the watches of the next one show none of them yet."""
    await world.source(CALL)
    world.task(functionName="read")
    count, create = itertools.count(1), world.api.create

    async def dying(obj):
        if next(count) > creations:
            raise Unavailable("the operator died")
        return await create(obj)

    world.api.create = dying
    with pytest.raises(Unavailable):
        await Operator(world).run()
    world.api.create = create
    made = {key: obj["metadata"]["uid"] for key, obj in world.api.objects.items()}
    await Operator(world, sees={SOURCE, TASK}).run()
    after = {key: obj["metadata"]["uid"] for key, obj in world.api.objects.items()}
    assert made.items() <= after.items()
    assert world.status["attempts"] == 1
    kinds = [kind.kind for kind, _, _ in world.api.objects]
    assert len(kinds) == len(set(kinds)), kinds


async def test_a_status_whose_answer_was_lost_is_not_written_twice(world):
    await world.source(CALL)
    world.task(functionName="read")
    operator = Operator(world)
    world.api.lost = {("status", "OpenGPUTask")}
    with pytest.raises(Unavailable):
        await operator.run()
    version = world.api.objects[TASK, "team", "ask"]["metadata"]["resourceVersion"]
    await operator.run()
    assert world.api.objects[TASK, "team", "ask"]["metadata"]["resourceVersion"] == version


async def test_a_second_operator_that_knows_less_cant_undo_an_end(world):
    operator = await started(world, functionName="read")
    stale = Operator(world)
    world.store.now(UID, "answered", sent=1, answered=2)
    operator.calls._states[UID] = (1, "answered")
    await operator.run()
    end = world.status
    world.run_pod()
    stale.see({POD})
    stale.calls._records[UID, 1] = {"state": "accepted", "claimedBy": "pod-worker", "times": {"sent": at(1)}}
    stale.calls._states[UID] = (1, "accepted")
    with pytest.raises(ConflictError):
        await stale.run()
    assert world.status == end
    # It has been told, and does what is left to do.
    await stale.run()
    assert world.status == end
    assert world.api.all(DEPLOYMENT) == []


# --- agents that restarted --------------------------------------------------------------------------------------------


def with_dead_socket(world: World, component: str) -> None:
    """Have a pod run whose agent's container is younger than the application's."""
    world.run_pod(
        component,
        initContainerStatuses=[
            {"name": AGENT_CONTAINER, "restartCount": 1, "state": {"running": {"startedAt": at(9)}}}
        ],
        containerStatuses=[{"name": component, "state": {"running": {"startedAt": at(1)}}}],
    )


@pytest.mark.parametrize(("content", "spec"), [(CALL, {"functionName": "read"}), (BATCH, {})])
async def test_a_pod_whose_agent_restarted_is_evicted_once(world, content, spec):
    operator = await started(world, content, **spec)
    with_dead_socket(world, "worker" if spec else "main")
    operator.see()
    await operator.run()
    # The watch hasn't shown the pod's end yet.
    await operator.run()
    await operator.run()
    assert world.api.asked["evict", "Pod"] == 1
    assert world.api.asked["delete", "Pod"] == 0, "its Job would take that for a failure"
    assert world.events.reasons.count("AgentRestarted") == 1


async def test_a_cluster_may_want_the_pod_kept_and_told_of(world):
    operator = await started(world, BATCH, settings={"agent": {"onRestart": "Report"}})
    with_dead_socket(world, "main")
    operator.see()
    for _ in range(3):
        await operator.run()
    assert world.api.asked["evict", "Pod"] == 0
    assert world.events.reasons.count("AgentRestarted") == 1
    assert world.reason("AgentRestarted") == "AgentRestarted"
    (dead,) = world.api.all(POD)
    metadata = dead["metadata"]
    del world.api.objects[POD, metadata["namespace"], metadata["name"]]
    operator.cache.drop(POD, metadata["namespace"], metadata["name"], metadata["uid"])
    await operator.run()
    assert world.reason("AgentRestarted") is None


async def test_that_a_pod_is_about_to_be_replaced_is_said_as_long_as_it_is_there(world):
    operator = await started(world, BATCH)
    with_dead_socket(world, "main")
    operator.see()
    world.api.refusals["evict", "Pod"] = TooManyRequests("the disruption budget needs 1", retry_after=1)
    await operator.run()
    assert world.reason("AgentRestarted") == "AgentRestarted"
    world.api.refusals.clear()
    await operator.run()
    await operator.run()
    assert world.reason("AgentRestarted") is None


async def test_a_pod_that_is_gone_before_it_is_evicted_is_forgotten(world):
    operator = await started(world, functionName="read")
    with_dead_socket(world, "worker")
    operator.see()
    world.api.objects = {key: obj for key, obj in world.api.objects.items() if key[0] != POD}
    await operator.run()
    await operator.run()
    assert world.api.asked["evict", "Pod"] == 1


async def test_a_budget_that_forbids_the_eviction_stops_nothing_else(world):
    operator = await started(world, BATCH)
    with_dead_socket(world, "main")
    operator.see()
    world.api.refusals["evict", "Pod"] = TooManyRequests("the disruption budget needs 1", retry_after=1)
    await operator.run()
    assert "AgentRestarted" not in world.events.reasons
    finish(world, "main", seconds=5)
    operator.see()
    await operator.run()
    assert world.reason("Complete") == "Completed"


# --- ends of a task's time --------------------------------------------------------------------------------------------


def finish(world: World, component: str, *, seconds: float) -> None:
    """Have the Job of a service complete so many seconds after NOW."""
    (found,) = (job for job in world.api.all(JOB) if job["metadata"]["labels"][COMPONENT] == component)
    done = {"type": "Complete", "status": "True"}
    status = {"conditions": [done], "completionTime": at(seconds)}
    world.api.change(JOB, "team", found["metadata"]["name"], status=status)


@pytest.mark.parametrize(
    ("component", "seconds", "reason"),
    [("main", 599, "Completed"), ("main", 601, "Expired"), ("side", 599, "Expired")],
)
async def test_a_main_service_that_was_done_in_time_counts_though_nobody_was_there(
    world, component, seconds, reason
):
    await started(world, BATCH)
    finish(world, component, seconds=seconds)
    world.clock.now += timedelta(seconds=700)
    await Operator(world).run()
    assert world.status["endReason"] == reason


async def test_a_job_whose_translation_is_gone_just_expires(world):
    await started(world, BATCH)
    finish(world, "main", seconds=599)
    world.api.objects = {
        key: obj for key, obj in world.api.objects.items() if key[0].kind != "ControllerRevision"
    }
    world.clock.now += timedelta(seconds=700)
    await Operator(world).run()
    assert world.status["endReason"] == "Expired"


async def test_an_answer_counts_though_the_status_was_never_written(world):
    await world.source(CALL)
    world.task(functionName="read")
    world.api.refusals["status", "OpenGPUTask"] = Unavailable("etcd")
    with pytest.raises(Unavailable):
        await Operator(world).run()
    world.api.refusals.clear()
    world.store.now(UID, "answered", sent=1, answered=2)
    world.clock.now += timedelta(seconds=700)
    await Operator(world).run()
    assert world.status["endReason"] == "Answered"


async def test_a_store_that_is_away_at_the_end_is_waited_for_and_nothing_is_removed(world):
    operator = await started(world, functionName="read")
    world.store.now(UID, "accepted", sent=1)
    operator.calls._states[UID] = (1, "accepted")
    await operator.run()
    world.store.leave()
    world.clock.now += timedelta(seconds=600)
    with pytest.raises(Transient):
        await operator.run()
    assert world.reason() == "StoreUnavailable"
    assert world.api.all(DEPLOYMENT)
    # It is back, and the agent brings what the worker answered in time.
    world.store.error = None
    operator.calls.since = world.clock.now
    again = await operator.run()
    assert again is not None
    assert again > 1
    assert "endReason" not in world.status
    world.store.now(UID, "answered", answered=599)
    await operator.run()
    assert world.status["endReason"] == "Answered"


async def test_a_running_task_keeps_its_time_whatever_becomes_of_its_sources_terms(world):
    await started(world, functionName="read")
    await world.source(CALL, maxExpirySeconds=60)
    world.clock.now += timedelta(seconds=100)
    await Operator(world).run()
    assert world.status["expiresAt"] == at(600)
    assert "endReason" not in world.status


# --- what isn't concluded ---------------------------------------------------------------------------------------------


async def test_a_crashed_worker_and_a_store_that_is_away_end_nothing(world):
    operator = await started(world, functionName="read")
    world.store.now(UID, "accepted", pod="pod-worker", sent=1)
    operator.calls._states[UID] = (1, "accepted")
    ended = {"name": "worker", "restartCount": 1, "lastState": terminated(5)}
    world.run_pod("worker", containerStatuses=[ended])
    operator.see()
    await operator.run()
    world.store.leave()
    world.clock.now += timedelta(seconds=100)
    with pytest.raises(Transient):
        await operator.run()
    assert world.reason() == "StoreUnavailable"
    assert world.api.all(POD)
    world.store.error = None
    assert await operator.run() == DELIVERY_GRACE.total_seconds()
    operator.calls.since = world.clock.now - DELIVERY_GRACE
    await operator.run()
    assert world.status["endReason"] == "WorkerCrashed"


# --- tunnels ----------------------------------------------------------------------------------------------------------


async def with_tunnel(world: World) -> Operator:
    """Return an operator whose job has opened a tunnel, which is in its status."""
    operator = await started(world, BATCH)
    state = {"name": "main", "restartCount": 0, "state": {"running": {"startedAt": at(0)}}}
    world.run_pod("main", containerStatuses=[state])
    world.run_pod("side")
    operator.see()
    await operator.run()
    assert "cftunnel" not in world.status
    (look,) = operator.tunnels._looks[UID].values()
    look.url = "https://a-b.trycloudflare.com"
    world.api.asked.clear()
    await operator.run()
    return operator


async def test_a_tunnel_costs_one_write(world):
    operator = await with_tunnel(world)
    assert world.status["cftunnel"] == "https://a-b.trycloudflare.com"
    assert world.status["tunnel"]["service"] == "main"
    assert world.api.asked == {("status", "OpenGPUTask"): 1}
    await operator.run()
    await Operator(world).run()
    assert writes(world) == 1


async def test_a_tunnel_goes_with_the_pods_of_a_task_that_is_suspended(world):
    operator = await with_tunnel(world)
    task = world.api.objects[TASK, "team", "ask"]
    world.api.change(TASK, "team", "ask", spec={**task["spec"], "suspend": True})
    gone = world.api.objects.pop((POD, "team", "j-x-main"))["metadata"]
    operator.cache.drop(POD, "team", gone["name"], gone["uid"])
    operator.see()
    await operator.run()
    assert not {"cftunnel", "tunnel"} & set(world.status)


async def test_a_tunnel_goes_with_the_end_of_its_task(world):
    operator = await with_tunnel(world)
    finish(world, "main", seconds=5)
    operator.see()
    await operator.run()
    assert world.reason("Complete") == "Completed"
    assert not {"cftunnel", "tunnel"} & set(world.status)
    await operator.run()
    assert operator.tunnels._looks == {}


# --- images that want to be root --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "spec"), [(CALL, {"functionName": "read"}), (BATCH, {})])
async def test_an_image_that_wants_to_be_root_ends_its_task(world, content, spec):
    operator = await started(world, content, **spec)
    component = "worker" if spec else "side"
    why = {
        "reason": "CreateContainerConfigError",
        "message": "container has runAsNonRoot and image will run as root",
    }
    world.run_pod(component, ready=False, containerStatuses=[{"name": component, "state": {"waiting": why}}])
    operator.see()
    await operator.run()
    assert world.reason("Failed") == world.reason("Stalled") == world.status["endReason"] == "RootRefused"
    (failed,) = [entry for entry in world.status["conditions"] if entry["type"] == "Failed"]
    assert f"{component}/{component} would run as root" in failed["message"]
    assert world.events.reasons == ["RootRefused"]
    await operator.run()
    assert world.api.all(JOB) == world.api.all(DEPLOYMENT) == []


# --- the outside ------------------------------------------------------------------------------------------------------

OPEN = {
    "store": {"externalUrl": "https://files.gpux.example"},
    "storage": {"external": {"allowed": "Public", "graceSeconds": 60}},
}


def secret_of(world: World, end: str) -> dict[str, Any]:
    (secret,) = [obj for obj in world.api.all(SECRET) if obj["metadata"]["name"].endswith(end)]
    return dict(secret["stringData"])


def claims_of(world: World, end: str) -> tokens.Claims:
    return tokens.verify(b"a key of sixteen bytes or more", secret_of(world, end)["token"], now=NOW.timestamp)


@pytest.mark.parametrize(("asked", "public"), [("Links", False), ("Public", True)])
async def test_an_open_task_has_a_secret_that_outlives_its_end(world, asked, public):
    operator = await started(world, settings=OPEN, functionName="read", storage={"external": asked})
    assert world.reason("External") == asked
    assert secret_of(world, "-files")["url"] == "https://files.gpux.example"
    agent, outside = claims_of(world, "-agent"), claims_of(world, "-files")
    assert (agent.scope, outside.scope) == ("job", "files")
    assert (agent.namespace, agent.task) == (outside.namespace, outside.task) == ("team", UID)
    assert (agent.external, agent.public) == (True, public)
    assert outside.exp == agent.exp + 60
    token = secret_of(world, "-files")["token"]
    assert token not in str(world.status)
    world.store.now(UID, "answered", sent=1, answered=2)
    operator.calls._states[UID] = (1, "answered")
    await operator.run()
    operator.see()
    await operator.run()
    assert [obj["metadata"]["name"].rpartition("-")[2] for obj in world.api.all(SECRET)] == ["files"]


async def test_a_wish_that_the_cluster_does_not_grant_is_answered_in_the_status(world):
    await started(world, functionName="read", storage={"external": "Public"})
    assert world.reason("External") == "Capped"
    assert not claims_of(world, "-agent").external
    assert [obj["metadata"]["name"].rpartition("-")[2] for obj in world.api.all(SECRET)] == ["agent"]


async def test_nobody_who_asked_for_nothing_hears_of_the_outside(world):
    await started(world, settings=OPEN, functionName="read")
    assert world.reason("External") is None
    assert not claims_of(world, "-agent").external


async def test_a_namespace_gives_its_tasks_the_default(world):
    await world.source(CALL)
    world.task(functionName="read", owner="alice")
    operator = Operator(world, settings=OPEN)
    annotations = {EXTERNAL_STORAGE: "alice=Links"}
    operator.cache.put(NAMESPACE, {"metadata": {"name": "team", "uid": "n", "annotations": annotations}})
    await operator.run()
    assert world.reason("External") == "Links"


# --- storage ----------------------------------------------------------------------------------------------------------


async def test_an_owner_who_has_to_prove_it_and_doesnt_makes_nothing(world):
    world.settings = {"storage": {"requireOwnerProof": True}}
    await started(world, functionName="read", owner="alice")
    assert world.reason() == "OwnerProofRefused:owner"
    assert world.reason("Stalled") == "OwnerProofRefused:owner"
    assert world.api.all(DEPLOYMENT) == []
    assert world.api.all(PVC) == []


@pytest.mark.parametrize(("setting", "annotated", "refused"), [(False, "true", True), (True, "false", False)])
async def test_a_namespace_decides_for_itself_whether_owners_have_to_prove_it(
    world, setting, annotated, refused
):
    world.settings = {"storage": {"requireOwnerProof": setting}}
    world.api.put(NAMESPACE, {"metadata": {"name": "team", "annotations": {REQUIRE_OWNER_PROOF: annotated}}})
    await started(world, functionName="read", owner="alice")
    assert (world.reason() == "OwnerProofRefused:owner") is refused
    assert (world.api.all(PVC) == []) is refused


async def test_a_task_that_runs_isnt_asked_for_a_proof_again(world):
    operator = await started(world, functionName="read", owner="alice")
    world.settings = {"storage": {"requireOwnerProof": True}}
    operator = Operator(world)
    await operator.run()
    assert world.reason() == "Starting"


async def test_an_object_that_says_that_a_task_runs_is_no_proof(world):
    world.settings = {"storage": {"requireOwnerProof": True}}
    await world.source(CALL)
    world.task(functionName="read", owner="alice")
    (revision,) = (entry["metadata"]["name"] for entry in world.api.all(CONTROLLER_REVISION))
    metadata = {
        "name": "forged",
        "namespace": "team",
        "labels": {TASK_UID: UID},
        "annotations": {REVISION: f"cpu/{revision}"},
    }
    world.api.put(CONFIG_MAP, {"metadata": metadata})
    await Operator(world).run()
    assert world.reason() == "OwnerProofRefused:owner"
    assert world.api.all(DEPLOYMENT) == []


async def test_a_volume_that_grows_restarts_nothing(world):
    operator = await started(world, functionName="read", owner="alice", storage={"userSize": "20Gi"})
    for claim in world.api.all(PVC):
        world.api.put(PVC, claim | {"status": {"phase": "Bound"}})
    world.api.put(STORAGE_CLASS, {"metadata": {"name": "disk"}, "allowVolumeExpansion": True})
    world.task(functionName="read", owner="alice", storage={"userSize": "30Gi"})
    changed = world.api.objects[TASK, "team", "ask"]
    changed["metadata"]["generation"] = 2
    operator.see()
    await operator.run()
    assert world.api.asked["patch", "Deployment"] == 0
    assert world.reason("StorageSized") == "StorageTooSmall"


async def test_more_than_the_cluster_gives_is_refused(world):
    world.settings = {"storage": {"user": {"size": "20Gi", "maxSize": "100Gi"}}}
    await started(world, functionName="read", owner="alice", storage={"userSize": "101Gi"})
    assert world.reason() == "SpecRefused:storage"
    assert "storage.user.maxSize" in str(world.status["conditions"])


PINNED = {
    "type": "PodScheduled",
    "status": "False",
    "message": "0/2 nodes: 1 Insufficient amd.com/gpu, 1 node(s) didn't match PersistentVolume's node affinity.",
    "lastTransitionTime": at(0),
}


async def test_a_pod_that_its_volume_keeps_from_every_node_ends_the_task(world):
    operator = await started(world, functionName="read", owner="alice")
    claim = next(obj for obj in world.api.all(PVC) if "opengpu.network/owner" in obj["metadata"]["labels"])
    world.api.put(PVC, claim | {"spec": {**claim["spec"], "volumeName": "pv"}})
    hosts = [{"key": "host", "operator": "In", "values": ["node-a"]}]
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": hosts}]}}
    world.api.put(PERSISTENT_VOLUME, {"metadata": {"name": "pv"}, "spec": {"nodeAffinity": affinity}})
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": at(-3600)}
    empty = {"metadata": {"name": "node-a", "labels": {"host": "node-a"}}}
    world.api.put(NODE, empty | {"status": {"capacity": {}, "conditions": [ready]}})
    waiting = world.run_pod(node=None, ready=False, conditions=[PINNED])
    volume = {"name": "usr", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    containers = [{"name": "worker", "resources": {"requests": {"cpu": "1"}}}]
    world.api.put(POD, waiting | {"spec": {"containers": containers, "volumes": [volume]}})
    operator.see()
    # It may only be slow.
    assert await operator.run() == 30
    assert world.reason() == "StorageNodeConflict"
    assert world.status.get("endReason") is None
    world.clock.now += timedelta(seconds=30)
    await operator.run()
    assert world.status["endReason"] == "StorageNodeConflict"
    assert "node-a, which has 0 cpu of 1" in str(world.status["conditions"])


async def test_the_token_of_a_job_carries_its_quotas(world):
    world.settings = {"storage": {"quota": {"jobBytes": "1Ki", "ownerBytes": "2Ki"}}}
    await started(world, functionName="read", owner="alice")
    token = next(
        secret["stringData"]["token"] for secret in world.api.all(SECRET) if "token" in secret["stringData"]
    )
    body = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert (body["owner"], body["jobBytes"], body["ownerBytes"]) == ("alice", 1024, 2048)

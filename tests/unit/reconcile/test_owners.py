"""Storage of owners, through years of use and disuse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from opengpu_operator.api.labels import EXPIRES_AT, KEEP, LAST_USED_AT, MANAGED_BY, MANAGER, OWNER, OWNER_NAME
from opengpu_operator.api.source import Environment
from opengpu_operator.desired.names import owner_value, user_volume
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import ConflictError, Forbidden, Unavailable
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import POD, PVC, STORAGE_CLASS, TASK
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.reconcile.owners import OwnerStorage
from opengpu_operator.settings import StorageSettings
from tests.unit.reconcile.builders import NOW, at, task
from tests.unit.reconcile.fakes import ApiServer, Clock, Events

HOUR, DAY = 3600, 24 * 3600
POLICY: dict[str, Any] = {"size": "20Gi", "unusedSeconds": 30 * DAY, "graceSeconds": 7 * DAY}
NAME = user_volume("team", "alice", "cpu")


class World:
    """A namespace with Alice's claim for cpu, and an operator."""

    def __init__(self, **user: Any) -> None:
        self.api, self.clock, self.events = ApiServer(), Clock(), Events()
        self.deaths = 0
        self.settings = StorageSettings.model_validate({"user": {**POLICY, **user}})
        labels = {MANAGED_BY: MANAGER, OWNER: owner_value("alice")}
        metadata = {
            "name": NAME,
            "namespace": "team",
            "labels": labels,
            "annotations": {OWNER_NAME: "alice"},
            "creationTimestamp": at(0),
        }
        spec = {"storageClassName": "disk", "resources": {"requests": {"storage": "20Gi"}}}
        self.api.put(PVC, {"metadata": metadata, "spec": spec, "status": {"phase": "Bound"}})
        self.restart()

    def restart(self) -> None:
        self.cache = Cache()
        self.storage = OwnerStorage(
            settings=self.settings,
            gateway=cast("Gateway", self.api),
            cache=self.cache,
            recorder=cast("Recorder", self.events),
            clock=self.clock,
        )

    def task(
        self,
        *,
        finished: float | None = None,
        owner: str = "alice",
        name: str = "ask",
        environment: str | None = "cpu",
    ) -> None:
        """Make a task, or have it end ``finished`` seconds after NOW."""
        status: dict[str, Any] = {"environment": environment} if environment else {}
        if finished is not None:
            status["conditions"] = [
                {"type": "Complete", "status": "True", "lastTransitionTime": at(finished)}
            ]
            status["times"] = {"finished": at(finished)}
        metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}-{self.deaths}"}
        self.api.put(
            TASK,
            {"metadata": metadata, "spec": {"owner": owner, "sourceRef": {"name": "ocr"}}, "status": status},
        )

    def delete(self, name: str = "ask") -> None:
        self.deaths += 1
        gone = self.api.objects.pop((TASK, "team", name))
        self.cache.drop(TASK, "team", name, gone["metadata"]["uid"])

    async def look(self, seconds: float = 0) -> float | None:
        """Let time pass, the watches catch up, and the claim be looked at."""
        self.clock.now += timedelta(seconds=seconds)
        self.api.show(self.cache)
        return await self.storage.reconcile("team", NAME)

    def has(self) -> bool:
        """Whether the claim is there."""
        return (PVC, "team", NAME) in self.api.objects

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.api.objects[PVC, "team", NAME]["metadata"]["annotations"])

    @property
    def writes(self) -> int:
        return self.api.asked["patch", "PersistentVolumeClaim"]

    def annotate(self, **annotations: str) -> None:
        claim = self.api.objects[PVC, "team", NAME]
        claim["metadata"]["annotations"] |= annotations
        self.api.put(PVC, claim)


# --- use --------------------------------------------------------------------------------------------------------------


async def test_a_use_is_written_down_once_an_hour_and_at_its_end():
    world = World()
    world.task()
    assert await world.look() == HOUR
    # It was made this very moment.
    assert world.writes == 0
    for minute in range(1, 180):
        assert await world.look(60) == pytest.approx(HOUR - minute % 60 * 60)
    assert world.writes == 2
    assert world.annotations[LAST_USED_AT] == at(2 * HOUR)
    world.task(finished=3 * HOUR - 30)
    await world.look(60)
    assert world.annotations[LAST_USED_AT] == at(3 * HOUR - 30)
    await world.look(DAY)
    assert world.writes == 3


async def test_the_end_of_a_task_that_was_deleted_while_it_ran_is_when_that_was_seen():
    world = World()
    world.task()
    await world.look()
    world.delete()
    await world.look(20 * 60)
    assert world.annotations[LAST_USED_AT] == at(20 * 60)


async def test_the_end_of_a_task_in_our_absence_is_found():
    world = World()
    world.task()
    await world.look()
    world.task(finished=20 * 60)
    world.restart()
    await world.look(DAY)
    assert world.annotations[LAST_USED_AT] == at(20 * 60)


async def test_who_waits_for_an_environment_uses_all_of_them_and_who_runs_in_another_none():
    world = World()
    world.task(environment="nvidia")
    await world.look(2 * HOUR)
    world.task(owner="bob", name="bobs")
    await world.look(2 * HOUR)
    assert LAST_USED_AT not in world.annotations
    world.task(environment=None)
    await world.look()
    assert world.annotations[LAST_USED_AT] == at(4 * HOUR)


# --- disuse -----------------------------------------------------------------------------------------------------------


async def test_what_nobody_uses_is_announced_and_removed_after_the_grace_period():
    world = World()
    assert await world.look() == 30 * DAY
    assert await world.look(30 * DAY) == 7 * DAY
    assert world.annotations[EXPIRES_AT] == at(37 * DAY)
    assert world.events.reasons == ["StorageExpires"]
    assert at(37 * DAY) in world.events.messages[0]
    assert await world.look(7 * DAY - 1) == 1
    assert world.has()
    world.restart()
    assert await world.look(1) is None
    assert not world.has()
    assert world.events.reasons == ["StorageExpires", "StorageRemoved"]


async def test_an_operator_that_was_away_still_grants_the_whole_grace_period():
    world = World()
    assert await world.look(365 * DAY) == 7 * DAY
    assert world.annotations[EXPIRES_AT] == at(372 * DAY)
    assert world.has()


async def test_use_calls_a_removal_off():
    world = World()
    await world.look(30 * DAY)
    world.task()
    assert await world.look(DAY) == HOUR
    assert EXPIRES_AT not in world.annotations
    assert world.events.reasons == ["StorageExpires", "StorageKept"]
    world.task(finished=31 * DAY + 90)
    assert await world.look(120) == 30 * DAY - 30
    assert world.has()


async def test_what_is_kept_never_goes():
    world = World()
    world.annotate(**{KEEP: "true"})
    assert await world.look(365 * DAY) is None
    assert EXPIRES_AT not in world.annotations
    world.annotate(**{KEEP: "false"})
    await world.look()
    assert EXPIRES_AT in world.annotations
    world.annotate(**{KEEP: "true"})
    await world.look(365 * DAY)
    assert world.has()
    assert EXPIRES_AT not in world.annotations


async def test_without_a_policy_nothing_goes_and_what_was_announced_is_called_off():
    world = World()
    await world.look(30 * DAY)
    world.settings = StorageSettings()
    world.restart()
    assert await world.look(365 * DAY) is None
    assert world.has()
    assert EXPIRES_AT not in world.annotations


async def test_a_date_that_nobody_can_read_is_announced_anew():
    world = World()
    world.annotate(**{EXPIRES_AT: "yesterday", LAST_USED_AT: "long ago"})
    assert await world.look(31 * DAY) == 7 * DAY
    assert world.annotations[EXPIRES_AT] == at(38 * DAY)


# --- removal ----------------------------------------------------------------------------------------------------------


async def due() -> World:
    """Return a world in which the claim is removed at the next look."""
    world = World()
    await world.look(30 * DAY)
    world.clock.now += timedelta(days=7)
    world.api.show(world.cache)
    return world


async def test_a_task_that_no_watch_has_shown_keeps_it():
    world = await due()
    world.task()
    assert await world.storage.reconcile("team", NAME) == HOUR
    assert world.has()
    assert world.annotations[LAST_USED_AT] == at(37 * DAY)


@pytest.mark.parametrize(("phase", "stays"), [("Running", True), ("Pending", True), ("Succeeded", False)])
async def test_a_pod_of_somebody_else_keeps_it_while_it_runs(phase, stays):
    world = await due()
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": NAME}},
        {"name": "tmp", "emptyDir": {}},
    ]
    pod = {"metadata": {"name": "shell", "namespace": "team"}, "spec": {"volumes": volumes}}
    world.api.put(POD, pod | {"status": {"phase": phase}})
    await world.storage.reconcile("team", NAME)
    assert world.has() is stays


@pytest.mark.parametrize("kind", ["OpenGPUTask", "Pod"])
async def test_a_failed_read_removes_nothing(kind):
    world = await due()
    world.api.refusals["list", kind] = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await world.storage.reconcile("team", NAME)
    assert world.has()


async def test_what_changed_since_it_was_judged_is_judged_again():
    world = await due()
    world.annotate(**{KEEP: "true"})
    assert await world.storage.reconcile("team", NAME) == 1
    assert world.has()
    await world.look()
    assert world.has()


async def test_a_change_in_the_last_moment_keeps_it():
    world = await due()
    listed = world.api.list

    async def then_keep(*arguments: Any, **options: Any) -> Any:
        found = await listed(*arguments, **options)
        world.annotate(**{KEEP: "true"})
        return found

    world.api.list = then_keep  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        await world.storage.reconcile("team", NAME)
    assert world.has()


async def test_a_claim_that_is_no_owners_or_on_its_way_out_is_left_alone():
    world = World()
    claim = world.api.objects[PVC, "team", NAME]
    claim["metadata"]["deletionTimestamp"] = at(0)
    world.api.put(PVC, claim)
    assert await world.look(365 * DAY) is None
    assert world.writes == 0


# --- growth -----------------------------------------------------------------------------------------------------------


async def fit(world: World, wanted: str | None) -> dict[str, Any]:
    """Have a task ask for a size; return the condition that says why it doesn't get it."""
    world.api.show(world.cache)
    spec: dict[str, Any] = {"storage": {"userSize": wanted}} if wanted else {}
    asking = task(owner="alice", **spec)
    asking.status.environment = Environment.CPU
    draft = Draft(status=asking.status, generation=1, now=NOW)
    await world.storage.fit(asking, draft)
    found = draft.get(cast("Any", "StorageSized"))
    return found.model_dump() if found else {}


def size(world: World) -> str:
    return str(world.api.objects[PVC, "team", NAME]["spec"]["resources"]["requests"]["storage"])


def disk(world: World, **fields: Any) -> None:
    world.api.put(STORAGE_CLASS, {"metadata": {"name": "disk"}, **fields})


async def test_storage_grows_to_what_is_asked_for_once():
    world = World()
    disk(world, allowVolumeExpansion=True)
    assert await fit(world, "50Gi") == {}
    assert size(world) == "50Gi"
    assert await fit(world, "50Gi") == {}
    assert world.writes == 1


@pytest.mark.parametrize("wanted", [None, "1Gi", "20480Mi"])
async def test_storage_never_shrinks(wanted):
    world = World()
    disk(world, allowVolumeExpansion=True)
    assert await fit(world, wanted) == {}
    assert (size(world), world.writes) == ("20Gi", 0)


@pytest.mark.parametrize("known", [True, False])
async def test_a_class_that_lets_nothing_grow_is_said(known):
    world = World()
    if known:
        disk(world)
    condition = await fit(world, "50Gi")
    assert (condition["status"], condition["reason"]) == ("False", "StorageTooSmall")
    assert "20Gi" in condition["message"]
    assert "50Gi" in condition["message"]
    assert "StorageClass disk" in condition["message"]
    assert world.writes == 0


async def test_a_quota_that_forbids_growth_is_said():
    world = World()
    disk(world, allowVolumeExpansion=True)
    world.api.refusals["patch", "PersistentVolumeClaim"] = Forbidden("exceeded quota: disk", code=403)
    assert "exceeded quota: disk" in (await fit(world, "50Gi"))["message"]


async def test_a_claim_without_a_volume_waits_for_one():
    world = World()
    disk(world, allowVolumeExpansion=True)
    world.api.change(PVC, "team", NAME, status={"phase": "Pending"})
    assert await fit(world, "50Gi") == {}
    assert world.writes == 0

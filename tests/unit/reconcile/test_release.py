"""Volumes of tasks go with their claims, and no others."""

from __future__ import annotations

from typing import Any, cast

import pytest

from opengpu_operator.api.labels import MANAGED_BY, MANAGER, TASK_UID
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import Unavailable
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import PERSISTENT_VOLUME, STORAGE_CLASS
from opengpu_operator.reconcile.release import Release
from tests.unit.reconcile.fakes import ApiServer

DYNAMIC = {"pv.kubernetes.io/provisioned-by": "rancher.io/local-path"}


def claim(
    *, controller: str | None = "uid-task", label: str | None = "uid-task", phase: str = "Bound"
) -> dict[str, Any]:
    owner = {"kind": "OpenGPUTask", "name": "ask", "uid": controller, "controller": True}
    return {
        "metadata": {
            "name": "j-x-job",
            "namespace": "team",
            "uid": "uid-claim",
            "labels": {MANAGED_BY: MANAGER, **({TASK_UID: label} if label else {})},
            "ownerReferences": [owner] if controller else [],
        },
        "spec": {"volumeName": "pv", "storageClassName": "retain"},
        "status": {"phase": phase},
    }


class World:
    def __init__(self, *, policy: str | None = "Retain") -> None:
        """``policy``: the class's; None: nobody knows the class."""
        self.api, self.cache = ApiServer(), Cache()
        if policy is not None:
            self.api.put(STORAGE_CLASS, {"metadata": {"name": "retain"}, "reclaimPolicy": policy})
        self.api.show(self.cache)
        self.release = Release(gateway=cast("Gateway", self.api), cache=self.cache)

    def volume(
        self,
        *,
        policy: str = "Retain",
        of: str = "uid-claim",
        annotations: dict[str, str] = DYNAMIC,
        phase: str = "Bound",
        **labels: str,
    ) -> None:
        self.api.put(
            PERSISTENT_VOLUME,
            {
                "metadata": {"name": "pv", "annotations": annotations, "labels": labels},
                "spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": {"name": "j-x-job", "uid": of}},
                "status": {"phase": phase},
            },
        )

    async def see(self, obj: dict[str, Any]) -> None:
        volume = self.release.seen("MODIFIED", obj)
        if volume is not None:
            await self.release.reconcile(volume)

    @property
    def policy(self) -> str:
        volume = self.api.objects[PERSISTENT_VOLUME, "", "pv"]
        return str(volume["spec"]["persistentVolumeReclaimPolicy"])


@pytest.mark.parametrize("known", ["Retain", None])
async def test_a_volume_that_would_stay_is_told_to_go_once(known):
    world = World(policy=known)
    world.volume()
    await world.see(claim())
    assert world.policy == "Delete"
    labels = world.api.objects[PERSISTENT_VOLUME, "", "pv"]["metadata"]["labels"]
    assert labels == {TASK_UID: "uid-task"}
    await world.see(claim())
    assert world.api.asked == {("get", "PersistentVolume"): 1, ("patch", "PersistentVolume"): 1}


async def test_where_volumes_go_by_themselves_nothing_is_asked():
    world = World(policy="Delete")
    world.volume(policy="Delete")
    await world.see(claim())
    assert not world.api.asked


@pytest.mark.parametrize(
    "other",
    [
        claim(controller=None),
        claim(label=None),
        claim(label="uid-of-another"),
        claim(phase="Pending"),
        claim() | {"spec": {"storageClassName": "retain"}},
    ],
)
async def test_what_no_task_owns_or_has_no_volume_is_left_alone(other):
    world = World()
    world.volume()
    await world.see(other)
    assert world.policy == "Retain"
    assert not world.api.asked


@pytest.mark.parametrize("other", [{"of": "uid-of-another"}, {"annotations": {}}, {"policy": "Recycle"}])
async def test_a_volume_that_wasnt_made_for_the_claim_is_left_alone(other):
    world = World()
    world.volume(**other)
    await world.see(claim())
    assert world.policy == other.get("policy", "Retain")


async def test_a_volume_is_looked_at_again_after_a_failure_and_after_a_restart():
    world = World()
    world.volume()
    world.api.refusals["patch", "PersistentVolume"] = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await world.see(claim())
    world.api.refusals.clear()
    await world.release.reconcile("pv")
    assert world.policy == "Delete"
    again = World()
    again.api.objects = world.api.objects
    await again.see(claim())
    assert again.api.asked["patch", "PersistentVolume"] == 0


async def test_a_volume_that_is_gone_is_no_failure():
    world = World()
    await world.see(claim())
    world.release.seen("DELETED", claim())
    assert world.api.asked["patch", "PersistentVolume"] == 0


@pytest.mark.parametrize(
    ("volume", "goes"),
    [
        ({TASK_UID: "uid-gone", "phase": "Released"}, True),
        ({TASK_UID: "uid-alive", "phase": "Released"}, False),
        ({TASK_UID: "uid-gone", "phase": "Bound"}, False),
        # It has the name of a job's claim, which proves nothing.
        ({"phase": "Released"}, False),
    ],
)
async def test_only_released_volumes_of_ours_whose_task_is_gone_are_let_go(volume, goes):
    world = World()
    world.volume(**volume)
    await world.release.sweep({"uid-alive"})
    assert world.policy == ("Delete" if goes else "Retain")

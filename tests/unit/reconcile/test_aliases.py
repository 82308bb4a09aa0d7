"""The slices with a job's aliases follow its pods, with a write only where something changed."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from opengpu_operator.desired.aliases import Aliases
from opengpu_operator.desired.job import build
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import ENDPOINT_SLICE, POD, Kind, kind_of
from opengpu_operator.reconcile.task import Plan, TaskReconciler
from opengpu_operator.settings import Settings
from tests.support.jobs import context, service, settings, translation
from tests.unit.reconcile.builders import pod

UID = context().task_uid


class Api:
    """The part of a Gateway that writes slices; ``writes`` are those since they were last looked at."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, Any]] = {}
        self._version = 0
        self._writes: list[str] = []

    def writes(self) -> list[str]:
        found, self._writes = self._writes, []
        return found

    def stored(self, name: str, obj: dict[str, Any], uid: str) -> dict[str, Any]:
        self._version += 1
        obj = copy.deepcopy(obj)
        obj["metadata"] |= {"uid": uid, "resourceVersion": str(self._version)}
        self.slices[name] = obj
        return obj

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        assert kind_of(obj) == ENDPOINT_SLICE
        name = obj["metadata"]["name"]
        assert name not in self.slices
        self._writes.append("create")
        return self.stored(name, obj, f"uid-{self._version}")

    async def merge_patch(
        self, kind: Kind, namespace: str, name: str, patch: dict[str, Any]
    ) -> dict[str, Any]:
        assert (kind, namespace) == (ENDPOINT_SLICE, "tenant")
        self._writes.append("patch")
        before = self.slices[name]
        merged = {**before, **patch, "metadata": {**before["metadata"], **patch["metadata"]}}
        return self.stored(name, merged, before["metadata"]["uid"])

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        assert (kind, namespace) == (ENDPOINT_SLICE, "tenant")
        assert self.slices.pop(name)["metadata"]["uid"] == uid
        self._writes.append("delete")

    def served(self) -> set[tuple[str, str]]:
        return {
            (entry["hostname"], *entry["addresses"])
            for obj in self.slices.values()
            for entry in obj["endpoints"]
        }


class Job:
    """A job whose pods come and go."""

    def __init__(self, aliases: Aliases | None) -> None:
        self.api, self.cache = Api(), Cache()
        self._version = 1000
        self._tasks = TaskReconciler(
            settings=Settings(),
            gateway=cast("Gateway", self.api),
            cache=self.cache,
            **dict.fromkeys(
                (
                    "recorder",
                    "calls",
                    "translations",
                    "tunnels",
                    "storage",
                    "counted",
                    "store_key",
                    "resolvers",
                    "clock",
                ),
                cast("Any", None),
            ),
        )
        self._plan = Plan(
            key=(),
            digest="",
            children=(),
            urls=(),
            routing=None,
            main="db",
            worker=None,
            gpus=0,
            pods=1,
            aliases=aliases,
        )

    def pod(self, uid: str, *addresses: str, going: bool = False) -> None:
        self._version += 1
        metadata: dict[str, Any] = {"name": uid, "namespace": "tenant", "resourceVersion": str(self._version)}
        metadata["labels"] = {"app.kubernetes.io/component": "db", "opengpu.network/task-uid": UID}
        if going:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.cache.put(
            POD,
            pod("db", uid=uid, metadata={"uid": uid, **metadata}, podIPs=[{"ip": ip} for ip in addresses]),
        )

    async def look(self) -> list[str]:
        await self._tasks._serve_aliases(UID, self._plan)
        return self.api.writes()


@pytest.fixture
def job() -> Job:
    return Job(build(translation(service("db", aliases=["pg"])), context(), settings()).aliases)


async def test_nothing_is_written_before_there_is_an_address_nor_twice(job: Job) -> None:
    job.pod("one")
    assert await job.look() == []
    job.pod("one", "10.0.0.1")
    assert await job.look() == ["create"]
    assert job.api.served() == {("pg", "10.0.0.1")}
    assert await job.look() == []


async def test_a_pod_that_replaces_another_has_its_names(job: Job) -> None:
    job.pod("one", "10.0.0.1")
    job.pod("two", "10.0.0.2")
    await job.look()
    job.pod("one", "10.0.0.1", going=True)
    assert await job.look() == ["patch"]
    assert job.api.served() == {("pg", "10.0.0.2")}
    job.pod("two", "10.0.0.2", going=True)
    assert await job.look() == ["delete"]
    assert await job.look() == []
    job.pod("three", "10.0.0.1", "fd00::1")
    assert await job.look() == ["create", "create"]
    assert job.api.served() == {("pg", "10.0.0.1"), ("pg", "fd00::1")}


async def test_what_somebody_deleted_is_made_again(job: Job) -> None:
    job.pod("one", "10.0.0.1")
    await job.look()
    ((name, gone),) = job.api.slices.items()
    del job.api.slices[name]
    job.cache.drop(ENDPOINT_SLICE, "tenant", name, gone["metadata"]["uid"])
    assert await job.look() == ["create"]


async def test_a_job_without_aliases_has_none() -> None:
    job = Job(build(translation(service("db")), context(), settings()).aliases)
    job.pod("one", "10.0.0.1")
    assert await job.look() == []

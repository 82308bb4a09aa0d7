"""One write per reconcile, of what is news, to the object that it was made from; and events after it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.task import Task, TaskStatus
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import ConflictError, Unavailable, Unprocessable
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import TASK
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.reconcile.status import StatusWriter
from tests.unit.reconcile.builders import NOW, at
from tests.unit.reconcile.fakes import ApiServer, Events


class Lab:
    def __init__(self) -> None:
        self.api, self.cache, self.events = ApiServer(), Cache(), Events()
        metadata = {
            "name": "ask",
            "namespace": "team",
            "generation": 1,
            "creationTimestamp": at(0),
        }
        spec = {"sourceRef": {"name": "ocr"}}
        self.cache.put(TASK, self.api.put(TASK, {"metadata": metadata, "spec": spec}))
        self.writer = StatusWriter(
            TASK,
            gateway=cast("Gateway", self.api),
            cache=self.cache,
            recorder=cast("Recorder", self.events),
            event_type=lambda _reason, _stalled: "Normal",
        )

    def seen(self) -> Task:
        return Task.model_validate(self.cache.get(TASK, "team", "ask"))

    def stored(self) -> dict[str, Any]:
        return self.api.objects[TASK, "team", "ask"]

    async def write(self, reason: Reason, task: Task | None = None) -> bool:
        """Write what a reconcile made of a task: as the cache has it, or as it had it earlier."""
        task = task or self.seen()
        draft: Draft[TaskStatus] = Draft(status=task.status, generation=1, now=NOW)
        draft.progressing(reason)
        return await self.writer.write(task.metadata, draft, version=task.metadata.resource_version)


@pytest.fixture
def lab() -> Lab:
    return Lab()


async def test_what_is_no_news_is_not_written(lab):
    assert await lab.write(Reason.STARTING)
    assert await lab.write(Reason.STARTING)
    assert lab.api.asked == {("status", "OpenGPUTask"): 1}
    assert lab.events.reasons == ["Starting"]


async def test_a_write_that_failed_is_told_to_nobody(lab):
    lab.api.refusals["status", "OpenGPUTask"] = Unavailable("etcd")
    with pytest.raises(Unavailable):
        await lab.write(Reason.STARTING)
    assert lab.events.reasons == []
    lab.api.refusals.clear()
    await lab.write(Reason.STARTING)
    assert lab.events.reasons == ["Starting"]


async def test_a_write_whose_answer_was_lost_is_recognised_and_told_of_once(lab):
    lab.api.lost = {("status", "OpenGPUTask")}
    with pytest.raises(Unavailable):
        await lab.write(Reason.STARTING)
    version = lab.stored()["metadata"]["resourceVersion"]
    assert await lab.write(Reason.STARTING)
    assert lab.stored()["metadata"]["resourceVersion"] == version
    assert lab.seen().metadata.resource_version == version
    assert lab.events.reasons == ["Starting"]


async def test_what_another_operator_wrote_is_not_overwritten(lab):
    stale = lab.seen()
    await lab.write(Reason.ANSWERED)
    end = lab.stored()["status"]
    other = Lab()
    other.api, other.writer._gateway = lab.api, cast("Gateway", lab.api)
    with pytest.raises(ConflictError):
        await other.write(Reason.STARTING, stale)
    assert lab.stored()["status"] == end
    assert other.events.reasons == []
    # From here on it knows better.
    assert other.seen().status.conditions[0].reason == "Answered"


async def test_an_object_that_is_gone_is_told_apart(lab):
    stale = lab.seen()
    lab.api.objects.clear()
    assert not await lab.write(Reason.STARTING, stale)
    assert lab.events.reasons == []


async def test_a_namesake_gets_nothing(lab):
    stale = lab.seen()
    namesake = lab.api.change(TASK, "team", "ask", metadata={**lab.stored()["metadata"], "uid": "another"})
    with pytest.raises(Unprocessable):
        await lab.write(Reason.STARTING, stale)
    assert lab.stored() == namesake

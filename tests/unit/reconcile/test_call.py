"""The steps of a call: what is concluded about an attempt, and what never is while the store is away."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from gpux.client import StoreClient, StoreRefused
from opengpu_operator.api.errors import Invalid, Transient, Waiting
from opengpu_operator.api.labels import TASK_UID
from opengpu_operator.api.task import Task, TaskStatus
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import CONFIG_MAP, POD
from opengpu_operator.reconcile.attempt import DELIVERY_GRACE
from opengpu_operator.reconcile.call import STORE_PATIENCE, CallSteps, End
from opengpu_operator.reconcile.calls import Calls
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.settings import Settings
from tests.unit.reconcile.builders import NOW, at, pod, task, terminated
from tests.unit.reconcile.fakes import ApiServer, Clock, Store

UID = task().metadata.uid
LONG_AGO = NOW - timedelta(hours=1)
SECOND = timedelta(seconds=1)
RUNNING = pod()
EVICTED = pod(phase="Failed", reason="Evicted", message="node was low on memory")


def crashed(seconds: float) -> dict[str, Any]:
    """Return the pod of a worker that ended so many seconds after NOW."""
    ended = terminated(seconds, reason="OOMKilled", exitCode=137)
    return pod(containerStatuses=[{"name": "web", "restartCount": 1, "lastState": ended}])


class Lab:
    """A task that is called, and everything around it."""

    def __init__(self, **spec: Any) -> None:
        self.api, self.cache, self.store, self.clock = ApiServer(), Cache(), Store(), Clock()
        self.calls = Calls(store=cast("StoreClient", self.store), changed=lambda *_: None, clock=self.clock)
        self.calls.since = LONG_AGO
        self.steps = CallSteps(
            settings=Settings(),
            gateway=cast("Gateway", self.api),
            cache=self.cache,
            calls=self.calls,
            clock=self.clock,
        )
        self.task = task(functionName="read", data={"text": "x"}, **spec)
        self.draft = self.draft_of(self.task)

    def draft_of(self, task: Task) -> Draft[TaskStatus]:
        return Draft(status=task.status, generation=1, now=self.clock.now)

    async def follow(self, *pods: dict[str, Any]) -> float | End | None:
        self.draft = self.draft_of(self.task)
        return await self.steps.follow(self.task, self.draft, pods)

    async def sent(self, *, ago: float = 60) -> None:
        """Have attempt 1 accepted by the worker, as the operator was told, and all be well."""
        await self.follow(RUNNING)
        self.store.now(UID, "accepted", claimed=-ago, sent=-ago, accepted=-ago)
        self.calls._states[UID] = (1, "accepted")
        await self.follow(RUNNING)
        self.store.asked.clear()

    async def answered_by(self, seconds: float = 0) -> float | End | None:
        self.draft = self.draft_of(self.task)
        return await self.steps.answered_by(self.task, self.draft, NOW + timedelta(seconds=seconds))


@pytest.fixture
def lab() -> Lab:
    return Lab()


# --- an attempt under way ---------------------------------------------------------------------------------------------


async def test_a_call_is_offered_once_and_followed_without_asking(lab):
    await lab.sent()
    assert lab.task.status.attempts == 1
    assert lab.task.status.attempt_pod == "pod-web"
    assert lab.task.status.times is not None
    assert lab.task.status.times.called == at(-60)
    assert await lab.follow(RUNNING) is None
    assert lab.store.asked == {}
    assert lab.api.asked == {}


async def test_an_answer_ends_the_task(lab):
    await lab.sent()
    lab.store.now(UID, "answered", answered=-1)
    lab.calls._states[UID] = (1, "answered")
    end = await lab.follow(RUNNING)
    assert isinstance(end, End)
    assert (end.reason, end.failed) == ("Answered", False)
    (response,) = lab.task.status.responses
    assert (response.inline, response.received_at) == ("done", at(-1))


@pytest.mark.parametrize("pods", [[crashed(-600)], [EVICTED], []], ids=["crashed", "evicted", "gone"])
class TestAPodThatEnded:
    """The pod that had the call has ended, and the operator was told of no answer."""

    async def test_nothing_is_concluded_while_the_store_is_away(self, lab, pods):
        await lab.sent(ago=900)
        lab.store.leave()
        with pytest.raises(Transient) as caught:
            await lab.follow(*pods)
        assert caught.value.reason == "StoreUnavailable"
        assert lab.task.status.attempts == 1

    async def test_the_store_is_asked_first(self, lab, pods):
        await lab.sent(ago=900)
        lab.store.now(UID, "answered", answered=-601)
        end = await lab.follow(*pods)
        assert isinstance(end, End)
        assert end.reason == "Answered"
        assert lab.store.asked == {"get": 1}

    async def test_what_follows_if_the_store_knows_of_no_answer_either(self, lab, pods):
        await lab.sent(ago=900)
        step = await lab.follow(*pods)
        if pods and pods[0] is not EVICTED:
            assert isinstance(step, End)
            assert (step.reason, step.failed) == ("WorkerCrashed", True)
        else:
            assert step == 0
            assert lab.task.status.attempts == 2
            assert [reason for _, reason, _ in lab.draft.events] in (["Evicted"], ["PodLost"])


async def test_the_last_attempt_ends_the_task_only_after_the_store_was_asked():
    lab = Lab(maxAttempts=1)
    await lab.sent(ago=900)
    lab.store.leave()
    with pytest.raises(Transient):
        await lab.follow(EVICTED)
    lab.store.error = None
    end = await lab.follow(EVICTED)
    assert isinstance(end, End)
    assert end.reason == "AttemptsExhausted"


@pytest.mark.parametrize(
    ("ended", "since", "left"),
    [
        (-5, LONG_AGO, DELIVERY_GRACE - 5 * SECOND),
        (-300, NOW - 2 * SECOND, DELIVERY_GRACE - 2 * SECOND),
        (-300, None, DELIVERY_GRACE),
    ],
    ids=["just crashed", "store just back", "store not followed yet"],
)
async def test_an_agent_gets_time_to_deliver_what_a_crashed_worker_answered(lab, ended, since, left):
    await lab.sent(ago=900)
    lab.calls.since = since
    assert await lab.follow(crashed(ended)) == left.total_seconds()
    lab.calls.since = LONG_AGO
    lab.clock.now += left
    end = await lab.follow(crashed(ended))
    assert isinstance(end, End)
    assert end.reason == "WorkerCrashed"


async def test_a_pod_that_the_watch_lost_is_asked_for(lab):
    await lab.sent()
    own = lab.api.put(POD, pod(metadata={"labels": {TASK_UID: UID}}))
    assert await lab.follow() is None
    assert lab.cache.get(POD, "team", own["metadata"]["name"]) is not None
    assert lab.task.status.attempts == 1
    del lab.api.objects[POD, "team", own["metadata"]["name"]]
    assert await lab.follow() == 0
    assert lab.task.status.attempts == 2


async def test_a_busy_worker_is_asked_again_without_asking_the_store(lab):
    await lab.sent(ago=60)
    lab.store.now(UID, "busy", status=503)
    lab.calls._states[UID] = (1, "busy")
    assert await lab.follow(RUNNING) == 0
    assert (lab.task.status.attempts, lab.task.status.busy_attempts) == (2, 1)
    assert lab.store.asked == {"get": 1}


# --- a store that loses or refuses ------------------------------------------------------------------------------------


async def test_a_call_that_the_store_lost_is_offered_again(lab):
    await lab.sent()
    lab.store.records.clear()
    lab.calls._states[UID] = (1, "answered")
    with pytest.raises(Transient, match="lost the call"):
        await lab.follow(RUNNING)
    assert await lab.follow(RUNNING) is None
    assert lab.store.asked["put"] == 1
    assert lab.task.status.attempts == 1


async def test_after_a_restart_of_the_operator_the_call_is_the_same(lab):
    lab.task.status.attempts = 2
    lab.store.now(UID, "accepted", attempt=2, sent=-5)
    assert await lab.follow(RUNNING) is None
    assert list(lab.store.records) == [(UID, 2)]


@pytest.mark.parametrize("status", [400, 413])
async def test_what_the_store_cant_take_of_the_task_is_the_tasks(lab, status):
    lab.store.error = StoreRefused(status, "the function is malformed")
    with pytest.raises(Invalid) as caught:
        await lab.follow(RUNNING)
    assert caught.value.reason == "SpecRefused:data"


@pytest.mark.parametrize("status", [405, 418])
async def test_what_else_the_store_refuses_isnt(lab, status):
    lab.store.error = StoreRefused(status, "no")
    with pytest.raises(Transient) as caught:
        await lab.follow(RUNNING)
    assert caught.value.reason == "StoreUnavailable"


# --- data from elsewhere ----------------------------------------------------------------------------------------------


async def test_data_of_a_config_map_is_waited_for():
    reference = {"configMapKeyRef": {"name": "data", "key": "in.json"}}
    lab = Lab(dataFrom=reference)
    with pytest.raises(Waiting):
        await lab.follow(RUNNING)
    lab.api.put(CONFIG_MAP, {"metadata": {"name": "data", "namespace": "team"}, "data": {"in.json": "[]"}})
    with pytest.raises(Invalid, match="a JSON object"):
        await lab.follow(RUNNING)
    lab.api.change(CONFIG_MAP, "team", "data", data={"in.json": "{}"})
    assert await lab.follow(RUNNING) is None
    assert (UID, 1) in lab.store.records


async def test_data_in_the_store_is_waited_for_and_the_stores_refusals_arent_the_datas():
    lab = Lab(dataFrom={"sha1": "a" * 40})
    with pytest.raises(Transient) as missing:
        await lab.follow(RUNNING)
    assert missing.value.reason == "DataNotFound"
    lab.store.error = StoreRefused(418, "no")
    with pytest.raises(Transient) as refused:
        await lab.follow(RUNNING)
    assert refused.value.reason == "StoreUnavailable"
    lab.store.error = None
    lab.store.files["a" * 40] = b" " * (1024 * 1024 + 1)
    with pytest.raises(Invalid, match="larger than"):
        await lab.follow(RUNNING)


# --- at the end of the task's time ------------------------------------------------------------------------------------


async def test_an_answer_that_nobody_was_told_of_counts_if_it_came_in_time(lab):
    await lab.sent()
    lab.store.now(UID, "answered", answered=-1)
    end = await lab.answered_by(0)
    assert isinstance(end, End)
    assert end.reason == "Answered"
    assert await lab.answered_by(-2) is None


async def test_a_store_that_is_away_is_waited_for_with_patience(lab):
    await lab.sent()
    lab.store.leave()
    with pytest.raises(Transient) as caught:
        await lab.answered_by(0)
    assert caught.value.reason == "StoreUnavailable"
    assert caught.value.retry_after is not None
    lab.clock.now += STORE_PATIENCE
    assert await lab.answered_by(0) is None


@pytest.mark.parametrize("state", ["claimed", "sent", "accepted", "unknown"])
async def test_a_store_that_is_just_back_may_not_have_heard_of_the_answer_yet(lab, state):
    await lab.sent()
    lab.store.now(UID, state)
    lab.calls.since = NOW - SECOND
    assert await lab.answered_by(0) == (DELIVERY_GRACE - SECOND).total_seconds()
    lab.store.now(UID, "answered", answered=-1)
    assert isinstance(await lab.answered_by(0), End)


async def test_what_cant_be_answered_any_more_isnt_waited_for(lab):
    await lab.sent()
    lab.calls.since = NOW
    for state in ("queued", "refused", "busy"):
        lab.store.now(UID, state)
        assert await lab.answered_by(0) is None
    lab.store.records.clear()
    assert await lab.answered_by(0) is None


async def test_a_store_that_comes_and_goes_doesnt_keep_a_task_for_ever(lab):
    await lab.sent()
    lab.clock.now += STORE_PATIENCE
    lab.calls.since = lab.clock.now
    assert await lab.answered_by(0) is None

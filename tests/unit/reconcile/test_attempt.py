from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from opengpu_operator.api.reasons import Reason
from opengpu_operator.reconcile.attempt import DELIVERY_GRACE, Step, Verdict, judge
from tests.unit.reconcile.builders import NOW, at, pod, terminated


def verdict(
    state: str,
    *,
    pods: list[dict[str, Any]] | None = None,
    attempt: int = 1,
    store_since: float | None = -3600,
    **record: Any,
) -> Verdict:
    sent = {"times": {"sent": at(0)}} if state in {"sent", "accepted", "unknown"} else {}
    holder = {} if state == "queued" else {"claimedBy": "pod-web"}
    return judge(
        {"state": state, **holder, **sent, **record},
        pods=[pod("web")] if pods is None else pods,
        attempt=attempt,
        max_attempts=3,
        store_since=None if store_since is None else NOW + timedelta(seconds=store_since),
        now=NOW,
    )


@pytest.mark.parametrize("state", ["queued", "claimed", "sent", "accepted", "unknown"])
def test_an_attempt_under_way_is_waited_for(state: str) -> None:
    assert verdict(state).step is Step.WAIT


def test_an_answer_ends_it() -> None:
    assert verdict("answered").step is Step.ANSWERED


def test_a_refusal_is_the_workers_own_and_final() -> None:
    judged = verdict("refused", status=422, detail='{"detail": "text: field required"}')
    assert judged.step is Step.FAIL
    assert judged.reason is Reason.WORKER_REFUSED
    assert judged.message == 'the worker answered HTTP 422: {"detail": "text: field required"}'


@pytest.mark.parametrize(("attempt", "delay"), [(1, 2), (2, 4), (6, 60), (400, 60)])
def test_a_busy_worker_is_asked_again_however_often(attempt: int, delay: float) -> None:
    judged = verdict("busy", status=503, attempt=attempt)
    assert (judged.step, judged.again) == (Step.RETRY, delay)


def test_a_pod_that_is_not_to_be_seen_is_asked_for_before_it_is_believed_lost() -> None:
    assert verdict("accepted", pods=[]).step is Step.CONFIRM_LOSS
    assert verdict("accepted", pods=[pod("web", uid="another")]).step is Step.CONFIRM_LOSS


def failed(reason: str) -> list[dict[str, Any]]:
    return [pod("web", phase="Failed", reason=reason, message="node was low on memory")]


@pytest.mark.parametrize(("why", "reason"), [("Evicted", Reason.EVICTED), ("NodeShutdown", Reason.POD_LOST)])
def test_infrastructure_failures_are_tried_again(why: str, reason: Reason) -> None:
    judged = verdict("accepted", pods=failed(why))
    assert (judged.step, judged.reason) == (Step.RETRY, reason)


def test_up_to_the_limit() -> None:
    judged = verdict("accepted", pods=failed("Evicted"), attempt=3)
    assert (judged.step, judged.reason) == (Step.FAIL, Reason.ATTEMPTS_EXHAUSTED)
    assert judged.message == "attempt 3 of 3 ended with Evicted: node was low on memory"


def crashed(seconds: float, where: str = "lastState") -> list[dict[str, Any]]:
    status = {"name": "web", "restartCount": 1, where: terminated(seconds, reason="OOMKilled", exitCode=137)}
    return [pod("web", containerStatuses=[status])]


@pytest.mark.parametrize("where", ["state", "lastState"])
def test_a_worker_that_ended_without_an_answer_gets_time_to_deliver_it_then_fails(where: str) -> None:
    record: dict[str, Any] = {"times": {"sent": at(-60)}}
    early = verdict("accepted", pods=crashed(-5, where), **record)
    assert (early.step, early.again) == (Step.WAIT, DELIVERY_GRACE.total_seconds() - 5)
    late = verdict("accepted", pods=crashed(-30, where), **record)
    assert (late.step, late.reason) == (Step.FAIL, Reason.WORKER_CRASHED)
    assert late.message == "the worker ended before it answered: OOMKilled, exit code 137"


@pytest.mark.parametrize(("since", "gone"), [(-1, 1), (None, 0)])
def test_and_as_much_from_when_the_store_is_there_to_deliver_to(since: float | None, gone: float) -> None:
    record: dict[str, Any] = {"times": {"sent": at(-600)}, "store_since": since}
    judged = verdict("accepted", pods=crashed(-300), **record)
    assert (judged.step, judged.again) == (Step.WAIT, DELIVERY_GRACE.total_seconds() - gone)


def test_a_worker_that_ended_in_the_second_of_the_call_did_end_after_it() -> None:
    # The kubelet's times are whole seconds, the store's aren't.
    sent: dict[str, Any] = {"times": {"sent": at(-60).replace("Z", ".700+00:00")}}
    ended = terminated(-60, startedAt=at(-61), reason="OOMKilled", exitCode=137)
    pods = [pod("web", containerStatuses=[{"name": "web", "restartCount": 1, "lastState": ended}])]
    judged = verdict("unknown", pods=pods, **sent)
    assert (judged.step, judged.reason) == (Step.FAIL, Reason.WORKER_CRASHED)


def test_a_restart_before_the_call_was_sent_is_no_crash_of_it() -> None:
    assert verdict("accepted", pods=crashed(-90), times={"sent": at(-60)}).step is Step.WAIT


def rebooted(seconds: float, *, agent: float | None, reason: str = "Unknown") -> list[dict[str, Any]]:
    """Return a pod that is up again after its node went down, with its agent since then, or not yet."""
    ended = terminated(seconds, startedAt=at(-900), reason=reason, exitCode=255)
    state = {"waiting": {}} if agent is None else {"running": {"startedAt": at(agent)}}
    return [
        pod(
            "web",
            initContainerStatuses=[{"name": "gpux-agent", "restartCount": 1, "state": state}],
            containerStatuses=[{"name": "web", "restartCount": 1, "lastState": ended}],
        )
    ]


@pytest.mark.parametrize("reason", ["Unknown", "ContainerStatusUnknown"])
@pytest.mark.parametrize("state", ["sent", "accepted", "unknown"])
def test_a_node_that_went_down_is_no_fault_of_the_worker(state: str, reason: str) -> None:
    sent: dict[str, Any] = {"times": {"sent": at(-600)}}
    judged = verdict(state, pods=rebooted(-60, agent=-59, reason=reason), **sent)
    assert (judged.step, judged.reason) == (Step.RETRY, Reason.POD_LOST)
    assert judged.message == f"the worker's node went down before it answered: {reason}, exit code 255"
    last = verdict(state, pods=rebooted(-60, agent=-59, reason=reason), attempt=3, **sent)
    assert (last.step, last.reason) == (Step.FAIL, Reason.ATTEMPTS_EXHAUSTED)


@pytest.mark.parametrize(("agent", "left"), [(-5, 15), (None, 20)])
def test_and_its_agent_may_have_kept_the_answer(agent: float | None, left: float) -> None:
    judged = verdict("accepted", pods=rebooted(-60, agent=agent), times={"sent": at(-600)})
    assert (judged.step, judged.again) == (Step.WAIT, left)


def test_the_next_attempt_in_the_same_pod_is_another_call() -> None:
    judged = verdict("accepted", pods=rebooted(-60, agent=-59), attempt=2, times={"sent": at(-30)})
    assert judged.step is Step.WAIT

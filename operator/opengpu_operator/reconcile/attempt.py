"""What to make of the current attempt of a call: wait, try again, or end the task.

An attempt is one POST to one pod's worker, made by that pod's agent after it claimed the attempt at the store.
Infrastructure failures start another attempt; the worker's own failures end the task; what can't be known is waited
for, because a call that may have run is never sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from opengpu_operator.api.labels import AGENT_CONTAINER
from opengpu_operator.api.reasons import Reason
from opengpu_operator.reconcile.pods import main_container

Object = Mapping[str, Any]

#: How long an agent gets to deliver an answer that its worker gave: it pauses for up to 10 s while the store is away,
#: and may have begun a connection that takes 5 s to fail.
DELIVERY_GRACE = timedelta(seconds=20)
#: How long a busy worker (HTTP 409 or 503) is left alone; doubled per attempt up to the cap.
BUSY_DELAY = timedelta(seconds=2)
BUSY_DELAY_CAP = timedelta(seconds=60)


#: What a runtime and a kubelet say of containers that were gone when they came back themselves.
_ENDS_OF_NODES = frozenset({"Unknown", "ContainerStatusUnknown"})


class Step(StrEnum):
    """What to do about an attempt."""

    WAIT = "wait"
    RETRY = "retry"
    FAIL = "fail"
    CONFIRM_LOSS = "confirm-loss"
    """The pod that took the attempt is not to be seen: ask the API server before believing it."""
    ANSWERED = "answered"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do, why, and when to look again."""

    step: Step
    reason: Reason = Reason.RUNNING
    message: str = ""
    again: float | None = None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


#: States of a record by which the worker or its agent itself said what became of the call.
SETTLED = frozenset({"answered", "refused", "busy"})


def delivery_left(since: datetime, now: datetime) -> float:
    """Return for how many seconds an answer that could be delivered ``since`` may still come; 0: it would be there."""
    return max(0.0, (since + DELIVERY_GRACE - now).total_seconds())


def judge(
    record: Mapping[str, Any],
    *,
    pods: Iterable[Object],
    attempt: int,
    max_attempts: int,
    store_since: datetime | None,
    now: datetime,
) -> Verdict:
    """Return what to do about attempt ``attempt``, given the store's record of it and the task's pods.

    ``store_since`` is since when the store is there, None while it isn't. Unless the record is SETTLED, an end or
    another attempt is concluded from what it lacks: that asks for a record which is as new as the pods.
    """
    state = record["state"]
    if state == "answered":
        return Verdict(step=Step.ANSWERED, reason=Reason.ANSWERED)
    if state == "refused":
        detail = record.get("detail") or ""
        return Verdict(
            step=Step.FAIL,
            reason=Reason.WORKER_REFUSED,
            message=f"the worker answered HTTP {record.get('status')}: {detail}".rstrip(": "),
        )
    if state == "busy":
        delay = min(BUSY_DELAY * 2 ** min(attempt - 1, 8), BUSY_DELAY_CAP)
        return Verdict(
            step=Step.RETRY,
            reason=Reason.WORKER_BUSY,
            message=f"the worker is busy (HTTP {record.get('status')})",
            again=delay.total_seconds(),
        )
    holder = record.get("claimedBy")
    if state == "queued" or not holder:
        return Verdict(step=Step.WAIT, reason=Reason.STARTING)
    pod = next((pod for pod in pods if pod["metadata"]["uid"] == holder), None)
    if pod is None:
        return Verdict(step=Step.CONFIRM_LOSS, reason=Reason.POD_LOST)
    if pod.get("status", {}).get("phase") == "Failed":
        why = pod["status"].get("reason", "")
        reason = Reason.EVICTED if why == "Evicted" else Reason.POD_LOST
        return lost(reason, pod["status"].get("message") or why, attempt=attempt, max_attempts=max_attempts)
    ended = _end(pod, record)
    if ended is None:
        return Verdict(step=Step.WAIT, reason=Reason.RUNNING if state == "claimed" else Reason.CALLED)
    node_down = ended.get("reason") in _ENDS_OF_NODES
    since = [_time(ended["finishedAt"]), store_since or now]
    if node_down:
        # The agent went down too. What it has kept on its disk, it delivers when it is back.
        since.append(_agent_since(pod) or now)
    if left := delivery_left(max(since), now):
        return Verdict(step=Step.WAIT, reason=Reason.CALLED, again=left)
    how = f"before it answered: {ended.get('reason') or 'Error'}, exit code {ended.get('exitCode')}"
    if node_down:
        return lost(
            Reason.POD_LOST, f"the worker's node went down {how}", attempt=attempt, max_attempts=max_attempts
        )
    return Verdict(step=Step.FAIL, reason=Reason.WORKER_CRASHED, message=f"the worker ended {how}")


def lost(reason: Reason, message: str, *, attempt: int, max_attempts: int) -> Verdict:
    """Return what follows from losing the pod that ran an attempt."""
    if attempt >= max_attempts:
        return Verdict(
            step=Step.FAIL,
            reason=Reason.ATTEMPTS_EXHAUSTED,
            message=f"attempt {attempt} of {max_attempts} ended with {reason.value}: {message}".rstrip(": "),
        )
    return Verdict(step=Step.RETRY, reason=reason, message=message, again=0)


def _agent_since(pod: Object) -> datetime | None:
    """Return since when the agent's container runs; None if it doesn't."""
    for status in pod.get("status", {}).get("initContainerStatuses", []):
        running = status.get("state", {}).get("running") or {}
        if status["name"] == AGENT_CONTAINER and running.get("startedAt"):
            return _time(running["startedAt"])
    return None


def _end(pod: Object, record: Mapping[str, Any]) -> Object | None:
    """Return how the worker's container ended after the call was sent, as its status has it; None if it didn't."""
    times = record.get("times") or {}
    container = main_container(pod)
    if times.get("sent") is None or container is None:
        return None
    sent = _time(times["sent"])
    for state in (container.get("state", {}), container.get("lastState", {})):
        ended = state.get("terminated")
        if not ended or not ended.get("finishedAt"):
            continue
        # The kubelet cuts times to whole seconds. What ended in the second of the call was there to be called only
        # if it had started by then.
        started = ended.get("startedAt")
        if (started is None or _time(started) <= sent) and _time(ended["finishedAt"]) >= sent.replace(
            microsecond=0
        ):
            found: Object = ended
            return found
    return None

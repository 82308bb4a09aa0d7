"""What a task's pods say: where they stand and, in one sentence, why they aren't further."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opengpu_operator.api.labels import AGENT_CONTAINER, GATE_PREFIX
from opengpu_operator.api.reasons import Reason
from opengpu_operator.desired import names
from opengpu_operator.kube.errors import tells_of_a_quota
from opengpu_operator.reconcile.environment import largest
from opengpu_operator.reconcile.gates import component, is_pod_ready

Object = Mapping[str, Any]

#: In what the scheduler says where a volume's node can't take the pod: since Kubernetes 1.35, and before.
_VOLUME_CONFLICTS = ("PersistentVolume's node affinity", "volume node affinity")
_PULL_ERRORS = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}
_START_ERRORS = {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}
#: What the kubelet says of an image that would run as root, or may (verifyRunAsNonRoot), in a pod that must not.
_ROOT_REFUSALS = ("runAsNonRoot", "non-root policy")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a task isn't further: a reason, and a sentence with what to do where that is known."""

    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All pods of a task at a glance."""

    total: int
    """Pods, and one for each workload whose pods are refused: what isn't there isn't ready either."""
    scheduled: int
    ready: int
    problem: Problem | None
    """The most telling one: refused before not placed before not started, the impossible before a busy cluster."""


def requested(pod: Object) -> dict[str, int]:
    """Return the extended resources that a pod asks for, by name."""
    totals: dict[str, int] = {}
    for container in pod.get("spec", {}).get("containers", []):
        for name, value in (container.get("resources", {}).get("limits") or {}).items():
            if "/" in name:
                totals[name] = totals.get(name, 0) + int(value)
    return totals


def addresses(pods: Iterable[Object]) -> dict[str, list[str]]:
    """Return the IP addresses of the pods that run or will, by component."""
    found: dict[str, list[str]] = {}
    for pod in pods:
        status = pod.get("status", {})
        if not pod["metadata"].get("deletionTimestamp") and status.get("phase") not in {
            "Succeeded",
            "Failed",
        }:
            found.setdefault(component(pod), []).extend(entry["ip"] for entry in status.get("podIPs", ()))
    return found


def _refusal(deployment: Object) -> Problem | None:
    """Return why a Deployment's pods aren't even made: a quota, a LimitRange, Pod Security, a webhook.

    Of a Job only events tell that, which aren't watched.
    """
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "")
            reason = Reason.QUOTA_EXCEEDED if tells_of_a_quota(message) else Reason.FORBIDDEN
            return Problem(reason=reason, message=f"{component(deployment)}: {message}")
    return None


def _scheduling_problem(pod: Object, nodes: list[Object], failed: Mapping[str, str]) -> Problem | None:
    if pod["spec"].get("nodeName"):
        return None
    name = component(pod)
    gates = [gate["name"] for gate in pod["spec"].get("schedulingGates") or []]
    if gates:
        for service, how in failed.items():
            if any(names.gate(until, service) in gates for until in ("completed", "healthy")):
                return Problem(
                    reason=Reason.DEPENDENCY_FAILED,
                    message=f"{name} never starts: it waits for {service}, which failed: {how}",
                )
        waits = ", ".join(gate.removeprefix(GATE_PREFIX) for gate in gates)
        return Problem(reason=Reason.WAITING_FOR_DEPENDENCY, message=f"{name} waits for {waits}")
    for resource, count in requested(pod).items():
        most = largest(nodes, resource)
        if count > most:
            return Problem(
                reason=Reason.NO_NODE_FITS,
                message=f"{name} asks for {count} {resource}, the largest node has {most}: "
                "ask for fewer or add such a node",
            )
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] != "PodScheduled" or condition["status"] != "False":
            continue
        message = condition.get("message", "")
        if _kept_by_a_volume(message):
            return Problem(
                reason=Reason.STORAGE_NODE_CONFLICT,
                message=f"{name}: its volume is on a node that can't take the pod: {message}",
            )
        busy = [resource for resource in requested(pod) if f"Insufficient {resource}" in message]
        reason = Reason.WAITING_FOR_GPUS if busy else Reason.UNSCHEDULABLE
        return Problem(reason=reason, message=f"{name}: {message}")
    return None


def _kept_by_a_volume(message: str) -> bool:
    """Return whether the scheduler says that a volume keeps a pod from nodes."""
    return any(words in message for words in _VOLUME_CONFLICTS)


def _container_problem(pod: Object) -> Problem | None:
    status = pod.get("status", {})
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        where = f"{component(pod)}/{container['name']}"
        if reason in _PULL_ERRORS:
            return Problem(reason=Reason.IMAGE_PULL_FAILED, message=f"{where}: {reason}: {message}")
        if reason == "CreateContainerConfigError" and any(words in message for words in _ROOT_REFUSALS):
            return Problem(
                reason=Reason.ROOT_REFUSED,
                message=f"{where} would run as root, which this cluster lets no container do "
                "(settings.pods.profile: restricted): give the service a user: other than 0, or an image whose USER "
                f"is such a number: {message}",
            )
        if reason in _START_ERRORS:
            last = container.get("lastState", {}).get("terminated") or {}
            how = (
                f" (last exit code {last['exitCode']}, {last.get('reason', '')})"
                if "exitCode" in last
                else ""
            )
            return Problem(reason=Reason.CONTAINER_FAILING, message=f"{where}: {reason}: {message}{how}")
    return None


_ORDER = (
    Reason.ROOT_REFUSED,
    Reason.QUOTA_EXCEEDED,
    Reason.FORBIDDEN,
    Reason.NO_NODE_FITS,
    Reason.STORAGE_NODE_CONFLICT,
    Reason.DEPENDENCY_FAILED,
    Reason.WAITING_FOR_GPUS,
    Reason.UNSCHEDULABLE,
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_FAILING,
    Reason.WAITING_FOR_DEPENDENCY,
)


def _failed(jobs: Iterable[Object], pods: Iterable[Object]) -> dict[str, str]:
    """Return the services whose Jobs failed for good, and how each ended."""
    return {
        component(job): exit_of(pods, component(job)) or str(condition.get("message", ""))
        for job in jobs
        for condition in job.get("status", {}).get("conditions", [])
        if condition["type"] == "Failed" and condition["status"] == "True"
    }


def summarise(
    pods: Iterable[Object],
    *,
    nodes: Iterable[Object],
    deployments: Iterable[Object] = (),
    jobs: Iterable[Object] = (),
) -> Summary:
    """Return where a task's pods stand. What is being deleted doesn't count."""
    pods = list(pods)
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    nodes = list(nodes)
    failed = _failed(jobs, pods)
    refusals = [
        refusal
        for deployment in deployments
        if not deployment["metadata"].get("deletionTimestamp") and (refusal := _refusal(deployment))
    ]
    problems = refusals + [
        problem
        for pod in alive
        if (problem := _scheduling_problem(pod, nodes, failed) or _container_problem(pod))
    ]
    problems.sort(key=lambda problem: _ORDER.index(problem.reason))
    return Summary(
        total=len(alive) + len(refusals),
        scheduled=sum(1 for pod in alive if pod["spec"].get("nodeName")),
        ready=sum(
            1 for pod in alive if is_pod_ready(pod) or pod.get("status", {}).get("phase") == "Succeeded"
        ),
        problem=problems[0] if problems else None,
    )


def pinned(pods: Iterable[Object], *, before: datetime) -> list[Object]:
    """Return the pods that have been waiting since ``before`` for a node that their volumes keep them from."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp") and not pod["spec"].get("nodeName")
        for condition in pod.get("status", {}).get("conditions", [])
        if condition["type"] == "PodScheduled"
        and condition["status"] == "False"
        and _kept_by_a_volume(condition.get("message", ""))
        and datetime.fromisoformat(condition["lastTransitionTime"]) <= before
    ]


def main_container(pod: Object) -> Object | None:
    """Return the status of a pod's first application container, if the kubelet has reported one."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    name = component(pod)
    return next((status for status in statuses if status["name"] == name), statuses[0] if statuses else None)


def exit_of(pods: Iterable[Object], name: str) -> str | None:
    """Return how a service's container ended last, as ``exit code 3 (Error)``; None if no pod shows it."""
    ends = [
        ended
        for pod in pods
        if component(pod) == name
        and (ended := ((main_container(pod) or {}).get("state") or {}).get("terminated"))
    ]
    if not ends:
        return None
    last = max(ends, key=lambda ended: str(ended.get("finishedAt", "")))
    return f"exit code {last.get('exitCode')} ({last.get('reason', 'unknown')})"


def agent_restarted(pod: Object) -> bool:
    """Return whether the agent's container restarted under a running application, whose socket is then dead."""
    for status in pod.get("status", {}).get("initContainerStatuses", []):
        if status["name"] != AGENT_CONTAINER or not status.get("restartCount"):
            continue
        since = (status.get("state", {}).get("running") or {}).get("startedAt", "")
        application = (main_container(pod) or {}).get("state", {}).get("running") or {}
        started = application.get("startedAt", "")
        return bool(since and started and started < since)
    return False

"""depends_on and shared volumes by scheduling gates: which gates may be lifted now.

A gate's name says what it waits for: ``healthy.<service>``, ``completed.<service>`` or ``placed.<service>``. A pod
that waits holds no node, no GPU and no token. Lifting is level-triggered: the same facts give the same answer after
any restart, and a gate once lifted stays lifted even if the sibling fails later, as in Compose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opengpu_operator.api.labels import COMPONENT, GATE_PREFIX

Object = Mapping[str, Any]


def component(obj: Object) -> str:
    """Return the service (its DNS name) that a child belongs to."""
    return str(obj["metadata"].get("labels", {}).get(COMPONENT, ""))


def is_pod_ready(pod: Object) -> bool:
    """Return whether a pod's Ready condition is True."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions", [])
    )


def is_job_complete(job: Object) -> bool:
    """Return whether a Job ended well."""
    return any(
        condition["type"] == "Complete" and condition["status"] == "True"
        for condition in job.get("status", {}).get("conditions", [])
    )


@dataclass(frozen=True, kw_only=True)
class Lift:
    """A pod and the gates it keeps; all others are lifted."""

    pod: Object
    lifted: tuple[str, ...]
    keep: tuple[str, ...]

    def patch(self) -> list[dict[str, Any]]:
        """Return the JSON patch, which fails rather than overwrite gates that changed meanwhile."""
        before = self.pod["spec"]["schedulingGates"]
        path = "/spec/schedulingGates"
        return [
            {"op": "test", "path": path, "value": [dict(gate) for gate in before]},
            {"op": "replace", "path": path, "value": [{"name": name} for name in self.keep]},
        ]


def lifts(
    *, pods: Iterable[Object], jobs: Iterable[Object], gate_of: Callable[[str, str], str]
) -> list[Lift]:
    """Return the gates to lift now.

    ``gate_of(until, service)`` gives the full name of a gate, as ``desired.names`` made it.
    """
    pods = list(pods)
    open_gates = set()
    for pod in pods:
        if is_pod_ready(pod):
            open_gates.add(gate_of("healthy", component(pod)))
        if pod.get("spec", {}).get("nodeName"):
            open_gates.add(gate_of("placed", component(pod)))
    for job in jobs:
        if is_job_complete(job):
            # A Job that is over was healthy and placed once, though no pod of it may be left to show it.
            for until in ("completed", "healthy", "placed"):
                open_gates.add(gate_of(until, component(job)))
    found = []
    for pod in pods:
        gates = [gate["name"] for gate in pod.get("spec", {}).get("schedulingGates") or []]
        lifted = tuple(name for name in gates if name in open_gates and name.startswith(GATE_PREFIX))
        if lifted:
            keep = tuple(name for name in gates if name not in lifted)
            found.append(Lift(pod=pod, lifted=lifted, keep=keep))
    return found

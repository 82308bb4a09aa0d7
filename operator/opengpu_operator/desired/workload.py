"""Deployments and Jobs.

A Job's pods are never restarted in place (``restartPolicy: Never``): with ``OnFailure`` Kubernetes counts
restarts of the sidecar against the file's ``on-failure:N``, stops one short of N, and takes the logs away
with the pod.
"""

from __future__ import annotations

from typing import Any

from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.plan import Unit

Object = dict[str, Any]

#: Kubernetes' word for no deadline: an image of 20 GB or a gate isn't a failed rollout.
_NO_DEADLINE = 2**31 - 1

#: A pod that the cluster took away (eviction, preemption, a lost node) has not failed: another one takes its place.
_DISRUPTIONS: Object = {
    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
}


def name(unit: Unit, context: JobContext) -> str:
    """Return the name of a unit's workload."""
    return names.child(context.name, unit.component)


def build(unit: Unit, template: Object, *, context: JobContext, gpu: bool, claims: bool) -> Object:
    """Return the workload of a unit; ``gpu`` and ``claims`` say whether its pods hold GPUs and volumes."""
    metadata = labels.metadata(
        name(unit, context),
        context,
        labels=labels.of_job(context, unit.component),
        owner=context.owner_reference,
    )
    suspended = bool(context.spec.suspend)
    replicas = unit.root.replicas
    if unit.kind == "Job":
        spec: Object = {
            "backoffLimit": unit.retries,
            "completions": max(replicas, 1),
            "parallelism": replicas,
            "podFailurePolicy": _DISRUPTIONS,
            "suspend": suspended,
            "template": template,
        }
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 0 if suspended else replicas,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": _NO_DEADLINE,
            "selector": {"matchLabels": labels.selector(context, unit.component)},
            "strategy": _strategy(unit, gpu=gpu, claims=claims),
            "template": template,
        },
    }


def _strategy(unit: Unit, *, gpu: bool, claims: bool) -> Object:
    if claims and not gpu:
        # Two databases on one volume would ruin it.
        return {"type": "Recreate"}
    # No new pod beside the old ones: there may be no GPU for it, and it would answer to the same name.
    at_once = unit.root.update_parallelism or "100%"
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": at_once}}

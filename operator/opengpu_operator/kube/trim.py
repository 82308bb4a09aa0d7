"""What is kept of an object that an informer saw: only what reconciling reads.

Ten thousand tasks have some eighty thousand children, most of whose bytes (managed fields, defaulted specs) nobody
here ever looks at. One pure function per kind keeps the rest, with the keys of all dicts shared, and with what the
children of a task have in common. (What is interned goes with the last that refers to it.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import intern
from typing import Any, Final

from opengpu_operator.api.labels import COMPONENT, GROUP, MANAGED_BY, OWNER, TASK_UID
from opengpu_operator.kube.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    HTTP_ROUTE,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    PVC,
    SOURCE,
    STORAGE_CLASS,
    TASK,
    Kind,
)

Object = dict[str, Any]
Trim = Callable[[Mapping[str, Any]], Object]

_OURS: Final = f"{GROUP}/"
#: What is read of a child's labels; the others say the same again, to people.
_LABELS: Final = frozenset({TASK_UID, COMPONENT, MANAGED_BY, OWNER})


def compact(value: Any) -> Any:
    """Return a copy of a JSON value that shares its keys with every other copy."""
    if isinstance(value, Mapping):
        return {intern(key): compact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [compact(item) for item in value]
    return value


def pick(value: Mapping[str, Any] | None, *keys: str) -> Object:
    """Return some entries of an object, where they are there and say something."""
    if not value:
        return {}
    return {key: compact(item) for key in keys if (item := value.get(key)) not in (None, {}, [], "")}


def _picks(values: Any, *keys: str) -> list[Object]:
    return [pick(value, *keys) for value in values or ()]


def _metadata(obj: Mapping[str, Any], *, labels_of: str | None = None) -> Object:
    """Keep what identifies an object; ``labels_of``: and all labels with this prefix."""
    metadata = obj["metadata"]
    kept = pick(
        metadata,
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "deletionTimestamp",
        "finalizers",
    )
    if "namespace" in kept:
        kept["namespace"] = intern(kept["namespace"])
    labels = {
        intern(key): intern(value)
        for key, value in (metadata.get("labels") or {}).items()
        if key in _LABELS or (labels_of is not None and key.startswith(labels_of))
    }
    if labels:
        kept["labels"] = labels
    annotations = {
        intern(key): value
        for key, value in (metadata.get("annotations") or {}).items()
        if key.startswith(_OURS)
    }
    if annotations:
        kept["annotations"] = annotations
    owners = metadata.get("ownerReferences")
    if owners:
        kept["ownerReferences"] = [
            {key: intern(owner[key]) for key in ("kind", "name", "uid")} | pick(owner, "controller")
            for owner in owners
        ]
    return kept


def _parts(obj: Mapping[str, Any], **parts: Object) -> Object:
    kept: Object = {"metadata": _metadata(obj)}
    for name, part in parts.items():
        if part:
            kept[name] = part
    return kept


def metadata_only(obj: Mapping[str, Any]) -> Object:
    """Keep metadata alone: that the object is there, whose it is, and what it was made from."""
    return {"metadata": _metadata(obj)}


def custom(obj: Mapping[str, Any]) -> Object:
    """Keep all of one of our own kinds but the metadata that isn't ours."""
    kept = _parts(obj, spec=compact(obj.get("spec") or {}), status=compact(obj.get("status") or {}))
    metadata = _metadata(obj, labels_of=_OURS) | pick(obj["metadata"], "generation", "creationTimestamp")
    return kept | {"metadata": metadata}


def _container_statuses(values: Any) -> list[Object]:
    kept = []
    for value in values or ():
        status = pick(value, "name", "ready", "started", "restartCount", "state", "lastState")
        for state in ("state", "lastState"):
            for phase in status.get(state, {}).values():
                phase.pop("containerID", None)
        kept.append(status)
    return kept


def pod(obj: Mapping[str, Any]) -> Object:
    """Keep where a pod is, at which addresses, what holds it, its GPUs and how its containers are."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    kept_spec = pick(spec, "nodeName", "schedulingGates")
    kept_spec["containers"] = [
        {"name": container["name"], "resources": pick(container.get("resources"), "limits")}
        for container in spec.get("containers") or ()
    ]
    kept_status = pick(status, "phase", "reason", "message", "startTime", "podIPs")
    conditions = _picks(status.get("conditions"), "type", "status", "reason", "message", "lastTransitionTime")
    if conditions:
        kept_status["conditions"] = conditions
    for name in ("initContainerStatuses", "containerStatuses"):
        if status.get(name):
            kept_status[name] = _container_statuses(status[name])
    return _parts(obj, spec=kept_spec, status=kept_status)


def deployment(obj: Mapping[str, Any]) -> Object:
    """Keep why a Deployment's pods are refused, if they are: a pod that was never made can't say it."""
    refused = [
        condition
        for condition in (obj.get("status") or {}).get("conditions") or ()
        if condition["type"] == "ReplicaFailure"
    ]
    if not refused:
        return _parts(obj)
    return _parts(obj, status={"conditions": _picks(refused, "type", "status", "reason", "message")})


def job(obj: Mapping[str, Any]) -> Object:
    """Keep how a Job stands."""
    status = obj.get("status") or {}
    kept = pick(status, "active", "ready", "succeeded", "failed", "startTime", "completionTime")
    conditions = _picks(status.get("conditions"), "type", "status", "reason", "message", "lastTransitionTime")
    if conditions:
        kept["conditions"] = conditions
    return _parts(obj, spec=pick(obj.get("spec"), "suspend"), status=kept)


def claim(obj: Mapping[str, Any]) -> Object:
    """Keep how large an owner's claim is and since when; of all others, that they are there."""
    kept = _parts(obj)
    if OWNER not in kept["metadata"].get("labels", {}):
        return kept
    kept["metadata"] |= pick(obj["metadata"], "creationTimestamp")
    spec = obj.get("spec") or {}
    return kept | {
        "spec": pick(spec, "storageClassName") | {"resources": pick(spec.get("resources"), "requests")},
        "status": pick(obj.get("status"), "phase"),
    }


def storage_class(obj: Mapping[str, Any]) -> Object:
    """Keep what becomes of a class's volumes."""
    return {"metadata": _metadata(obj), **pick(obj, "reclaimPolicy", "allowVolumeExpansion")}


def http_route(obj: Mapping[str, Any]) -> Object:
    """Keep why a Gateway doesn't take a route, if one doesn't."""
    refused = [
        pick(condition, "type", "status", "reason", "message")
        for parent in (obj.get("status") or {}).get("parents") or ()
        for condition in parent.get("conditions") or ()
        if condition["type"] in {"Accepted", "ResolvedRefs"} and condition["status"] == "False"
    ]
    return _parts(obj, status={"refused": refused} if refused else {})


def controller_revision(obj: Mapping[str, Any]) -> Object:
    """Keep a revision's number; its data is read from the API server when it is needed."""
    return _parts(obj) | pick(obj, "revision")


def node(obj: Mapping[str, Any]) -> Object:
    """Keep what a node has and whether it takes pods, without the heartbeats."""
    status = obj.get("status") or {}
    kept = pick(status, "allocatable")
    kept["conditions"] = _picks(status.get("conditions"), "type", "status")
    return {
        "metadata": _metadata(obj, labels_of=""),
        "spec": pick(obj.get("spec"), "unschedulable", "taints"),
        "status": kept,
    }


def namespace(obj: Mapping[str, Any]) -> Object:
    """Keep a namespace's labels and whether it is being deleted."""
    return {"metadata": _metadata(obj, labels_of=""), "status": pick(obj.get("status"), "phase")}


_TRIMS: Final[dict[Kind, Trim]] = {
    SOURCE: custom,
    TASK: custom,
    POD: pod,
    DEPLOYMENT: deployment,
    JOB: job,
    PVC: claim,
    STORAGE_CLASS: storage_class,
    CONTROLLER_REVISION: controller_revision,
    HTTP_ROUTE: http_route,
    NODE: node,
    NAMESPACE: namespace,
}


def trim(kind: Kind, obj: Mapping[str, Any]) -> Object:
    """Return what is kept of an object."""
    return _TRIMS.get(kind, metadata_only)(obj)

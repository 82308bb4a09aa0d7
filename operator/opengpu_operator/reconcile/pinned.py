"""Whether a pod waits in vain for a node, because a volume of it is on nodes that can never hold it.

The scheduler says that volumes and pod don't meet, but not whether that may change. It can't where every node that the
volume allows is there and lacks, even empty, what the pod asks for. All of it is asked of the API server as it is now,
since a task ends by it. What nodes have is their capacity, from which a device plugin that restarts takes nothing; but
a node that boots has no GPUs until its plugin is up, so one that is only just ready isn't judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from opengpu_operator.desired.quantities import parse
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import NODE, PERSISTENT_VOLUME, POD, PVC

Object = Mapping[str, Any]

#: How long after a node became ready it has everything that it will have.
SETTLED_AFTER: Final = timedelta(minutes=5)


async def never_fits(gateway: Gateway, namespace: str, name: str, *, now: datetime) -> str | None:
    """Return why a pod that waits for a node will never get one, as a sentence; None if it may, or is gone."""
    pod = await gateway.get(POD, namespace, name)
    if pod is None or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
        return None
    nodes = await gateway.list(NODE)
    settled = {node["metadata"]["name"] for node in nodes if _settled(node, now)}
    for volume in pod["spec"].get("volumes") or ():
        claim_name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        claim = await gateway.get(PVC, namespace, claim_name) if claim_name else None
        volume_name = ((claim or {}).get("spec") or {}).get("volumeName")
        held = await gateway.get(PERSISTENT_VOLUME, None, volume_name) if volume_name else None
        why = _conflict(pod, held, nodes, settled=settled) if held is not None else None
        if why is not None:
            return f"claim {claim_name} is on {why}"
    return None


def _settled(node: Object, now: datetime) -> bool:
    """Return whether a node has been ready for long."""
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and datetime.fromisoformat(condition["lastTransitionTime"]) <= now - SETTLED_AFTER
        for condition in (node.get("status") or {}).get("conditions") or ()
    )


def _conflict(
    pod: Object, volume: Object, nodes: Iterable[Object], *, settled: Collection[str]
) -> str | None:
    """Return which nodes a volume is on and what they lack; None where one of them would do, or isn't all there."""
    required = ((volume["spec"].get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms")
    if not required:
        return None
    allowed = [node for node in nodes if selects(required, node)]
    if not allowed or any(node["metadata"]["name"] not in settled for node in allowed):
        # Its node may come back with the volume, and with all that it has.
        return None
    lacks = {node["metadata"]["name"]: lack(pod, node) for node in allowed}
    if not all(lacks.values()):
        return None
    return "; ".join(f"{name}, which {what}" for name, what in sorted(lacks.items()))


def lack(pod: Object, node: Object) -> str | None:
    """Return what a node lacks for a pod even when it is empty, as ``has 0 amd.com/gpu of 1``; None if nothing."""
    spec, labels = pod["spec"], node["metadata"].get("labels") or {}
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return f"isn't labelled {key}={value}"
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    if terms and not selects(terms, node):
        return "isn't labelled as the pod's node affinity asks"
    capacity = (node.get("status") or {}).get("capacity") or {}
    for resource, wanted in requests(pod).items():
        has = parse(capacity.get(resource, "0"))
        if wanted > has:
            return f"has {has} {resource} of {wanted}"
    return None


def requests(pod: Object) -> dict[str, Decimal]:
    """Return what a pod's containers ask for together; what is limited and not asked for counts as asked for."""
    totals: dict[str, Decimal] = {}
    for container in pod["spec"].get("containers") or ():
        resources = container.get("resources") or {}
        for resource, value in {
            **(resources.get("limits") or {}),
            **(resources.get("requests") or {}),
        }.items():
            totals[resource] = totals.get(resource, Decimal()) + parse(value)
    return totals


def selects(terms: Iterable[Object], node: Object) -> bool:
    """Return whether any of a node selector's terms matches a node; a term without expressions matches none."""
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_matches(rule, labels) for rule in term.get("matchExpressions") or ())
        and all(_matches(rule, fields) for rule in term.get("matchFields") or ())
        for term in terms
    )


def _matches(rule: Object, values: Mapping[str, str]) -> bool:
    value, wanted = values.get(rule["key"]), list(rule.get("values") or ())
    match rule["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and value.isdecimal() and int(value) > int(wanted[0])
        case "Lt":
            return value is not None and value.isdecimal() and int(value) < int(wanted[0])
    # An operator of a later Kubernetes: nothing is concluded from what isn't understood.
    return True

"""Pods: the containers of a unit with the names, the resolver and the restraints that all jobs have."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from opengpu_operator.api.findings import Finding
from opengpu_operator.api.translation import Service
from opengpu_operator.desired import agent, labels, names, placement
from opengpu_operator.desired.containers import scratch_name
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.placement import Placement
from opengpu_operator.desired.plan import Unit
from opengpu_operator.desired.problems import Problems
from opengpu_operator.settings import Settings

Object = dict[str, Any]

#: The kubelet takes no more.
_NAMESERVERS = 3
#: Compose's own, where a file doesn't say how long a service may take to stop.
_GRACE_SECONDS = 10
#: A pod that is told to stop keeps its GPUs and volumes until it has.
_LONGEST_GRACE_SECONDS = 300
_FRAGMENTS = frozenset(
    {
        "hostAliases",
        "nodeSelector",
        "securityContext",
        "terminationGracePeriodSeconds",
        "volumes",
    }
)
_ARCHITECTURE = "kubernetes.io/arch"
_GROUP = 65532


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a unit's pod is put together from."""

    containers: Sequence[Object]
    volumes: Sequence[Object]
    """Volumes of claims and files."""
    agent: Object | None
    placement: Placement
    selectors: Mapping[str, Mapping[str, str]]
    """The pod labels of all the job's units, by component."""


def gates(unit: Unit, where: Placement) -> list[str]:
    """Return the scheduling gates of a unit's pods."""
    found = [names.gate(wait.until, wait.component) for wait in unit.waits]
    if where.behind is not None:
        found.append(names.gate("placed", where.behind))
    return list(dict.fromkeys(found))


def template(
    unit: Unit,
    parts: Parts,
    *,
    context: JobContext,
    settings: Settings,
    problems: Problems,
) -> tuple[Object, list[Finding]]:
    """Return a unit's pod template, and what was changed in it."""
    for member in unit.members:
        for key in member.pod:
            if key not in _FRAGMENTS:
                problems.file(f"services.{member.name}: a pod may not have {key}")
    aliases, findings = _host_aliases(unit, settings)
    grace, grace_findings = _grace(unit)
    spec: Object = {
        "hostname": unit.component,
        "subdomain": context.name,
        **_dns(context, settings),
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "restartPolicy": "Always" if unit.kind == "Deployment" else "Never",
        "terminationGracePeriodSeconds": grace,
        "securityContext": _security(unit, parts, settings),
        "containers": _containers(parts),
    }
    if parts.agent is not None:
        spec["initContainers"] = [parts.agent]
    pod_volumes = [
        *_scratch(unit),
        *parts.volumes,
        *(agent.volumes(context) if parts.agent is not None else ()),
    ]
    optional: Object = {
        "volumes": pod_volumes,
        "hostAliases": aliases,
        "imagePullSecrets": [{"name": name} for name in context.image_pull_secrets],
        "priorityClassName": settings.pods.priority_class_name,
        "runtimeClassName": _runtime_class(parts.placement, settings),
        "nodeSelector": _node_selector(unit, parts.placement, settings),
        "tolerations": placement.tolerations(parts.placement),
        "affinity": placement.affinity(parts.placement, selectors=parts.selectors),
        "schedulingGates": [{"name": name} for name in gates(unit, parts.placement)],
    }
    spec |= {key: value for key, value in optional.items() if value}
    metadata = {"labels": labels.of_job(context, unit.component) | labels.of_networks(unit.root)}
    return {"metadata": metadata, "spec": spec}, [*findings, *grace_findings]


def resolvers(context: JobContext, settings: Settings) -> list[str]:
    """Return the addresses of the resolvers; ValueError where there is none or it isn't an address."""
    found = list(dict.fromkeys([*settings.pods.nameservers] or [*context.resolvers]))[:_NAMESERVERS]
    if not found:
        message = "the cluster's resolvers are unknown: set pods.nameservers"
        raise ValueError(message)
    return [str(ipaddress.ip_address(address)) for address in found]


def _dns(context: JobContext, settings: Settings) -> Object:
    domain = settings.pods.cluster_domain
    own = f"{context.namespace}.svc.{domain}"
    return {
        # With ClusterFirst the namespace's own domain comes first: any Service in it could take a
        # sibling's name.
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": resolvers(context, settings),
            "searches": [f"{context.name}.{own}", own, f"svc.{domain}", domain],
            # Siblings' names have no dot; public names then take one question and not five.
            "options": [{"name": "ndots", "value": "1"}],
        },
    }


def _containers(parts: Parts) -> list[Object]:
    """Return the pod's containers; a port that several of them declare is one, and is declared once."""
    found, seen = [], set()
    for container in parts.containers:
        ports = [port for port in container.get("ports") or [] if tuple(port.items()) not in seen]
        seen |= {tuple(port.items()) for port in ports}
        rest = {key: value for key, value in container.items() if key != "ports"}
        found.append({**rest, "ports": ports} if ports else rest)
    return found


def _security(unit: Unit, parts: Parts, settings: Settings) -> Object:
    found: Object = {}
    groups: list[int] = []
    sysctls: dict[str, Object] = {}
    for member in unit.members:
        given = member.pod.get("securityContext") or {}
        groups += given.get("supplementalGroups") or []
        sysctls |= {item["name"]: item for item in given.get("sysctls") or []}
        # Of containers that share a pod the first has its way: the network's owner.
        found = {**given, **found}
    groups += [group for gpu in parts.placement.gpus for group in gpu.gpu_class.supplemental_groups]
    if groups:
        found["supplementalGroups"] = list(dict.fromkeys(groups))
    if sysctls:
        found["sysctls"] = list(sysctls.values())
    found["seccompProfile"] = {"type": "RuntimeDefault"}
    restricted = settings.pods.profile == "restricted"
    if restricted:
        found["runAsNonRoot"] = True
    if any("persistentVolumeClaim" in volume for volume in parts.volumes) and (
        restricted or any(_user(member) for member in unit.members)
    ):
        # A fresh volume belongs to root. One group for all, since pods of different users may share it.
        found = {"fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch", **found}
    return found


def _user(member: Service) -> int:
    """Return the number of a service's user as the file has it; 0 where it is root or the image's own."""
    return int((member.container.get("securityContext") or {}).get("runAsUser") or 0)


def _scratch(unit: Unit) -> list[Object]:
    return [
        {**volume, "name": scratch_name(member, volume["name"])}
        for member in unit.members
        for volume in member.pod.get("volumes") or []
    ]


def _host_aliases(unit: Unit, settings: Settings) -> tuple[list[Object], list[Finding]]:
    """Return the pod's extra hosts, none of which may lead the agent's token to somebody else's store."""
    store = urlsplit(agent.store_url(settings)).hostname or ""
    pods = urlsplit(settings.store.pods_url or "").hostname or ""
    found, findings = [], []
    for member in unit.members:
        for item in member.pod.get("hostAliases") or []:
            kept = [
                name for name in item.get("hostnames") or [] if name.lower().rstrip(".") not in {store, pods}
            ]
            if kept:
                found.append({"ip": item["ip"], "hostnames": kept})
            if len(kept) < len(item.get("hostnames") or []):
                findings.append(
                    remark(
                        JobFinding.HOST_ALIAS_DROPPED,
                        path=f"services.{member.name}.extra_hosts",
                        message=f"{store} is the store's name.",
                    )
                )
    return found, findings


def _grace(unit: Unit) -> tuple[int, list[Finding]]:
    asked = max(
        int(member.pod.get("terminationGracePeriodSeconds", _GRACE_SECONDS)) for member in unit.members
    )
    if asked <= _LONGEST_GRACE_SECONDS:
        return asked, []
    finding = remark(
        JobFinding.GRACE_PERIOD_CAPPED,
        path=f"services.{unit.root.name}.stop_grace_period",
        message=f"{asked} seconds to stop are cut to {_LONGEST_GRACE_SECONDS}.",
    )
    return _LONGEST_GRACE_SECONDS, [finding]


def _runtime_class(where: Placement, settings: Settings) -> str | None:
    classes = [gpu.gpu_class.runtime_class_name for gpu in where.gpus if gpu.gpu_class.runtime_class_name]
    return classes[0] if classes else settings.pods.runtime_class_name


def _node_selector(unit: Unit, where: Placement, settings: Settings) -> dict[str, str]:
    allowed = {_ARCHITECTURE, *settings.pods.placement_labels}
    found: dict[str, str] = {}
    for member in unit.members:
        wanted = member.pod.get("nodeSelector") or {}
        # The settings may allow less than when the file was translated.
        found |= {key: value for key, value in wanted.items() if key in allowed}
    # What the cluster's owner says of GPU nodes is not for a file to change.
    return found | placement.node_selector(where)

"""Where pods go: pods that share a volume go to one node, which the most demanding of them chooses.

A volume that only one node can mount is made where its first pod lands. Were that a small helper, a GPU
service could be tied for good to a node without GPUs. So the most demanding pod is placed first; the others
are gated until it is, and follow it by affinity. Pods that it waits for itself (``depends_on``) can't come
after it: they go first, with its demands on the node as far as labels and taints can express them, and it
follows them.

An affinity to a pod is required only if that pod stays: nothing can follow the pod of a Job that has ended.
The volume's own node affinity does it then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from opengpu_operator.api.findings import Finding
from opengpu_operator.desired import plan, resources
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.plan import Unit
from opengpu_operator.desired.resources import GpuNeed

Object = dict[str, Any]
Demand = tuple[int, Decimal, Decimal]

#: Scheduling by preference: the largest weight there is.
_WEIGHT = 100


@dataclass(kw_only=True)
class Placement:
    """What a unit's pods are told about nodes."""

    behind: str | None = None
    """The unit that must have a node first."""
    near: str | None = None
    """The unit whose node is the only one that will do."""
    near_if_running: str | None = None
    """A unit that may be over by then; its node if it is still there."""
    gpus: list[GpuNeed] = field(default_factory=list)
    """The pods' own GPUs."""
    neighbours: list[GpuNeed] = field(default_factory=list)
    """GPUs of those that they share a volume with, whose node must tolerate them too."""
    chooses_for: list[GpuNeed] = field(default_factory=list)
    """GPUs of a unit that will have to follow these pods to their node."""


def place(
    units: Iterable[Unit],
    *,
    claims: Mapping[str, Collection[str]],
    demands: Mapping[str, Demand],
    gpus: Mapping[str, list[GpuNeed]],
) -> tuple[dict[str, Placement], list[Finding]]:
    """Return each unit's placement, by component; ``claims`` are the one-node claims that each mounts."""
    units = list(units)
    placements = {unit.component: Placement(gpus=list(gpus[unit.component])) for unit in units}
    placer = _Placer(units=units, placements=placements, demands=demands)
    for group in _sharers([unit for unit in units if unit.root.replicas], claims):
        for unit in group:
            others = [other for other in group if other is not unit]
            placements[unit.component].neighbours = [gpu for other in others for gpu in gpus[other.component]]
        placer.place(group)
    for unit in units:
        placement = placements[unit.component]
        if unit.root.replicas > 1 and claims[unit.component] and placement.near is None:
            # Its own pods share the volume too; the scheduler lets the first of them go anywhere.
            placement.near = unit.component
    return placements, placer.findings


def _sharers(units: list[Unit], claims: Mapping[str, Collection[str]]) -> list[list[Unit]]:
    """Return the groups of two or more units that are tied to each other by volumes, directly or not."""
    groups: list[tuple[set[str], list[Unit]]] = []
    for unit in units:
        names, members = set(claims[unit.component]), [unit]
        rest = []
        for other_names, others in groups:
            if names & other_names:
                names |= other_names
                members = [*others, *members]
            else:
                rest.append((other_names, others))
        groups = [*rest, (names, members)]
    order = {unit.component: index for index, unit in enumerate(units)}
    found = [
        sorted(members, key=lambda unit: order[unit.component]) for _, members in groups if len(members) > 1
    ]
    return sorted(found, key=lambda members: order[members[0].component])


@dataclass(kw_only=True)
class _Placer:
    units: list[Unit]
    placements: dict[str, Placement]
    demands: Mapping[str, Demand]
    findings: list[Finding] = field(default_factory=list)
    edges: dict[str, set[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.edges = defaultdict(set, plan.wait_edges(self.units))

    def place(self, group: list[Unit]) -> Unit:
        """Place a group, given in the file's order, and return the unit that others can follow."""
        leader = min(group, key=self._rank)
        before = plan.reach(self.edges, leader.component)
        first = [unit for unit in group if unit.component in before]
        after = [unit for unit in group if unit is not leader and unit not in first]
        anchor = leader
        if first:
            self._choose_for(leader, first)
            anchor = self.place(first)
            self._follow(leader, anchor)
            if anchor.kind == "Job":
                anchor = leader
        if not after:
            return anchor
        if anchor.kind == "Deployment":
            for unit in after:
                self._gate(unit, anchor)
                self._follow(unit, anchor)
            return anchor
        # Nobody can follow a Job for good, so the others keep together among themselves.
        last = self.place(after)
        for unit in after:
            placement = self.placements[unit.component]
            if placement.behind is None:
                self._gate(unit, anchor)
            if placement.near is None and placement.near_if_running is None:
                self._follow(unit, anchor)
        return last if last.kind == "Deployment" else anchor

    def _rank(self, unit: Unit) -> tuple[int, bool, Decimal, Decimal]:
        """Return what puts the most demanding first; of two alike, one that stays."""
        gpus, memory, cpu = self.demands[unit.component]
        return -gpus, unit.kind == "Job", -memory, -cpu

    def _gate(self, unit: Unit, anchor: Unit) -> None:
        self.placements[unit.component].behind = anchor.component
        self.edges[unit.component].add(anchor.component)

    def _follow(self, unit: Unit, anchor: Unit) -> None:
        if anchor.kind == "Deployment":
            self.placements[unit.component].near = anchor.component
        else:
            self.placements[unit.component].near_if_running = anchor.component

    def _choose_for(self, leader: Unit, first: list[Unit]) -> None:
        needed = self.placements[leader.component].gpus
        for unit in first if needed else ():
            placement = self.placements[unit.component]
            placement.chooses_for += [gpu for gpu in needed if gpu not in placement.chooses_for]
            if not placement.gpus:
                self.findings.append(
                    remark(
                        JobFinding.PLACED_BEFORE_GPU,
                        path=f"services.{leader.root.name}.depends_on",
                        message=f"{unit.component} runs before {leader.component} and shares a volume with "
                        "it, so it chooses the node on which GPUs are needed later.",
                    )
                )


def affinity(placement: Placement, *, selectors: Mapping[str, Mapping[str, str]]) -> Object:
    """Return a pod's affinity, if any; ``selectors`` are the units' pod labels by component."""
    found: Object = {}
    required = [
        term for gpu in [*placement.gpus, *placement.chooses_for] for term in resources.node_terms(gpu)
    ]
    node: Object = {}
    if required:
        terms = [term for index, term in enumerate(required) if term not in required[:index]]
        node["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchExpressions": terms}]
        }
    preferred = {gpu.gpu_class.product_label: gpu for gpu in placement.chooses_for}
    if preferred:
        node["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": _WEIGHT, "preference": {"matchExpressions": [{"key": label, "operator": "Exists"}]}}
            for label in preferred
        ]
    if node:
        found["nodeAffinity"] = node
    if placement.near is not None:
        found["podAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": [_beside(selectors[placement.near])]
        }
    elif placement.near_if_running is not None:
        found["podAffinity"] = {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": _WEIGHT, "podAffinityTerm": _beside(selectors[placement.near_if_running])}
            ]
        }
    return found


def _beside(labels: Mapping[str, str]) -> Object:
    return {"labelSelector": {"matchLabels": dict(labels)}, "topologyKey": "kubernetes.io/hostname"}


def node_selector(placement: Placement) -> dict[str, str]:
    """Return the cluster's node selector for GPU pods, and for pods that choose a node for one."""
    found: dict[str, str] = {}
    for gpu in [*placement.gpus, *placement.chooses_for]:
        found |= gpu.gpu_class.node_selector
    return found


def tolerations(placement: Placement) -> list[Object]:
    """Return the tolerations that let the pods on the nodes of the GPUs concerned."""
    found: list[Object] = []
    for gpu in [*placement.gpus, *placement.neighbours, *placement.chooses_for]:
        found += [dict(item) for item in gpu.gpu_class.tolerations if item not in found]
    return found

"""Whether a pod can ever run where its volume is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import NODE, PERSISTENT_VOLUME, POD, PVC
from opengpu_operator.reconcile.pinned import never_fits, selects
from tests.unit.reconcile.builders import NOW, at
from tests.unit.reconcile.fakes import ApiServer


def rule(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


class World:
    """A pod that asks for an AMD GPU, and whose volume is on node-a."""

    def __init__(self) -> None:
        self.api = ApiServer()
        self.node("node-a", cpu="8")
        self.node("node-b", cpu="8", gpus="2")
        self.volume(rule("kubernetes.io/hostname", "In", "node-a"))
        spec = {"volumeName": "pv"}
        self.api.put(PVC, {"metadata": {"name": "usr", "namespace": "team"}, "spec": spec})
        self.pod()

    def node(
        self, name: str, *, cpu: str, gpus: str | None = None, ready: str = "True", since: float = -300
    ) -> None:
        capacity = {"cpu": cpu} | ({"amd.com/gpu": gpus} if gpus else {})
        conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": at(since)}]
        status = {"capacity": capacity, "conditions": conditions}
        labels = {"kubernetes.io/hostname": name}
        self.api.put(NODE, {"metadata": {"name": name, "labels": labels}, "status": status})

    def volume(self, *rules: dict[str, Any]) -> None:
        affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": list(rules)}]}} if rules else {}
        spec = {"nodeAffinity": affinity}
        self.api.put(PERSISTENT_VOLUME, {"metadata": {"name": "pv"}, "spec": spec})

    def pod(self, *, resources: dict[str, Any] | None = None, metadata: Any = None, **spec: Any) -> None:
        containers = [
            {"name": "a", "resources": {"limits": {"amd.com/gpu": "1"}} if resources is None else resources},
            {"name": "b", "resources": {"requests": {"cpu": "100m"}}},
        ]
        volumes = [
            {"name": "tmp", "emptyDir": {}},
            {"name": "usr", "persistentVolumeClaim": {"claimName": "usr"}},
        ]
        self.api.put(
            POD,
            {
                "metadata": {"name": "p", "namespace": "team", **(metadata or {})},
                "spec": {"containers": containers, "volumes": volumes, **spec},
            },
        )

    async def why(self) -> str | None:
        return await never_fits(cast("Gateway", self.api), "team", "p", now=NOW)


async def test_a_pod_whose_volume_is_on_a_node_without_its_gpus_never_fits():
    world = World()
    assert await world.why() == "claim usr is on node-a, which has 0 amd.com/gpu of 1"


async def test_more_of_anything_than_the_node_has_never_fits():
    world = World()
    world.pod(resources={"requests": {"cpu": "7950m"}})
    assert await world.why() == "claim usr is on node-a, which has 8 cpu of 8.050"


async def test_a_label_that_the_node_lacks_never_fits():
    world = World()
    world.pod(resources={}, nodeSelector={"gpu": "yes"})
    assert await world.why() == "claim usr is on node-a, which isn't labelled gpu=yes"
    terms = [{"matchExpressions": [rule("gpu", "Exists")]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    world.pod(resources={}, affinity={"nodeAffinity": required})
    assert "node affinity" in (await world.why() or "")


async def test_a_node_that_is_only_busy_isnt_given_up():
    world = World()
    world.node("node-a", cpu="8", gpus="1")
    assert await world.why() is None


async def test_one_of_several_nodes_is_enough():
    world = World()
    world.volume(rule("kubernetes.io/hostname", "In", "node-a", "node-b"))
    assert await world.why() is None


async def test_a_node_that_is_away_may_come_back():
    world = World()
    world.volume(rule("kubernetes.io/hostname", "In", "node-c"))
    assert await world.why() is None


@pytest.mark.parametrize("node", [{"since": -299}, {"ready": "False"}, {"ready": "Unknown"}])
async def test_a_node_that_boots_may_still_show_what_it_has(node):
    world = World()
    world.node("node-a", cpu="8", **node)
    assert await world.why() is None


async def test_a_volume_that_any_node_can_have_is_no_reason():
    world = World()
    world.volume()
    assert await world.why() is None


@pytest.mark.parametrize("spec", [{"nodeName": "node-a"}, {"metadata": {"deletionTimestamp": "now"}}])
async def test_a_pod_that_no_longer_waits_isnt_judged(spec):
    world = World()
    world.pod(**spec)
    assert await world.why() is None


@pytest.mark.parametrize("kind", [POD, PVC, PERSISTENT_VOLUME])
async def test_nothing_is_concluded_from_what_isnt_there(kind):
    world = World()
    world.api.objects = {key: obj for key, obj in world.api.objects.items() if key[0] != kind}
    assert await world.why() is None


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        (rule("zone", "In", "a", "b"), True),
        (rule("zone", "In", "b"), False),
        (rule("zone", "NotIn", "b"), True),
        (rule("other", "NotIn", "b"), True),
        (rule("zone", "NotIn", "a"), False),
        (rule("zone", "Exists"), True),
        (rule("other", "Exists"), False),
        (rule("other", "DoesNotExist"), True),
        (rule("zone", "DoesNotExist"), False),
        (rule("size", "Gt", "4"), True),
        (rule("size", "Gt", "5"), False),
        (rule("size", "Lt", "6"), True),
        (rule("zone", "Lt", "6"), False),
        (rule("zone", "FromTheFuture"), True),
    ],
)
def test_expressions_are_those_of_kubernetes(expression, matches):
    node = {"metadata": {"name": "n", "labels": {"zone": "a", "size": "5"}}}
    assert bool(selects([{"matchExpressions": [expression]}], node)) is matches


def test_terms_are_alternatives_and_an_empty_one_is_none():
    node = {"metadata": {"name": "n", "labels": {}}}
    assert not selects([{}], node)
    assert selects([{}, {"matchFields": [rule("metadata.name", "In", "n")]}], node)
    assert not selects([{"matchFields": [rule("metadata.name", "In", "m")]}], node)

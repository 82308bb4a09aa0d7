"""Volumes that a service shares with one that has GPUs: both go where the GPUs are, wherever there is more room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.kit import Cluster, Object, until
from tests.e2e.objects import LOOK, PROBE, amd, look, nvidia, shell, source, task
from tests.e2e.test_gpus import PER_NODE

pytestmark = pytest.mark.e2e

SHARED = {"volumes": ["models:/models"]}
TRAIN = f"{' '.join(LOOK)}; touch /models/trained; exec sleep 600"
WAIT = "until test -e /models/trained; do sleep 0.1; done"
VENDORS = {"nvidia": nvidia(), "amd": amd()}


def beside(gpu: Object) -> Object:
    """Return services: one with a GPU, one that shares its volume, and one that shares nothing."""
    return {
        "helper": shell(f"{WAIT}; {' '.join(LOOK)}", restart="no", **SHARED),
        "trainer": shell(TRAIN, restart="always", **SHARED, **gpu),
        "apart": look(),
    }


def before(gpu: Object) -> Object:
    """Return services: one with a GPU, and one that has filled its volume before."""
    waits = {"depends_on": {"loader": {"condition": "service_completed_successfully"}}}
    return {"loader": look(**SHARED), "trainer": shell(TRAIN, restart="always", **SHARED, **waits, **gpu)}


#: By task: environment and services.
TASKS = {
    **{vendor: (vendor, beside(gpu)) for vendor, gpu in VENDORS.items()},
    # The filled node has NVIDIA's GPUs too, if none to spare: only AMD's tell the nodes apart beforehand.
    "loaded": ("amd", before(VENDORS["amd"])),
}


@pytest.fixture(scope="module")
def nodes(operator: Cluster, namespace: str) -> Iterator[tuple[str, str]]:
    """The node where GPUs are free and little else is, and the one where it is the other way round."""
    found = operator.api.request("GET", "api/v1/nodes")[1]["items"]
    free, full = sorted(found, key=lambda node: "amd.com/gpu" not in node["status"]["allocatable"])
    cpu = free["status"]["allocatable"]["cpu"]
    half = f"{int(cpu[:-1]) // 2 if cpu.endswith('m') else int(cpu) * 500}m"
    fillers = [
        filler("cpu", node=free, resources={"requests": {"cpu": half}}),
        filler("gpus", node=full, resources={"limits": {"nvidia.com/gpu": str(PER_NODE)}}),
    ]
    operator.apply(namespace, *fillers)
    names = [pod["metadata"]["name"] for pod in fillers]
    operator.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod", *names, "--timeout=300s")
    yield free["metadata"]["name"], full["metadata"]["name"]
    operator.kubectl("-n", namespace, "delete", "pod", *names, "--grace-period=1")


def filler(name: str, *, node: Object, resources: Object) -> Object:
    container = {"name": "fill", "image": PROBE, "command": ["sleep", "infinity"], "resources": resources}
    where = {"kubernetes.io/hostname": node["metadata"]["name"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"filler-{name}"},
        "spec": {"containers": [container], "nodeSelector": where},
    }


@pytest.fixture(scope="module")
def tasks(operator: Cluster, namespace: str, nodes: tuple[str, str]) -> Iterator[None]:
    """All tasks at once."""
    for name, (environment, services) in TASKS.items():
        text: dict[str, Any] = {environment: json.dumps({"services": services, "volumes": {"models": {}}})}
        spec = {"environment": environment, "mainService": "trainer"}
        operator.apply(namespace, *source(name, **text), task(name, name, **spec))
    yield
    operator.kubectl("-n", namespace, "delete", "ogt", *TASKS, "--timeout=300s")


def pods_of(operator: Cluster, namespace: str, name: str) -> dict[str, Object]:
    """Return the pods of a task by service, once the trainer has looked and all others have ended."""
    others = TASKS[name][1].keys() - {"trainer"}

    def done() -> dict[str, Object] | None:
        owner = operator.task(namespace, name)
        pods = operator.pods(namespace, owner) if owner.get("status", {}).get("jobId") else []
        found = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for pod in pods}
        phases = {name: pod["status"]["phase"] for name, pod in found.items()}
        ended = all(phases.get(name) == "Succeeded" for name in others) and phases.get("trainer") == "Running"
        return found if ended and operator.printed(namespace, found["trainer"]) else None

    return until(f"the pods of {name} to be done", done, timeout=90, interval=0.5)


@pytest.mark.usefixtures("tasks")
class TestNodes:
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_a_volume_follows_the_gpu_and_its_sharers_follow_the_volume(
        self, operator: Cluster, namespace: str, nodes: tuple[str, str], vendor: str
    ) -> None:
        pods = pods_of(operator, namespace, vendor)
        free, full = nodes
        assert {name: pod["spec"]["nodeName"] for name, pod in pods.items()} == {
            "trainer": free,
            "helper": free,
            # Without the volume, the helper would have gone here.
            "apart": full,
        }
        printed = {name: operator.printed(namespace, pod) for name, pod in pods.items()}
        assert printed["helper"]["mounts"]["/models"]["files"] == ["left-by-helper", "left-by-trainer"]
        variable = f"{vendor.upper()}_VISIBLE_DEVICES"
        assert printed["trainer"]["env"][variable].startswith(f"GPU-fake-{free}-{vendor}-")
        for name in ("helper", "apart"):
            env = printed[name]["env"]
            assert env["NVIDIA_VISIBLE_DEVICES"] == "void", name
            assert "AMD_VISIBLE_DEVICES" not in env, name

    def test_what_fills_a_volume_first_goes_where_the_gpu_will_be(
        self, operator: Cluster, namespace: str, nodes: tuple[str, str]
    ) -> None:
        pods = pods_of(operator, namespace, "loaded")
        assert {name: pod["spec"]["nodeName"] for name, pod in pods.items()} == {
            "loader": nodes[0],
            "trainer": nodes[0],
        }
        seen = operator.printed(namespace, pods["trainer"])
        assert seen["mounts"]["/models"]["files"] == ["left-by-loader", "left-by-trainer"]

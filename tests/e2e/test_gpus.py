"""GPUs: who gets which, who gets none, and what a task says that can't have its own."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import pytest

from opengpu_operator.desired import quantities
from tests.e2e.kit import SOURCES, TASKS, Cluster, condition, describe
from tests.e2e.objects import amd, compose, nvidia, page, run, source, task, worker

pytestmark = pytest.mark.e2e

#: What the local cluster's device plugin offers (localcluster.topology).
PER_NODE, NODES = 4, 2
#: The worker prints how many processors it is told of, and what its sidecar sees; what it sees itself, it answers.
LOOK = 'echo "$NPROC"; curl -sS --retry 60 --retry-delay 1 --retry-connrefused http://side:8080/'
#: What a container with NVIDIA's GPUs is given of the driver, as by GPUX.
CAPABILITIES = "utility,compute,graphics,video"


@pytest.fixture(scope="module")
def sources(operator: Cluster, namespace: str) -> None:
    strip = {
        "environment": ["CALLBACK_URL=${CALLBACK_URL}", "NVIDIA_VISIBLE_DEVICES=all", "AMD_VISIBLE_DEVICES=0"]
    }
    operator.apply(
        namespace,
        *source(
            "on-worker",
            cpu=compose(worker=worker(**strip, cpus=0.5), side=page()),
            nvidia=compose(
                worker=worker(**nvidia("all")), side=page(environment=["NVIDIA_VISIBLE_DEVICES=all"])
            ),
            amd=compose(worker=worker(**amd()), side=page()),
        ),
        *source(
            "on-sidecar",
            nvidia=compose(worker=worker(), side=page(**nvidia(2))),
            amd=compose(worker=worker(), side=page(**amd())),
        ),
        run("cpu", "on-worker", LOOK, environment="cpu"),
        run("nvidia", "on-worker", LOOK, environment="nvidia"),
        run("amd", "on-worker", LOOK, environment="amd"),
        run("side-nvidia", "on-sidecar", LOOK, environment="nvidia"),
        run("side-amd", "on-sidecar", LOOK, environment="amd"),
    )


def look(operator: Cluster, namespace: str, name: str) -> tuple[int, dict[str, str], dict[str, str]]:
    """Return the processors that the worker is told of, and the devices that it and its sidecar see."""
    answer = operator.answer(namespace, name, timeout=150)
    assert answer["exit_code"] == 0, answer
    processors, side = answer["stdout"].splitlines()
    return int(processors), answer["devices"], json.loads(side)["devices"]


def has_none(devices: dict[str, str]) -> bool:
    """Return whether a container sees no GPU, and couldn't be given one by a runtime's default either."""
    return devices == {"NVIDIA_VISIBLE_DEVICES": "void"}


@pytest.mark.usefixtures("sources")
class TestDevices:
    def test_a_cpu_task_sees_none_whatever_its_file_says(self, operator: Cluster, namespace: str) -> None:
        processors, own, side = look(operator, namespace, "cpu")
        assert has_none(own), own
        assert has_none(side), side
        assert processors == 1, "its limit, rounded up"

    def test_an_nvidia_worker_has_the_plugins_device_and_its_sidecar_none(
        self, operator: Cluster, namespace: str
    ) -> None:
        processors, own, side = look(operator, namespace, "nvidia")
        assert own["NVIDIA_VISIBLE_DEVICES"].startswith("GPU-fake-")
        assert len(own["NVIDIA_VISIBLE_DEVICES"].split(",")) == 1, "`count: all` is one by default"
        assert own["NVIDIA_DRIVER_CAPABILITIES"] == CAPABILITIES
        assert has_none(side), side
        nodes = operator.api.request("GET", "api/v1/nodes")[1]["items"]
        cpus = {math.ceil(quantities.parse(node["status"]["allocatable"]["cpu"])) for node in nodes}
        assert processors in cpus, "without a limit, its node's"

    def test_an_amd_worker_has_the_plugins_device_and_its_sidecar_none(
        self, operator: Cluster, namespace: str
    ) -> None:
        _, own, side = look(operator, namespace, "amd")
        assert own["AMD_VISIBLE_DEVICES"].startswith("GPU-fake-node-a-amd-")
        assert "NVIDIA_DRIVER_CAPABILITIES" not in own
        assert has_none(side), side

    def test_gpus_on_the_sidecar_are_not_the_workers(self, operator: Cluster, namespace: str) -> None:
        _, own, side = look(operator, namespace, "side-nvidia")
        assert has_none(own), own
        assert len(side["NVIDIA_VISIBLE_DEVICES"].split(",")) == 2
        assert side["NVIDIA_DRIVER_CAPABILITIES"] == CAPABILITIES
        _, own, side = look(operator, namespace, "side-amd")
        assert has_none(own), own
        assert side["AMD_VISIBLE_DEVICES"].startswith("GPU-fake-node-a-amd-")


def test_a_task_that_has_to_wait_for_gpus_says_so_and_runs_when_they_are_free(
    operator: Cluster, namespace: str, measured: Callable[[str], None]
) -> None:
    whole_node = compose(worker=worker(**nvidia(PER_NODE)))
    holders = [f"holder-{number}" for number in range(NODES)]
    operator.apply(namespace, *source("whole-node", nvidia=whole_node))
    operator.apply(namespace, *(task(name, "whole-node", "work", {"seconds": 600}) for name in holders))
    for name in holders:
        operator.wait_task(namespace, name, "Scheduled", timeout=90)

    start = time.monotonic()
    operator.apply(namespace, task("waits", "whole-node", "work", {"value": "free"}))
    waiting = operator.wait_reason(TASKS, namespace, "waits", "WaitingForGPUs", timeout=10)
    measured(f"a task without GPUs said so after {time.monotonic() - start:.1f} s: {waiting['message']}")
    assert "nvidia.com/gpu" in waiting["message"], waiting

    operator.kubectl("-n", namespace, "delete", "ogt", holders[0], "--timeout=300s")
    assert operator.answer(namespace, "waits")["value"] == "free"
    operator.kubectl("-n", namespace, "delete", "ogt", *holders[1:], "--timeout=300s")


def test_a_task_that_no_node_can_ever_hold_says_so(operator: Cluster, namespace: str) -> None:
    operator.apply(namespace, *source("too-many", nvidia=compose(worker=worker(**nvidia(PER_NODE + 1)))))
    operator.wait_reason(SOURCES, namespace, "too-many", "Translated")
    operator.apply(namespace, task("never", "too-many", "work"))
    never = operator.wait_reason(TASKS, namespace, "never", "NoNodeFits", timeout=10)
    assert f"{PER_NODE + 1} nvidia.com/gpu" in never["message"], never
    assert f"has {PER_NODE}" in never["message"], never


def test_the_task_may_ask_for_more_gpus_than_the_file(operator: Cluster, namespace: str) -> None:
    operator.apply(namespace, *source("one", nvidia=compose(worker=worker(**nvidia(1)))))
    operator.apply(namespace, run("three", "one", "true", resources={"gpu": {"count": 3}}))
    answer = operator.answer(namespace, "three")
    assert len(answer["devices"]["NVIDIA_VISIBLE_DEVICES"].split(",")) == 3
    found = operator.task(namespace, "three")
    assert found["status"]["gpus"] == 3, describe(found)
    assert condition(found, "Complete")["status"] == "True"

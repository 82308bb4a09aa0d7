from __future__ import annotations

import pytest

from opengpu_operator.api.source import Environment, EnvironmentStatus
from opengpu_operator.reconcile.environment import choose
from opengpu_operator.settings import GpuClass, GpuSettings
from tests.unit.reconcile.builders import node

CPU, NVIDIA, AMD = Environment.CPU, Environment.NVIDIA, Environment.AMD


@pytest.mark.parametrize(
    ("offered", "nodes", "choice"),
    [
        ([CPU, NVIDIA, AMD], [node(nvidia_gpus="1"), node(amd_gpus="1")], NVIDIA),
        ([CPU, NVIDIA, AMD], [node(amd_gpus="1")], AMD),
        ([CPU, NVIDIA, AMD], [node()], CPU),
        ([CPU], [node(nvidia_gpus="8")], CPU),
        # No node has what is offered: the task will say what is missing, or an autoscaler brings it.
        ([NVIDIA], [node()], NVIDIA),
        ([AMD, NVIDIA], [], NVIDIA),
        ([NVIDIA, CPU], [node(nvidia_gpus="0")], CPU),
        ([], [node()], None),
    ],
)
def test_auto(offered: list[Environment], nodes: list[dict[str, object]], choice: Environment | None) -> None:
    ready = {name: EnvironmentStatus(name=name, ready=True) for name in offered}
    assert choose(ready, nodes=nodes, settings=GpuSettings()) is choice


def test_the_resource_name_is_a_setting() -> None:
    settings = GpuSettings(nvidia=GpuClass(resource_name="nvidia.com/mig-1g.10gb"))
    nodes = [{"status": {"allocatable": {"nvidia.com/mig-1g.10gb": "7"}}}]
    ready = {name: EnvironmentStatus(name=name, ready=True) for name in (CPU, NVIDIA)}
    assert choose(ready, nodes=nodes, settings=settings) is NVIDIA

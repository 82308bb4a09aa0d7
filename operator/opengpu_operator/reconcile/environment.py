"""Which of a source's environments a task runs in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opengpu_operator.api.source import Environment, EnvironmentStatus
from opengpu_operator.settings import GpuSettings

#: ``Auto`` prefers what a source's author most likely tuned for, as long as a node can hold it.
PREFERENCE = (Environment.NVIDIA, Environment.AMD, Environment.CPU)


def resource_name(environment: Environment, settings: GpuSettings) -> str | None:
    """Return the extended resource of an environment's GPUs; None for cpu."""
    if environment is Environment.NVIDIA:
        return settings.nvidia.resource_name
    if environment is Environment.AMD:
        return settings.amd.resource_name
    return None


def largest(nodes: Iterable[Mapping[str, Any]], resource: str) -> int:
    """Return how many of an extended resource the best node can ever give to one pod."""
    return max(
        (int(node.get("status", {}).get("allocatable", {}).get(resource, 0)) for node in nodes), default=0
    )


def choose(
    ready: Mapping[Environment, EnvironmentStatus],
    *,
    nodes: Iterable[Mapping[str, Any]],
    settings: GpuSettings,
) -> Environment | None:
    """Return the environment for ``Auto``: the first, in order of preference, that some node could hold.

    Where no node has what any of them needs, the first that is offered: an autoscaler may bring a node, and if not
    the task says what is missing. None if nothing is ready.
    """
    nodes = list(nodes)
    for environment in PREFERENCE:
        if environment not in ready:
            continue
        resource = resource_name(environment, settings)
        if resource is None or largest(nodes, resource) >= 1:
            return environment
    return next((environment for environment in PREFERENCE if environment in ready), None)

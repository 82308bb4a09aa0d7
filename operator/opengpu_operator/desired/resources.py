"""What a service needs: its share of the node, and its GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from opengpu_operator.api import task
from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import Service, Vendor
from opengpu_operator.desired import quantities
from opengpu_operator.desired.problems import Problems
from opengpu_operator.settings import GpuClass, GpuSettings, Settings

_MEBI = 2**20


@dataclass(frozen=True, kw_only=True)
class GpuNeed:
    """The GPUs of one container."""

    vendor: Vendor
    gpu_class: GpuClass
    count: int
    product: str | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one container needs."""

    resources: dict[str, dict[str, str]]
    gpu: GpuNeed | None

    @property
    def demand(self) -> tuple[int, Decimal, Decimal]:
        """How hard it is to find a node for it: GPUs first, then memory, then processors."""
        requests = self.resources["requests"]
        return (
            self.gpu.count if self.gpu else 0,
            quantities.parse(requests["memory"]),
            quantities.parse(requests["cpu"]),
        )


def needs(
    service: Service,
    override: task.Resources | None,
    *,
    environment: Environment,
    settings: Settings,
    problems: Problems,
) -> Needs:
    """Return what a service needs: what the task says, else the file, else the cluster's defaults.

    A limit of the file reserves nothing, as in Docker: ``mem_limit: 64g`` runs on a small machine too. A service
    that asks for shared memory and no limit has both: what is in memory volumes counts against the limit.
    """
    file = service.container.get("resources") or {}
    pods = settings.pods
    requests, limits = {}, {}
    for name, asked, request, limit in (
        ("cpu", override and override.cpu, pods.cpu_request, pods.cpu_limit),
        (
            "memory",
            override and override.memory,
            pods.memory_request,
            quantities.total(pods.memory_limit, *_memory_volumes(service)),
        ),
        (
            "ephemeral-storage",
            override and override.ephemeral_storage,
            pods.ephemeral_storage_request,
            pods.ephemeral_storage_limit,
        ),
    ):
        if asked:
            requests[name] = limits[name] = asked
            continue
        requests[name], most = _share(
            _positive(file.get("requests"), name),
            _positive(file.get("limits"), name),
            default_request=request,
            default_limit=limit,
        )
        if most is not None:
            limits[name] = most
    gpu = _gpu(
        service,
        override.gpu if override else None,
        environment=environment,
        gpus=settings.gpu,
        problems=problems,
    )
    if gpu is not None:
        limits[gpu.gpu_class.resource_name] = str(gpu.count)
    return Needs(resources={"requests": requests, "limits": limits}, gpu=gpu)


def _memory_volumes(service: Service) -> list[str]:
    """Return the sizes of a service's memory volumes, as far as they have one."""
    sources = [volume.get("emptyDir") or {} for volume in service.pod.get("volumes") or []]
    return [
        str(source["sizeLimit"])
        for source in sources
        if source.get("medium") == "Memory" and "sizeLimit" in source
    ]


def _positive(quantities_by_name: Mapping[str, Any] | None, name: str) -> str | None:
    """Return a quantity of the file; 0 is Compose's way to say that there is none."""
    value = (quantities_by_name or {}).get(name)
    return None if value is None or quantities.parse(value) <= 0 else str(value)


def _share(
    request: str | None, limit: str | None, *, default_request: str, default_limit: str | None
) -> tuple[str, str | None]:
    if limit is None:
        limit = (
            default_limit
            if request is None or default_limit is None
            else quantities.larger(request, default_limit)
        )
    if request is None:
        request = default_request
    return (request if limit is None else quantities.smaller(request, limit)), limit


def _gpu(
    service: Service,
    wanted: task.Gpu | None,
    *,
    environment: Environment,
    gpus: GpuSettings,
    problems: Problems,
) -> GpuNeed | None:
    if service.gpu is not None:
        vendor = service.gpu.vendor
        count = gpus.count_all if service.gpu.count is None else service.gpu.count
    elif wanted is None:
        return None
    elif environment is Environment.CPU:
        problems.spec("resources", f"{service.name} can't have GPUs in the environment cpu")
        return None
    else:
        vendor, count = Vendor(environment.value), 1
    if wanted is not None and wanted.count is not None:
        count = wanted.count
    if count == 0:
        return None
    memory = -(-quantities.parse(wanted.memory) // _MEBI) if wanted and wanted.memory else None
    return GpuNeed(
        vendor=vendor,
        gpu_class=gpus.nvidia if vendor is Vendor.NVIDIA else gpus.amd,
        count=count,
        product=wanted.product if wanted else None,
        memory_mib=None if memory is None else int(memory),
    )


def node_terms(gpu: GpuNeed) -> list[dict[str, Any]]:
    """Return the node selector's expressions for the kind of GPU that a task asks for."""
    terms: list[dict[str, Any]] = []
    if gpu.product is not None:
        terms.append({"key": gpu.gpu_class.product_label, "operator": "In", "values": [gpu.product]})
    if gpu.memory_mib is not None:
        terms.append(
            {"key": gpu.gpu_class.memory_label, "operator": "Gt", "values": [str(gpu.memory_mib - 1)]}
        )
    return terms

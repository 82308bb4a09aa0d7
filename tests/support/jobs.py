"""Translations and contexts of jobs for tests, with everything that a test doesn't care about filled in."""

from typing import Any

from opengpu_operator.api.source import Environment, VolumePolicy
from opengpu_operator.api.task import TaskSpec
from opengpu_operator.api.translation import (
    Dependency,
    GpuRequest,
    Mount,
    Port,
    Restart,
    Service,
    Translation,
    Until,
    Vendor,
    Volume,
)
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.job import JobObjects
from opengpu_operator.settings import Settings

DIGEST = "sha256:" + "0" * 64
JOB_ID = "061i6uku7ie62tg1"
JOB = f"j-{JOB_ID}"
NVIDIA = GpuRequest(vendor=Vendor.NVIDIA, count=1)
AMD = GpuRequest(vendor=Vendor.AMD, count=1)


def service(name: str, /, **fields: Any) -> Service:
    """Return a service; ``container`` is merged with a name and an image."""
    dns_name = fields.pop("dns_name", name)
    container = {"name": dns_name, "image": f"example.org/{dns_name}:1", **fields.pop("container", {})}
    return Service(name=name, dns_name=dns_name, container=container, **fields)


def worker(name: str = "worker", /, **fields: Any) -> Service:
    """Return a service that publishes the worker's port, with one NVIDIA GPU unless told otherwise."""
    ports = [Port(container=5555, published=8000), *fields.pop("ports", [])]
    return service(name, ports=ports, restart=Restart.ALWAYS, gpu=fields.pop("gpu", NVIDIA), **fields)


def translation(*services: Service, **fields: Any) -> Translation:
    """Return a translation; volumes that services mount and nobody describes are named ones."""
    named = {
        mount.volume: Volume(origin="named", label=mount.volume) for item in services for mount in item.mounts
    }
    published = [item.name for item in services for port in item.ports if port.container == 5555]
    return Translation(
        digest=DIGEST,
        environment=fields.pop("environment", "nvidia"),
        services=list(services),
        volumes={**named, **fields.pop("volumes", {})},
        worker=fields.pop("worker", published[0] if published else None),
        **fields,
    )


def context(**fields: Any) -> JobContext:
    """Return a context; ``spec`` is a task's spec as in YAML, with a sourceRef already there."""
    spec = TaskSpec.model_validate({"sourceRef": {"name": "chat"}, **fields.pop("spec", {})})
    volumes = {name: VolumePolicy.model_validate(value) for name, value in fields.pop("volumes", {}).items()}
    filled: dict[str, Any] = {
        "name": JOB,
        "job_id": JOB_ID,
        "namespace": "tenant",
        "task": "ask",
        "task_uid": "6a1b0a2e-2f4c-4a49-8f6b-3c8d7b0d9e11",
        "source": "chat",
        "source_uid": "0f9c6ab2-5a0e-4c38-8a55-1c7f6f1f2b22",
        "owner_reference": _owner("OpenGPUTask", "ask", "6a1b0a2e-2f4c-4a49-8f6b-3c8d7b0d9e11"),
        "source_owner_reference": _owner("OpenGPUSource", "chat", "0f9c6ab2-5a0e-4c38-8a55-1c7f6f1f2b22"),
        "environment": Environment.NVIDIA,
        "resolvers": ["10.96.0.10"],
        "token": "v1.claims.signature",
        "call": spec.is_call,
    }
    return JobContext(**{**filled, "spec": spec, "volumes": volumes, **fields})


def _owner(kind: str, name: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "opengpu.network/v1alpha1",
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def settings(**fields: Any) -> Settings:
    """Return settings, given as in YAML, with a domain for routes."""
    return Settings.model_validate({"routes": {"domain": "gpux.example"}, **fields})


def waits(name: str, until: Until = Until.HEALTHY, **fields: Any) -> Dependency:
    """Return an entry of depends_on."""
    return Dependency(service=name, until=until, **fields)


def mount(volume: str, path: str = "/data", **fields: Any) -> Mount:
    """Return a mount of a volume."""
    return Mount(volume=volume, path=path, **fields)


def one(objects: JobObjects, kind: str, name: str | None = None) -> dict[str, Any]:
    """Return the only object of a kind (and name)."""
    found = [
        obj for obj in objects.everything if obj["kind"] == kind and name in {None, obj["metadata"]["name"]}
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def pod(objects: JobObjects, component: str) -> dict[str, Any]:
    """Return the spec of a service's pods."""
    kinds = {"Deployment", "Job"}
    found = [
        obj
        for obj in objects.everything
        if obj["kind"] in kinds and obj["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    assert len(found) == 1, f"{len(found)} workloads of {component}"
    return dict(found[0]["spec"]["template"]["spec"])


def container(objects: JobObjects, component: str, name: str | None = None) -> dict[str, Any]:
    """Return a container of a service's pods."""
    return next(item for item in pod(objects, component)["containers"] if item["name"] == (name or component))

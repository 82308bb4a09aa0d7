"""Small builders for objects as the watches deliver them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from opengpu_operator.api.source import Source
from opengpu_operator.api.task import Task

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    """Return a time relative to NOW as Kubernetes writes it."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def task(*, age: float = 0, status: dict[str, Any] | None = None, **spec: Any) -> Task:
    """Return a task that was created ``age`` seconds before NOW."""
    return Task.model_validate(
        {
            "metadata": {
                "name": "ask",
                "namespace": "team",
                "uid": "11111111-2222-3333-4444-555555555555",
                "generation": 1,
                "creationTimestamp": at(-age),
            },
            "spec": {"sourceRef": {"name": "ocr"}, **spec},
            "status": status or {},
        }
    )


def source(**spec: Any) -> Source:
    """Return a source that offers cpu and nvidia."""
    files = {
        "cpu": {"composeUrl": "https://example.com/cpu.yaml"},
        "nvidia": {"composeUrl": "https://example.com/n.yaml"},
    }
    return Source.model_validate(
        {
            "metadata": {"name": "ocr", "namespace": "team", "uid": "s", "creationTimestamp": at(-100)},
            "spec": {"imageEnvs": files, **spec},
        }
    )


def pod(service: str = "web", **fields: Any) -> dict[str, Any]:
    """Return a running, ready pod of a service; keyword arguments replace parts of it."""
    ready = fields.pop("ready", True)
    node = fields.pop("node", "node-a")
    gates = fields.pop("gates", ())
    gpus = fields.pop("gpus", 0)
    uid = fields.pop("uid", f"pod-{service}")
    conditions = fields.pop("conditions", [{"type": "Ready", "status": "True" if ready else "False"}])
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "metadata": {
            "name": f"j-x-{service}",
            "namespace": "team",
            "uid": uid,
            "labels": {"app.kubernetes.io/component": service},
            **fields.pop("metadata", {}),
        },
        "spec": {
            **({"nodeName": node} if node else {}),
            **({"schedulingGates": [{"name": name} for name in gates]} if gates else {}),
            "containers": [{"name": service, "resources": {"limits": limits}}],
        },
        "status": {"phase": "Running", "conditions": conditions, **fields},
    }


def job(service: str, *, complete: bool = False, failed: bool = False) -> dict[str, Any]:
    """Return a Job of a service."""
    ends = {"Complete": complete, "Failed": failed}
    conditions = [
        {"type": kind, "status": "True", "message": f"how it {kind}"} for kind, so in ends.items() if so
    ]
    return {
        "metadata": {"name": f"j-x-{service}", "labels": {"app.kubernetes.io/component": service}},
        "status": {"conditions": conditions},
    }


def deployment(service: str = "web", *, refused: str | None = None, **metadata: Any) -> dict[str, Any]:
    """Return a Deployment of a service; ``refused``: why its pods can't be made."""
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refused}
    return {
        "metadata": {
            "name": f"j-x-{service}",
            "labels": {"app.kubernetes.io/component": service},
            **metadata,
        },
        **({"status": {"conditions": [failure]}} if refused else {}),
    }


def node(**allocatable: str) -> dict[str, Any]:
    """Return a node; ``nvidia_gpus="4"`` gives it GPUs."""
    amounts = {"cpu": "2"}
    if "nvidia_gpus" in allocatable:
        amounts["nvidia.com/gpu"] = allocatable["nvidia_gpus"]
    if "amd_gpus" in allocatable:
        amounts["amd.com/gpu"] = allocatable["amd_gpus"]
    return {"metadata": {"name": "node-a"}, "status": {"allocatable": amounts}}


def terminated(seconds: float, **fields: Any) -> dict[str, Any]:
    """Return a container state that ended ``seconds`` after NOW."""
    return {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": at(seconds), **fields}}

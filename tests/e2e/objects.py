"""Sources and tasks that the tests apply, built from as few words as possible."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.kit import Object

PROBE = "localhost/opengpu-e2e-probe:dev"
LOOK = ["python3", "/opt/tests/e2e/images/look.py"]
API_VERSION = "opengpu.network/v1alpha1"
#: The label of nodes that the operator under test lets files select.
HOSTNAME = "kubernetes.io/hostname"


def worker(**extra: Any) -> Object:
    """Return the Compose service of the probe worker: the one that is called."""
    return {
        "image": PROBE,
        "ports": ["${PORT}:5555"],
        "environment": ["CALLBACK_URL=${CALLBACK_URL}"],
        **extra,
    }


def page(**extra: Any) -> Object:
    """Return a Compose service that serves the probe's page on port 8080 and is published as such."""
    return {"image": PROBE, "command": ["serve"], "ports": ["8080:8080"], **extra}


def literal(text: str) -> str:
    """Return a text as a Compose file has it, where ``$`` is a variable's."""
    return text.replace("$", "$$")


def look(*words: str, **extra: Any) -> Object:
    """Return a Compose service that prints what its container is and sees, and ends; the words are its arguments."""
    command = {"command": [literal(word) for word in words]} if words else {}
    return {"image": PROBE, "entrypoint": LOOK, "restart": "no", **command, **extra}


def shell(script: str, **extra: Any) -> Object:
    """Return a Compose service that runs a script and ends."""
    return {"image": PROBE, "entrypoint": ["bash", "-c", literal(script)], **extra}


def nvidia(count: int | str = 1) -> Object:
    """Return the part of a Compose service that asks for NVIDIA GPUs."""
    device = {"driver": "nvidia", "count": count, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}


def amd() -> Object:
    """Return the part of a Compose service that asks for an AMD GPU."""
    return {"devices": ["/dev/kfd", "/dev/dri"]}


def on(node: str) -> Object:
    """Return the part of a Compose service that has it run on one node alone."""
    return {"deploy": {"placement": {"constraints": [f"node.labels.{HOSTNAME} == {node}"]}}}


def compose(**services: Object) -> str:
    """Return a Compose file. JSON is YAML."""
    return json.dumps({"services": services})


def source(name: str, /, *, spec: Object | None = None, **files: str) -> list[Object]:
    """Return a source whose files, by environment, are in a ConfigMap, and that ConfigMap."""
    references = {
        environment: {"configMapKeyRef": {"name": name, "key": f"{environment}.yaml"}}
        for environment in files
    }
    data = {f"{environment}.yaml": text for environment, text in files.items()}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data},
        {
            "apiVersion": API_VERSION,
            "kind": "OpenGPUSource",
            "metadata": {"name": name},
            "spec": {"imageEnvs": references, **(spec or {})},
        },
    ]


def task(
    name: str, source_name: str, function: str | None = None, /, data: Any = None, **spec: Any
) -> Object:
    """Return a task: a call if a function is named, else a job."""
    call = {} if function is None else {"functionName": function, "data": data or {}}
    return {
        "apiVersion": API_VERSION,
        "kind": "OpenGPUTask",
        "metadata": {"name": name},
        "spec": {
            "sourceRef": {"name": source_name},
            "expirySeconds": 600,
            "storage": {"jobSize": "1Gi"},
            **call,
            **spec,
        },
    }


def run(name: str, source_name: str, script: str, /, **spec: Any) -> Object:
    """Return a task that runs a shell script inside the job, through the probe worker."""
    return task(name, source_name, "run", {"script": script}, **spec)

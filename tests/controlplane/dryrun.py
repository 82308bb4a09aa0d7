"""Ask the API server whether it would take an object, field by field, without storing it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any, Protocol

from opengpu_operator.desired import quantities

Object = dict[str, Any]

_PATHS = {
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
}
_numbers = itertools.count(1)


class Api(Protocol):
    """The plain client of this folder's tests."""

    warnings: tuple[str, ...]

    def request(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]: ...


@contextlib.contextmanager
def namespace(api: Api, profile: str) -> Iterator[str]:
    """Make a namespace that refuses pods, and warns of workloads, that break a Pod Security Standard."""
    name = f"dryrun-{os.getpid()}-{next(_numbers)}"
    labels = {f"pod-security.kubernetes.io/{mode}": profile for mode in ("enforce", "warn")}
    status, answer = api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    assert status == 201, answer
    account = {"metadata": {"name": "default"}}
    status, answer = api.request("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
    assert status in {201, 409}, answer
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}")


def pod(workload: Object) -> Object:
    """Return a pod of a workload's template: of a workload itself, Pod Security only warns."""
    template = workload["spec"]["template"]
    metadata = {"name": workload["metadata"]["name"], **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def with_pods(objects: list[Object]) -> list[Object]:
    """Return the objects, and a pod of each workload among them."""
    return [*objects, *(pod(obj) for obj in objects if "template" in obj.get("spec", {}))]


def objections(api: Api, obj: Object, namespace: str) -> list[str]:
    """Return what the API server has against an object: a refusal, warnings, or what it would make of a field."""
    path = _PATHS[obj["kind"]].format(namespace)
    status, answer = api.request("POST", path, obj, fieldValidation="Strict", dryRun="All")
    where = f"{obj['kind']} {obj['metadata']['name']}"
    if status != 201:
        return [f"{where}: {status} {answer['message']}"]
    return [f"{where}: {problem}" for problem in (*api.warnings, *changed(obj, answer))]


def changed(sent: Any, stored: Any, *, path: str = "") -> Iterator[str]:
    """Yield what the server changed of what we said; that it adds its defaults, also to a list, is no change."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            if key == "stringData":
                if not set(value) <= set(stored["data"]):
                    yield f"{path}.{key} is gone"
            elif key not in stored:
                # Empty strings aren't stored at all.
                if value != "":
                    yield f"{path}.{key} is gone"
            else:
                yield from changed(value, stored[key], path=f"{path}.{key}")
    elif isinstance(sent, list) and len(sent) <= len(stored):
        for index, (one, other) in enumerate(zip(sent, stored, strict=False)):
            yield from changed(one, other, path=f"{path}[{index}]")
    elif sent != stored and not _is_same_quantity(sent, stored):
        yield f"{path} was {sent!r} and is {stored!r}"


def _is_same_quantity(sent: Any, stored: Any) -> bool:
    """Return whether two values are one quantity: the server writes ``1000m`` as ``1``."""
    try:
        return quantities.parse(sent) == quantities.parse(stored)
    except ValueError:
        return False

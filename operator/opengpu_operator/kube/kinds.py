"""The kinds of object that this operator touches, and where the API server keeps them.

It is a closed list: what isn't here can't be read or written, so no Compose file and no object of a tenant can make
the operator act on any other kind. Discovery at start-up isn't needed either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from opengpu_operator.api import source, task
from opengpu_operator.api.labels import GROUP, VERSION


@dataclass(frozen=True)
class Kind:
    """A kind of object."""

    group: str
    """Empty for Kubernetes' core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return what its manifests say under ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def _root(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of one object, or of all of a namespace, or (without namespace) of the cluster.

        Names are quoted, so that a name from outside can't reach another object than the one it names.
        """
        parts = [self._root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", _segment(namespace)]
        elif self.namespaced and name is not None:
            raise ValueError(f"a {self.kind} is in a namespace")
        parts.append(self.plural)
        if name is not None:
            parts.append(_segment(name))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        return self.kind


def _segment(name: str) -> str:
    if name in {"", ".", ".."}:
        raise ValueError(f"{name!r} is no name")
    return quote(name, safe="")


SOURCE: Final = Kind(GROUP, VERSION, source.PLURAL, source.KIND)
TASK: Final = Kind(GROUP, VERSION, task.PLURAL, task.KIND)
POD: Final = Kind("", "v1", "pods", "Pod")
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
JOB: Final = Kind("batch", "v1", "jobs", "Job")
SERVICE: Final = Kind("", "v1", "services", "Service")
INGRESS: Final = Kind("networking.k8s.io", "v1", "ingresses", "Ingress")
#: Of the Gateway API, whose definitions a cluster may lack; used by setting only.
HTTP_ROUTE: Final = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
PVC: Final = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PERSISTENT_VOLUME: Final = Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
STORAGE_CLASS: Final = Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
CONFIG_MAP: Final = Kind("", "v1", "configmaps", "ConfigMap")
SECRET: Final = Kind("", "v1", "secrets", "Secret")
CONTROLLER_REVISION: Final = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
ENDPOINT_SLICE: Final = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
NODE: Final = Kind("", "v1", "nodes", "Node", namespaced=False)
NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
EVENT: Final = Kind("", "v1", "events", "Event")
LEASE: Final = Kind("coordination.k8s.io", "v1", "leases", "Lease")

KINDS: Final = (
    SOURCE,
    TASK,
    POD,
    DEPLOYMENT,
    JOB,
    SERVICE,
    INGRESS,
    HTTP_ROUTE,
    PVC,
    PERSISTENT_VOLUME,
    STORAGE_CLASS,
    NETWORK_POLICY,
    CONFIG_MAP,
    SECRET,
    CONTROLLER_REVISION,
    ENDPOINT_SLICE,
    NODE,
    NAMESPACE,
    EVENT,
    LEASE,
)

_BY_NAME: Final = {(kind.api_version, kind.kind): kind for kind in KINDS}


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """Return the kind of an object; ValueError if it is none that this operator touches."""
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    try:
        return _BY_NAME[api_version, kind]  # type: ignore[index]
    except (KeyError, TypeError):
        raise ValueError(f"{api_version}/{kind} is no kind that this operator touches") from None

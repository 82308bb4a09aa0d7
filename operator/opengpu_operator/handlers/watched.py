"""What is watched, and which part of it the API server is asked to select."""

from __future__ import annotations

from typing import Final

from opengpu_operator.api.labels import MANAGED_BY, MANAGER, SLICE_MANAGED_BY
from opengpu_operator.kube.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INGRESS,
    JOB,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    POD,
    PVC,
    SERVICE,
    SOURCE,
    STORAGE_CLASS,
    TASK,
    Kind,
)
from opengpu_operator.settings import Settings

#: Kinds of which only our own objects are watched.
CHILDREN: Final = (
    POD,
    DEPLOYMENT,
    JOB,
    SERVICE,
    INGRESS,
    PVC,
    NETWORK_POLICY,
    ENDPOINT_SLICE,
    CONTROLLER_REVISION,
)
#: Secrets are missing: the operator may not read any. ConfigMaps of users hold Compose files and data.
WATCHED: Final = (SOURCE, TASK, *CHILDREN, CONFIG_MAP, NODE, NAMESPACE, STORAGE_CLASS)
#: Children of kinds that a cluster may lack, which are watched where the settings choose them.
OPTIONAL: Final = (HTTP_ROUTE,)

#: Kubernetes puts this one into every namespace.
_ROOT_CA: Final = "kube-root-ca.crt"


def watched(settings: Settings) -> tuple[Kind, ...]:
    """Return the kinds that are watched."""
    return (*WATCHED, *(kind for kind in OPTIONAL if kind.kind == settings.routes.kind))


def label_selector(kind: Kind) -> str | None:
    """Return which labels the watched objects of a kind have."""
    if kind == ENDPOINT_SLICE:
        # Kubernetes gives its own slices the labels of their Service, so ours are told by who looks after them.
        return f"{SLICE_MANAGED_BY}={MANAGER}"
    return f"{MANAGED_BY}={MANAGER}" if kind in {*CHILDREN, *OPTIONAL} else None


def field_selector(kind: Kind, settings: Settings) -> str | None:
    """Return which fields the watched objects of a kind have."""
    if kind != CONFIG_MAP:
        return None
    excluded = sorted({settings.namespace, *settings.namespaces.excluded})
    return ",".join([f"metadata.name!={_ROOT_CA}", *(f"metadata.namespace!={name}" for name in excluded)])

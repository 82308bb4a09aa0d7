"""The GPUX agent beside a service: a native sidecar, the socket it serves, and the token that only it sees.

The socket is shared as a file (``subPath``), so that a container can't put another in its place for its
neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from opengpu_operator.api.labels import AGENT_CONTAINER, CALLBACK_PORT, WORKER_PORT
from opengpu_operator.desired import env, labels, names, quantities
from opengpu_operator.desired.context import JobContext
from opengpu_operator.settings import Settings

Object = dict[str, Any]

API_PATH = "/gpux_api"
USER_PATH = "/gpux_usr"
JOB_PATH = "/gpux_job"
PATHS = (API_PATH, USER_PATH, JOB_PATH)

_STORAGE = {JOB_PATH: "GPUX_JOB_STORAGE", USER_PATH: "GPUX_USER_STORAGE"}

RUN_VOLUME = "gpux-run"
_SPOOL_VOLUME = "gpux-spool"
_TOKEN_VOLUME = "gpux-token"  # noqa: S105 - the name of a volume
_RUN = "/run/gpux"
_SOCKET = f"{_RUN}/api.sock"
_SPOOL = "/var/spool/gpux"
_TOKEN = "/run/gpux-token"  # noqa: S105 - a path
_USER = 65532
#: An answer is at most 16 MiB; the rest is room for what the store hasn't taken yet.
_SPOOL_SIZE = "128Mi"
_RUN_SIZE = "16Mi"


def store_url(settings: Settings) -> str:
    """Return the store's URL as seen from another namespace."""
    url = urlsplit(settings.store.url)
    host = url.hostname or ""
    if "." in host or ":" in host:
        return settings.store.url
    full = f"{host}.{settings.store.namespace}.svc.{settings.pods.cluster_domain}"
    return urlunsplit(url._replace(netloc=full if url.port is None else f"{full}:{url.port}"))


def secret_name(context: JobContext) -> str:
    """Return the name of the Secret with the agent's token."""
    return names.child(context.name, "agent")


def secret(context: JobContext) -> Object | None:
    """Return the Secret with the agent's token; None without a token."""
    if context.token is None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": labels.metadata(
            secret_name(context), context, labels=labels.of_job(context), owner=context.owner_reference
        ),
        "type": "Opaque",
        "stringData": {"token": context.token},
    }


def container(
    context: JobContext, settings: Settings, *, calls: bool, storage: Sequence[Object] = ()
) -> Object:
    """Return the sidecar; ``calls`` is whether it calls the worker, which only the worker's own does.

    ``storage`` are the mounts of what it may read for people outside.
    """
    memory = settings.agent.memory_limit
    return {
        "name": AGENT_CONTAINER,
        "image": settings.agent.image,
        "imagePullPolicy": settings.agent.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["python3", "-m", "gpux.agent"],
        "env": [
            {"name": "GPUX_STORE_URL", "value": store_url(settings)},
            {"name": "GPUX_TOKEN_FILE", "value": f"{_TOKEN}/token"},
            {"name": "GPUX_SOCKET", "value": _SOCKET},
            {"name": "GPUX_SPOOL", "value": _SPOOL},
            {"name": "GPUX_TASK_UID", "value": context.task_uid},
            {
                "name": "GPUX_POD_UID",
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}},
            },
            {"name": "GPUX_WORKER_URL", "value": f"http://127.0.0.1:{WORKER_PORT}"},
            {"name": "GPUX_CALLBACK_LISTEN", "value": f"127.0.0.1:{CALLBACK_PORT}"},
            {"name": "GPUX_CALLS", "value": "1" if calls else "0"},
            *(
                [{"name": "GPUX_STORES_URL", "value": settings.store.pods_url}]
                if storage and settings.store.pods_url is not None
                else []
            ),
            *({"name": _STORAGE[mount["mountPath"]], "value": mount["mountPath"]} for mount in storage),
            env.NO_GPU,
        ],
        "resources": {
            "requests": {
                "cpu": "10m",
                "memory": quantities.smaller("32Mi", memory),
                "ephemeral-storage": "16Mi",
            },
            "limits": {"memory": memory, "ephemeral-storage": "256Mi"},
        },
        # Connecting, not looking for the file: a socket outlives the process that listened on it.
        "startupProbe": {
            "exec": {"command": ["python3", "-S", "-m", "gpux.probe", _SOCKET]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 60,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": _USER,
            "runAsNonRoot": True,
            "runAsUser": _USER,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": RUN_VOLUME, "mountPath": _RUN},
            {"name": _SPOOL_VOLUME, "mountPath": _SPOOL},
            {"name": _TOKEN_VOLUME, "mountPath": _TOKEN, "readOnly": True},
            *storage,
        ],
    }


def volumes(context: JobContext) -> list[Object]:
    """Return the pod's volumes that the sidecar needs."""
    # The kubelet's files belong to root and the agent doesn't run as root: the mode lets it read. Nobody else
    # mounts the volume.
    token: Object = {"secretName": secret_name(context), "defaultMode": 0o444}
    if context.token is None:
        token["optional"] = True
    return [
        {"name": RUN_VOLUME, "emptyDir": {"sizeLimit": _RUN_SIZE}},
        {"name": _SPOOL_VOLUME, "emptyDir": {"sizeLimit": _SPOOL_SIZE}},
        {"name": _TOKEN_VOLUME, "secret": token},
    ]


def socket_mount() -> Object:
    """Return the mount that gives an application the socket."""
    return {"name": RUN_VOLUME, "mountPath": API_PATH, "subPath": "api.sock"}

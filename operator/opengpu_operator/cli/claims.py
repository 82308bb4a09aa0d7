"""Claims as ``opengpu storage`` shows them: read with the caller's rights, one row each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.config import ConfigException, list_kube_config_contexts
from yaml import YAMLError

from opengpu_operator.api.labels import (
    ENVIRONMENT,
    EXPIRES_AT,
    KEEP,
    LAST_USED_AT,
    MANAGED_BY,
    MANAGER,
    OWNER_NAME,
    SOURCE,
    TASK_UID,
)
from opengpu_operator.desired.names import label_value
from opengpu_operator.kube.errors import KubeError
from opengpu_operator.kube.gateway import HttpGateway
from opengpu_operator.kube.kinds import PVC, TASK
from opengpu_operator.reconcile.expiry import is_finished
from opengpu_operator.reconcile.owners import is_owners, users

Object = Mapping[str, Any]
Row = dict[str, Any]

#: What goes wrong where there is no cluster to ask, or it doesn't answer.
ERRORS: Final = (KubeError, ConfigException, OSError)
#: Written by the scheduler; where volumes are on nodes, this one has it.
_NODE: Final = "volume.kubernetes.io/selected-node"
_COLUMNS: Final = (
    "namespace",
    "owner",
    "mode",
    "environment",
    "size",
    "node",
    "lastUsed",
    "expires",
    "usedBy",
)


def current(kubeconfig: Path, context: str | None) -> str:
    """Return the namespace that kubectl would use. Raises one of ERRORS."""
    try:
        contexts, active = list_kube_config_contexts(config_file=str(kubeconfig))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, YAMLError) as error:
        # The client reads it with little care: what isn't as it expects fails in many ways.
        raise ConfigException(f"{kubeconfig} can't be used: {error}") from error
    chosen = next((entry for entry in contexts if entry["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


async def read(
    kubeconfig: Path, context: str | None, namespace: str | None
) -> tuple[Sequence[Object], Sequence[Object]]:
    """Return our claims and the tasks of a namespace, or of all (None). Raises one of ERRORS."""
    async with await HttpGateway.connect(kubeconfig=kubeconfig, context=context) as gateway:
        claims = await gateway.list(PVC, namespace, label_selector=f"{MANAGED_BY}={MANAGER}")
        return claims, await gateway.list(TASK, namespace)


def rows(claims: Iterable[Object], tasks: Iterable[Object], *, everything: bool) -> list[Row]:
    """Return what is known of claims: those of owners, or all."""
    by_namespace: dict[str, list[Object]] = {}
    for task in tasks:
        by_namespace.setdefault(task["metadata"]["namespace"], []).append(task)
    found = [
        _row(claim, by_namespace.get(claim["metadata"]["namespace"], []))
        for claim in claims
        if everything or is_owners(claim)
    ]
    return sorted(
        found, key=lambda row: (row["namespace"], row["kind"] != "user", str(row["owner"]), row["claim"])
    )


def _row(claim: Object, tasks: Sequence[Object]) -> Row:
    metadata, spec, status = claim["metadata"], claim.get("spec") or {}, claim.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if is_owners(claim):
        kind, using = "user", users(tasks, claim)
    elif TASK_UID in labels:
        kind, using = "job", [task for task in tasks if task["metadata"]["uid"] == labels[TASK_UID]]
    else:
        kind, using = "source", [task for task in tasks if _of_source(task, labels)]
    shared = "ReadWriteMany" in (spec.get("accessModes") or ())
    size = (status.get("capacity") or {}).get("storage")
    return {
        "namespace": metadata["namespace"],
        "claim": metadata["name"],
        "kind": kind,
        "owner": annotations.get(OWNER_NAME),
        "mode": "Shared" if shared else "NodeLocal",
        # A shared volume of an owner is for all of them.
        "environment": labels.get(ENVIRONMENT),
        "size": size or ((spec.get("resources") or {}).get("requests") or {}).get("storage"),
        "phase": status.get("phase"),
        "node": None if shared else annotations.get(_NODE),
        "lastUsed": annotations.get(LAST_USED_AT) or metadata.get("creationTimestamp"),
        "expires": annotations.get(EXPIRES_AT),
        "kept": annotations.get(KEEP) == "true",
        "usedBy": sorted(task["metadata"]["name"] for task in using if not is_finished(task)),
    }


def _of_source(task: Object, labels: Mapping[str, str]) -> bool:
    source = task.get("spec", {}).get("sourceRef", {}).get("name", "")
    return label_value(source) == labels.get(SOURCE) and task.get("status", {}).get(
        "environment"
    ) == labels.get(ENVIRONMENT)


def table(found: Sequence[Row], *, everything: bool) -> list[str]:
    """Return rows as lines under a heading, as kubectl does."""
    columns = ("kind", "claim", *_COLUMNS) if everything else _COLUMNS
    heading = [_heading(column) for column in columns]
    lines = [heading, *([_cell(row, column) for column in columns] for row in found)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return ["   ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _heading(column: str) -> str:
    return "".join(f"-{letter}" if letter.isupper() else letter for letter in column).upper()


def _cell(row: Row, column: str) -> str:
    value = row[column]
    if column == "expires" and row["kept"]:
        return "never"
    if isinstance(value, list):
        value = ",".join(value)
    # Anybody may have written an annotation: nothing of it steers the terminal.
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value or "")
    return text or "-"

"""What a job's agent may do in the store: the claims of its token, from the task, the settings and its namespace."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from opengpu_operator.api.labels import QUOTA_JOB, QUOTA_OWNER
from opengpu_operator.api.task import Task
from opengpu_operator.desired.quantities import parse
from opengpu_operator.settings import QuotaSettings

logger = logging.getLogger(__name__)

_LARGEST = (1 << 63) - 1


def of_job(
    task: Task, *, namespace: Mapping[str, Any] | None, quota: QuotaSettings, ends: datetime
) -> dict[str, object]:
    """Return the claims of a task's token, which holds until ``ends``; ``namespace``: the object, if it is seen."""
    annotations = ((namespace or {}).get("metadata") or {}).get("annotations") or {}
    claims: dict[str, object] = {
        "scope": "job",
        "namespace": task.metadata.namespace,
        "task": task.metadata.uid,
        "exp": math.ceil(ends.timestamp()),
    }
    job = _limit(annotations.get(QUOTA_JOB), quota.job_bytes)
    if job is not None:
        claims["jobBytes"] = job
    if task.spec.owner is not None:
        claims["owner"] = task.spec.owner
        owner = _limit(annotations.get(QUOTA_OWNER), quota.owner_bytes)
        if owner is not None:
            claims["ownerBytes"] = owner
    return claims


def _limit(annotated: str | None, setting: str | None) -> int | None:
    """Return a limit in bytes; None where there is none."""
    if annotated == "none":
        return None
    if annotated is None:
        return _bytes(setting)
    try:
        found = parse(annotated)
        if 0 <= found <= _LARGEST:
            return int(found)
    except ValueError:
        pass
    # What is no number of bytes limits nothing by itself, and lifts no limit either. In a token it would make that
    # nothing to the store, and with it the job.
    logger.warning("the quota %r of a namespace isn't a quantity", annotated)
    return _bytes(setting)


def _bytes(quantity: str | None) -> int | None:
    return int(parse(quantity)) if quantity is not None else None

"""When a task expires, and when a finished one is removed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from opengpu_operator.api.conditions import get_condition
from opengpu_operator.api.reasons import ConditionType
from opengpu_operator.api.source import Source
from opengpu_operator.api.task import Task
from opengpu_operator.settings import TaskSettings

_ENDS = (ConditionType.COMPLETE, ConditionType.FAILED)


def expires_at(task: Task, source: Source | None, settings: TaskSettings) -> datetime:
    """Return when the task expires: its own wish, bounded by the cluster's maximum and the source's.

    A task that doesn't say gets the cluster's default. The clock runs from creation, whether or not the task could
    start: who waits for an answer wants to know by then. A running task keeps what it started with, unless it is
    itself told otherwise: terms and settings that change are for those that come.
    """
    granted = _granted(task)
    seconds = task.spec.expiry_seconds or granted or settings.default_expiry_seconds
    limits = [settings.max_expiry_seconds]
    if source is not None and source.spec.max_expiry_seconds is not None:
        limits.append(source.spec.max_expiry_seconds)
    limit = max(min(limits), granted or 0)
    return task.metadata.creation_timestamp + timedelta(seconds=min(seconds, limit))


def _granted(task: Task) -> float | None:
    """Return how many seconds a task has that runs; None for one that doesn't yet."""
    if task.status.revision is None or task.status.expires_at is None:
        return None
    return (datetime.fromisoformat(task.status.expires_at) - task.metadata.creation_timestamp).total_seconds()


def finished_at(task: Task) -> datetime | None:
    """Return when the task ended, from the condition that says so; None while it hasn't."""
    for name in _ENDS:
        condition = get_condition(task.status.conditions, name)
        if condition is not None and condition.status == "True":
            return datetime.fromisoformat(condition.last_transition_time)
    return None


def is_finished(seen: Mapping[str, Any]) -> bool:
    """Return whether a task ended, from the object as it is: who counts thousands can't validate each."""
    conditions = seen.get("status", {}).get("conditions", ())
    return any(entry["type"] in _ENDS and entry["status"] == "True" for entry in conditions)


def removal_at(task: Task) -> datetime | None:
    """Return when a finished task's object is to be deleted; None: never by us."""
    finished = finished_at(task)
    seconds = task.spec.ttl_seconds_after_finished
    if finished is None or seconds is None or task.spec.publish is not None:
        return None
    return finished + timedelta(seconds=seconds)

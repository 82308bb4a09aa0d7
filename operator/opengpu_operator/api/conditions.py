"""Conditions in the form that kubectl, kstatus, Argo CD and Flux understand.

Rules (metav1.Condition; cert-manager and jobset do the same): the transition time changes only with the status,
``observedGeneration`` is written every time, the message is for people and is cut to a bounded length.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from opengpu_operator.api.meta import Timestamp

MESSAGE_LIMIT = 1024
Status = Literal["True", "False", "Unknown"]


def timestamp(moment: datetime) -> str:
    """Return ``moment`` as Kubernetes writes times: RFC 3339 in UTC, whole seconds, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Condition(BaseModel):
    """One entry of ``status.conditions``."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, use_attribute_docstrings=True
    )

    type: str = Field(max_length=316, pattern=r"^[A-Za-z][A-Za-z0-9]*$")
    """type of the condition; at most one of each."""
    status: Status
    """status is True, False or Unknown."""
    observed_generation: int = Field(default=0, ge=0)
    """observedGeneration is the metadata.generation that the condition was made from."""
    last_transition_time: Timestamp = ""
    """lastTransitionTime is when the status last changed."""
    reason: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """reason is one stable word for the cause; it may name a field after a colon."""
    message: str = Field(default="", max_length=MESSAGE_LIMIT)
    """message explains it to people."""


def set_condition(
    conditions: Sequence[Condition],
    *,
    type: str,  # noqa: A002 - the field's name in Kubernetes
    status: bool | None,
    reason: str,
    message: str = "",
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Return ``conditions`` with one set; ``status`` None is Unknown. Order is kept, a new one is appended."""
    text: Status = "Unknown" if status is None else "True" if status else "False"
    if len(message) > MESSAGE_LIMIT:
        message = message[: MESSAGE_LIMIT - 1] + "…"
    before = get_condition(conditions, type)
    since = before.last_transition_time if before and before.status == text else timestamp(now)
    new = Condition(
        type=type,
        status=text,
        observed_generation=generation,
        last_transition_time=since,
        reason=reason,
        message=message,
    )
    if before is None:
        return [*conditions, new]
    return [new if condition.type == type else condition for condition in conditions]


def get_condition(conditions: Sequence[Condition], type: str) -> Condition | None:  # noqa: A002
    """Return the condition of a type, or None."""
    return next((condition for condition in conditions if condition.type == type), None)


def is_true(conditions: Sequence[Condition], type: str) -> bool:  # noqa: A002
    """Return whether a condition is present and True."""
    condition = get_condition(conditions, type)
    return condition is not None and condition.status == "True"

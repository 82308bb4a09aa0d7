"""The status that one reconcile will write: collected in memory, written once, and only if it differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from opengpu_operator.api.conditions import Condition, get_condition, set_condition
from opengpu_operator.api.reasons import ConditionType


class _Status(Protocol):
    observed_generation: int
    conditions: list[Condition]

    def dump(self) -> dict[str, Any]: ...


S = TypeVar("S", bound=_Status)


@dataclass(kw_only=True)
class Draft(Generic[S]):
    """A status under construction."""

    status: S
    generation: int
    now: datetime
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """(type, reason, message), emitted after the status was written."""
    before: dict[str, Any] = field(init=False)
    """The status as it was."""
    reason_before: str | None = field(init=False)
    """The reason of the Ready condition as it was; None before the first reconcile."""

    def __post_init__(self) -> None:
        self.before = self.status.dump()
        ready = self.get(ConditionType.READY)
        self.reason_before = ready.reason if ready else None
        self.status.observed_generation = self.generation

    def set(self, type_: ConditionType, status: bool | None, reason: str, message: str = "") -> None:  # noqa: FBT001
        """Set a condition; ``status`` None is Unknown."""
        self.status.conditions = set_condition(
            self.status.conditions,
            type=str(type_),
            status=status,
            reason=str(reason),
            message=message,
            generation=self.generation,
            now=self.now,
        )

    def drop(self, type_: ConditionType) -> None:
        """Remove a condition that no longer says anything."""
        self.status.conditions = [item for item in self.status.conditions if item.type != str(type_)]

    def get(self, type_: ConditionType) -> Condition | None:
        """Return a condition as drafted so far."""
        return get_condition(self.status.conditions, str(type_))

    def progressing(self, reason: str, message: str = "") -> None:
        """Say that work is under way: kstatus' InProgress."""
        self.set(ConditionType.READY, status=False, reason=reason, message=message)
        self.set(ConditionType.RECONCILING, status=True, reason=reason, message=message)
        self.drop(ConditionType.STALLED)

    def stalled(self, reason: str, message: str) -> None:
        """Say that only a change of the object helps: kstatus' Failed."""
        self.set(ConditionType.READY, status=False, reason=reason, message=message)
        self.set(ConditionType.STALLED, status=True, reason=reason, message=message)
        self.drop(ConditionType.RECONCILING)

    def ready(self, reason: str, message: str = "") -> None:
        """Say that all is as it should be: kstatus' Current."""
        self.set(ConditionType.READY, status=True, reason=reason, message=message)
        self.drop(ConditionType.RECONCILING)
        self.drop(ConditionType.STALLED)

    def event(self, type_: str, reason: str, message: str = "") -> None:
        """Have an event recorded once the status is written."""
        self.events.append((type_, str(reason), message))

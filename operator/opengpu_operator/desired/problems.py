"""Collects all that is wrong with a task or file, so that it is said at once, not one error per try."""

from __future__ import annotations

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.reasons import Reason


class Problems:
    """What was found wrong while the objects of a job were built."""

    def __init__(self) -> None:
        """Start with none."""
        self._spec: list[tuple[str, str]] = []
        self._file: list[str] = []

    def spec(self, field: str, message: str) -> None:
        """Add a problem with a field of the task's spec."""
        if (field, message) not in self._spec:
            self._spec.append((field, message))

    def file(self, message: str) -> None:
        """Add a problem with the Compose file."""
        if message not in self._file:
            self._file.append(message)

    def stop(self) -> None:
        """Raise :class:`Invalid` if there is any problem; its reason names the fields of the task."""
        fields = list(dict.fromkeys(field for field, _ in self._spec))
        messages = [*self._file, *(f"spec.{field}: {message}" for field, message in self._spec)]
        if self._file:
            raise Invalid(Reason.COMPOSE_REFUSED, "; ".join(messages))
        if fields:
            raise Invalid(Reason.SPEC_REFUSED.about(",".join(fields)), "; ".join(messages))

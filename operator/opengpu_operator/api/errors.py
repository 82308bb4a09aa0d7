"""Why a reconcile stops, each with its retry semantics; raised below, understood by the loop alone."""

from __future__ import annotations


class ReconcileError(Exception):
    """A reconcile stopped; ``reason`` is one of :class:`~opengpu_operator.api.reasons.Reason` (with ``:field``)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = str(reason)
        self.message = message


class Transient(ReconcileError):
    """Something failed that may work later; the key is tried again after ``retry_after`` seconds, or with back-off."""

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Waiting(ReconcileError):
    """Something that the object refers to isn't there yet; an event of that thing triggers the next reconcile."""


class Invalid(ReconcileError):
    """Only a change of the object itself helps: it is Stalled until then."""


class Conflict(ReconcileError):
    """An object of the same name belongs to somebody else, or changed under us."""

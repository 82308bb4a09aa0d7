"""What the condition Routed says of a job's URLs."""

from __future__ import annotations

from typing import NamedTuple

from opengpu_operator.api.reasons import Reason
from opengpu_operator.desired.findings import JobFinding
from opengpu_operator.desired.job import JobObjects


class Routing(NamedTuple):
    """The condition, without its times."""

    status: bool
    reason: Reason
    message: str


def routing(objects: JobObjects) -> Routing | None:
    """Return the condition; None where the job has no port to be reached, or there is no domain."""
    refused = _said(objects, JobFinding.PORT_NOT_ROUTED)
    if refused:
        return Routing(status=False, reason=Reason.PORT_NOT_ROUTED, message=refused)
    if not objects.routed:
        return None
    ignored = _said(objects, JobFinding.PORT_OPTION_IGNORED)
    if ignored:
        return Routing(status=True, reason=Reason.PORT_OPTION_IGNORED, message=ignored)
    return Routing(status=True, reason=Reason.ROUTED, message="")


def _said(objects: JobObjects, reason: JobFinding) -> str:
    """Return what is said under one reason, and the advice, once."""
    found = [finding for finding in objects.findings if finding.reason == reason]
    if not found:
        return ""
    return " ".join([*(finding.message for finding in found), found[0].advice or ""]).strip()

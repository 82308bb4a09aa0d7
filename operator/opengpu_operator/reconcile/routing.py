"""What the condition Routed says of a job's URLs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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


def as_seen(wanted: Routing | None, routes: Iterable[Mapping[str, Any]]) -> Routing | None:
    """Return the condition by what became of the job's HTTPRoutes: their Gateway may not take them."""
    refused = {
        f"{condition.get('reason')}: {condition.get('message', '')}": None
        for route in routes
        for condition in route.get("status", {}).get("refused", ())
    }
    if not refused or wanted is None or not wanted.status:
        return wanted
    message = f"the Gateway doesn't take every route: {'; '.join(refused)}"
    return Routing(status=False, reason=Reason.ROUTE_NOT_ACCEPTED, message=message)


def _said(objects: JobObjects, reason: JobFinding) -> str:
    """Return what is said under one reason, and the advice, once."""
    found = [finding for finding in objects.findings if finding.reason == reason]
    if not found:
        return ""
    return " ".join([*(finding.message for finding in found), found[0].advice or ""]).strip()

"""One route of a job: a port of a service that has a URL, and the names that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from opengpu_operator.api.access import Protocol
from opengpu_operator.desired import names
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.options import PLAIN, Options


@dataclass(frozen=True, kw_only=True)
class Route:
    """A port of a service that has a URL."""

    service: str
    component: str
    """The unit whose pods listen."""
    port: int
    """The container's port."""
    public: int
    """The number in the host: the container's port, or the published one where two services share it."""
    options: Options = PLAIN


def host(route: Route, context: JobContext, domain: str) -> str:
    """Return the host of a route: made of the job's id and a number."""
    return f"{context.job_id}-{route.public}.{domain}"


def service_name(route: Route, context: JobContext) -> str:
    """Return the name of the Service that a route leads to: one per unit, and per protocol but HTTP."""
    protocol = route.options.protocol
    if protocol is Protocol.HTTP:
        return names.child(context.name, "r", route.component)
    return names.child(context.name, "rs", protocol.lower(), route.component)

"""Routes as HTTPRoutes of the Gateway API: one per port, below the cluster owner's Gateway in its own namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.route import Route, host, service_name
from opengpu_operator.settings import RouteSettings

Object = dict[str, Any]

_GROUP: Final = "gateway.networking.k8s.io"


def build(
    routes: Sequence[Route], context: JobContext, settings: RouteSettings, *, domain: str
) -> list[Object]:
    """Return an HTTPRoute per route."""
    return [_route(route, context, settings, domain=domain) for route in routes]


def _route(route: Route, context: JobContext, settings: RouteSettings, *, domain: str) -> Object:
    gateway = settings.gateway
    parent: Object = {
        "group": _GROUP,
        "kind": "Gateway",
        "name": gateway.name,
        "namespace": gateway.namespace,
    }
    if gateway.section_name is not None:
        parent["sectionName"] = gateway.section_name
    rule: Object = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [
            {
                "group": "",
                "kind": "Service",
                "name": service_name(route, context),
                "port": route.port,
                "weight": 1,
            }
        ],
    }
    if route.options.timeout is not None:
        rule["timeouts"] = {"request": f"{route.options.timeout}s"}
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": labels.metadata(
            names.child(context.name, "p", str(route.public)),
            context,
            labels=labels.of_job(context),
            owner=context.owner_reference,
            annotations=settings.annotations,
        ),
        "spec": {"parentRefs": [parent], "hostnames": [host(route, context, domain)], "rules": [rule]},
    }

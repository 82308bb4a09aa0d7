"""Routes as Ingresses: one for all ports that nothing is said about, and one for each set of options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.options import PLAIN, Options, annotate, profile
from opengpu_operator.desired.route import Route, host, service_name
from opengpu_operator.settings import RouteSettings

Object = dict[str, Any]


def build(
    routes: Sequence[Route], context: JobContext, settings: RouteSettings, *, domain: str
) -> list[Object]:
    """Return the Ingresses of a job's routes."""
    groups: dict[Options, list[Route]] = {}
    for route in routes:
        groups.setdefault(route.options, []).append(route)
    return [_ingress(options, found, context, settings, domain=domain) for options, found in groups.items()]


def _name(options: Options, context: JobContext, settings: RouteSettings) -> str:
    """Return a name that changes with what the annotations say, since no annotation is ever taken back."""
    if options == PLAIN:
        return context.name
    return names.child(context.name, "o", names.digest(settings.profile, options.digest)[:8])


def _ingress(
    options: Options, routes: Sequence[Route], context: JobContext, settings: RouteSettings, *, domain: str
) -> Object:
    spec: Object = {
        "rules": [
            {
                "host": host(route, context, domain),
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {
                                "service": {
                                    "name": service_name(route, context),
                                    "port": {"number": route.port},
                                },
                            },
                        }
                    ]
                },
            }
            for route in routes
        ]
    }
    if settings.ingress_class_name is not None:
        spec["ingressClassName"] = settings.ingress_class_name
    if settings.scheme == "https":
        # Without a Secret: the controller's default certificate, so no private key comes into this namespace.
        spec["tls"] = [{"hosts": [host(route, context, domain) for route in routes]}]
    services = list(dict.fromkeys(service_name(route, context) for route in routes))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": labels.metadata(
            _name(options, context, settings),
            context,
            labels=labels.of_job(context),
            owner=context.owner_reference,
            annotations=annotate(options, profile(settings)[1], settings.annotations, services=services),
        ),
        "spec": spec,
    }

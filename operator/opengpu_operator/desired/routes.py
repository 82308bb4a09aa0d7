"""URLs of a job's ports: ``<jobId>-<port>.<domain>``.

The host is made of the job's id and a number, and of nothing that a user or file chooses, so no job can take
another's. The worker's port gets none: who can reach it can call it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from opengpu_operator.api.findings import Finding
from opengpu_operator.api.labels import WORKER_PORT
from opengpu_operator.api.task import Url
from opengpu_operator.api.translation import Port, Service
from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.plan import Plan
from opengpu_operator.desired.problems import Problems
from opengpu_operator.settings import RouteSettings

Object = dict[str, Any]

#: As many as the task's status lists.
LIMIT = 64


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


@dataclass(frozen=True, kw_only=True)
class Routes:
    """A job's routes."""

    routes: tuple[Route, ...]
    findings: tuple[Finding, ...]

    @property
    def ports(self) -> list[int]:
        """The container ports that the ingress controller must reach."""
        return sorted({route.port for route in self.routes})


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    service: Service
    component: str
    port: Port

    @property
    def place(self) -> tuple[str, int]:
        return self.component, self.port.container


def choose(plan: Plan, context: JobContext, problems: Problems) -> Routes:
    """Return the routes of a job; a number that would stand for two services is a problem."""
    findings: list[Finding] = []
    if context.spec.ports is None:
        chosen = [candidate for candidate in _candidates(plan) if not candidate.port.exposed_only]
        if len(chosen) > LIMIT:
            findings.append(
                remark(
                    JobFinding.PORTS_CUT,
                    path="services",
                    message=f"The file publishes {len(chosen)} ports; the first {LIMIT} get a URL.",
                )
            )
            chosen = chosen[:LIMIT]
    else:
        chosen = _requested(plan, context, problems, findings)
    shared = Counter(candidate.port.container for candidate in chosen)
    routes = []
    for candidate in chosen:
        port = candidate.port
        public = port.container if shared[port.container] == 1 else port.published
        if public is None or public == WORKER_PORT:
            problems.spec(
                "ports",
                f"port {port.container} belongs to several services, and {candidate.service.name} publishes "
                "it as no number of its own: list others",
            )
            continue
        routes.append(
            Route(
                service=candidate.service.name,
                component=candidate.component,
                port=port.container,
                public=public,
            )
        )
    for number, count in Counter(route.public for route in routes).items():
        if count > 1:
            who = ", ".join(f"{route.service}:{route.port}" for route in routes if route.public == number)
            problems.spec("ports", f"the URL of port {number} would stand for {who}: list one of them")
    return Routes(routes=tuple(routes), findings=tuple(findings))


def _candidates(plan: Plan) -> list[_Candidate]:
    """Return every TCP port of the file but the worker's, once per pod, published ones in preference."""
    found: dict[tuple[str, int], _Candidate] = {}
    for unit in plan.units:
        for member in unit.members:
            for port in member.ports:
                if port.protocol != "TCP" or port.container == WORKER_PORT:
                    continue
                candidate = _Candidate(service=member, component=unit.component, port=port)
                before = found.get(candidate.place)
                if before is None or _preferred(port, before.port):
                    found[candidate.place] = candidate
    return list(found.values())


def _preferred(port: Port, before: Port) -> bool:
    return (port.exposed_only, port.published is None) < (before.exposed_only, before.published is None)


def _requested(
    plan: Plan, context: JobContext, problems: Problems, findings: list[Finding]
) -> list[_Candidate]:
    candidates = _candidates(plan)
    found: dict[tuple[str, int], _Candidate] = {}
    for number in dict.fromkeys(context.spec.ports or ()):
        if number == WORKER_PORT:
            problems.spec("ports", f"{WORKER_PORT} is the worker's port, which only the agent may call")
            continue
        matches = [candidate for candidate in candidates if candidate.port.container == number]
        published = [candidate for candidate in matches if not candidate.port.exposed_only]
        by_host_port = [candidate for candidate in candidates if candidate.port.published == number]
        chosen = published or matches or by_host_port
        if not chosen:
            unit = plan.unit_of(plan.main.name)
            chosen = [_Candidate(service=plan.main, component=unit.component, port=Port(container=number))]
            findings.append(
                remark(
                    JobFinding.PORT_OF_MAIN_SERVICE,
                    path="spec.ports",
                    message=f"No service declares port {number}; {plan.main.name} is taken to listen on it.",
                )
            )
        found |= {candidate.place: candidate for candidate in chosen}
    return list(found.values())


def host(route: Route, context: JobContext, domain: str) -> str:
    """Return the host of a route."""
    return f"{context.job_id}-{route.public}.{domain}"


def urls(routes: Routes, context: JobContext, settings: RouteSettings) -> list[Url]:
    """Return where the ports are reached; none without a domain."""
    if settings.domain is None:
        return []
    end = "" if settings.external_port is None else f":{settings.external_port}"
    return [
        Url(
            service=route.service,
            port=route.port,
            url=f"{settings.scheme}://{host(route, context, settings.domain)}{end}",
        )
        for route in routes.routes
    ]


def objects(routes: Routes, context: JobContext, settings: RouteSettings) -> list[Object]:
    """Return a headless Service per routed unit, and the Ingress."""
    if settings.domain is None or not routes.routes:
        return []
    by_component: dict[str, list[Route]] = {}
    for route in routes.routes:
        by_component.setdefault(route.component, []).append(route)
    services = [_service(component, found, context) for component, found in by_component.items()]
    return [*services, _ingress(routes, context, settings, domain=settings.domain)]


def _service_name(component: str, context: JobContext) -> str:
    return names.child(context.name, "r", component)


def _service(component: str, routes: list[Route], context: JobContext) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(
            _service_name(component, context),
            context,
            labels=labels.of_job(context, component),
            owner=context.owner_reference,
        ),
        "spec": {
            "clusterIP": "None",
            "ports": [
                {"name": f"p-{route.port}", "port": route.port, "protocol": "TCP", "targetPort": route.port}
                for route in routes
            ],
            "selector": labels.selector(context, component),
        },
    }


def _ingress(routes: Routes, context: JobContext, settings: RouteSettings, *, domain: str) -> Object:
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
                                    "name": _service_name(route.component, context),
                                    "port": {"number": route.port},
                                }
                            },
                        }
                    ]
                },
            }
            for route in routes.routes
        ]
    }
    if settings.ingress_class_name is not None:
        spec["ingressClassName"] = settings.ingress_class_name
    if settings.scheme == "https":
        # Without a Secret: the controller's default certificate, so no private key comes into this namespace.
        spec["tls"] = [{"hosts": [host(route, context, domain) for route in routes.routes]}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": labels.metadata(
            context.name,
            context,
            labels=labels.of_job(context),
            owner=context.owner_reference,
            annotations=settings.annotations,
        ),
        "spec": spec,
    }

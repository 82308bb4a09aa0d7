"""URLs of a job's ports: ``<jobId>-<port>.<domain>``.

The host is made of the job's id and a number, and of nothing that a user or file chooses, so no job can take
another's. The worker's port gets none: who can reach it can call it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from opengpu_operator.api.access import Protocol
from opengpu_operator.api.findings import Finding
from opengpu_operator.api.labels import WORKER_PORT
from opengpu_operator.api.task import Url
from opengpu_operator.api.translation import Port, Service
from opengpu_operator.desired import httproutes, ingresses, labels
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.options import Wishes, judge, profile
from opengpu_operator.desired.plan import Plan
from opengpu_operator.desired.problems import Problems
from opengpu_operator.desired.route import Route, host, service_name
from opengpu_operator.settings import RouteSettings

Object = dict[str, Any]

#: As many as the task's status lists.
LIMIT = 64


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


def choose(plan: Plan, context: JobContext, settings: RouteSettings, *, problems: Problems) -> Routes:
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
    routes: list[Route] = []
    wishes = Wishes(context.spec, problems)
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
                options=wishes.of(port.container, port.published, list(shared)),
            )
        )
    wishes.check()
    for number, count in Counter(route.public for route in routes).items():
        if count > 1:
            who = ", ".join(f"{route.service}:{route.port}" for route in routes if route.public == number)
            problems.spec("ports", f"the URL of port {number} would stand for {who}: list one of them")
    if settings.domain is not None:
        routes = _possible(routes, settings, findings)
    return Routes(routes=tuple(routes), findings=tuple(findings))


def _possible(routes: list[Route], settings: RouteSettings, findings: list[Finding]) -> list[Route]:
    """Return the routes that can be made as they are asked for; say what can't."""
    who, known = profile(settings)
    found = []
    for route in routes:
        verdict = judge(route.options, known)
        path = f"spec.portOptions[{route.port}]"
        if verdict.lacking:
            findings.append(
                remark(
                    JobFinding.PORT_NOT_ROUTED,
                    path=path,
                    message=f"Port {route.port} has no URL: {who} can't have {', '.join(verdict.lacking)}.",
                )
            )
            continue
        if verdict.ignored:
            findings.append(
                remark(
                    JobFinding.PORT_OPTION_IGNORED,
                    path=path,
                    message=f"{', '.join(verdict.ignored)} of port {route.port} has no effect: {who} can't have it.",
                )
            )
        found.append(replace(route, options=verdict.options))
    return found


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
    """Return the headless Services that are routed to, and the objects of the chosen kind that lead there."""
    if settings.domain is None or not routes.routes:
        return []
    by_name: dict[str, list[Route]] = {}
    for route in routes.routes:
        by_name.setdefault(service_name(route, context), []).append(route)
    services = [_service(name, found, context, settings) for name, found in by_name.items()]
    build = httproutes.build if settings.kind == "HTTPRoute" else ingresses.build
    return [*services, *build(routes.routes, context, settings, domain=settings.domain)]


#: How the Gateway API is told what a backend speaks: by its Service.
_APP_PROTOCOLS = {Protocol.GRPC: "kubernetes.io/h2c", Protocol.H2C: "kubernetes.io/h2c"}


def _service(name: str, routes: list[Route], context: JobContext, settings: RouteSettings) -> Object:
    """Return a Service; all its ports are of one unit and speak one protocol."""
    component, protocol = routes[0].component, routes[0].options.protocol
    _, known = profile(settings)
    ports = ",".join(str(route.port) for route in routes)
    app = (
        {"appProtocol": _APP_PROTOCOLS[protocol]}
        if settings.kind == "HTTPRoute" and protocol in _APP_PROTOCOLS
        else {}
    )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(
            name,
            context,
            labels=labels.of_job(context, component),
            owner=context.owner_reference,
            annotations={
                key: text.format(ports=ports)
                for key, text in known.service_protocols.get(protocol, {}).items()
            },
        ),
        "spec": {
            "clusterIP": "None",
            "ports": [
                {
                    "name": f"p-{route.port}",
                    "port": route.port,
                    "protocol": "TCP",
                    "targetPort": route.port,
                    **app,
                }
                for route in routes
            ],
            "selector": labels.selector(context, component),
        },
    }

"""Which pods a file becomes, of which kind, what waits for what, and which service is the main one.

Services joined by ``network_mode: service:x`` are containers of one pod, so pods, not services, are the units
that are scheduled, gated and counted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.labels import WORKER_PORT
from opengpu_operator.api.translation import InlineFile, Restart, Service, Translation, Until
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.problems import Problems

#: How often Kubernetes tries a Job whose file doesn't say (``on-failure`` without a number).
DEFAULT_RETRIES = 6
#: The first label of a host's name.
_HOST = re.compile(r"(?<![-.\w])[-\w]+")


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What a pod waits for before it may be scheduled."""

    until: Literal["healthy", "completed"]
    component: str
    """The DNS name of the unit that is waited for."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One pod template: a service, and those that join its network."""

    root: Service
    members: tuple[Service, ...]
    """The root first, then the others in the file's order."""
    kind: Literal["Deployment", "Job"]
    retries: int
    """A Job's backoffLimit."""
    waits: tuple[Wait, ...]

    @property
    def component(self) -> str:
        """The DNS name that the pod goes by, and the value of its component label."""
        return self.root.dns_name


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The pods of a job."""

    units: tuple[Unit, ...]
    main: Service
    findings: tuple[Finding, ...]

    def unit_of(self, service: str) -> Unit:
        """Return the unit in which a service's container is."""
        return next(unit for unit in self.units if any(member.name == service for member in unit.members))


def make(translation: Translation, context: JobContext, problems: Problems) -> Plan:
    """Return the plan, or raise with everything that is wrong if there can't be one."""
    services = {service.name: service for service in translation.services}
    roots = _roots(services, problems)
    main = _main(translation, context, problems)
    if main is None or len(roots) != len(services):
        problems.stop()
    assert main is not None  # noqa: S101 - _main gave a problem otherwise, and stop() raised
    findings: list[Finding] = []
    waits = {name: _waits(services[name], services, roots, findings) for name in services}
    _refuse_missing(services.values(), services, problems)
    completed = {
        dependency.service
        for service in services.values()
        for dependency in service.depends_on
        if dependency.until is Until.COMPLETED
    }
    units = []
    for name, root in services.items():
        if roots[name] != name:
            continue
        members = (
            root,
            *(other for other in services.values() if roots[other.name] == name and other is not root),
        )
        kinds = {
            _kind(member, completed=completed, translation=translation, call=context.call)
            for member in members
        }
        units.append(
            Unit(
                root=root,
                members=members,
                kind="Deployment" if "Deployment" in kinds else "Job",
                retries=max(_retries(member, completed=completed) for member in members),
                waits=tuple(dict.fromkeys(wait for member in members for wait in waits[member.name])),
            )
        )
    _refuse_cycles(units, problems)
    findings += _never_completes(units)
    return Plan(units=tuple(units), main=main, findings=tuple(findings))


def reach(edges: Mapping[str, Iterable[str]], start: str) -> set[str]:
    """Return everything that ``start`` leads to, which includes ``start`` only if there is a cycle."""
    found: set[str] = set()
    todo = list(edges.get(start, ()))
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(edges.get(node, ()))
    return found


def wait_edges(units: Iterable[Unit]) -> dict[str, set[str]]:
    """Return which component waits for which."""
    return {unit.component: {wait.component for wait in unit.waits} for unit in units}


def _roots(services: Mapping[str, Service], problems: Problems) -> dict[str, str]:
    """Return, for each service, the one in whose pod it is."""
    roots = {}
    for name in services:
        seen = [name]
        while (joined := services[seen[-1]].joins) is not None:
            if joined not in services:
                problems.file(
                    f"services.{seen[-1]}.network_mode names the service {joined!r}, which isn't there"
                )
                break
            if joined in seen:
                problems.file("network_mode goes in a circle: " + " -> ".join([*seen, joined]))
                break
            seen.append(joined)
        else:
            roots[name] = seen[-1]
    return roots


def _main(translation: Translation, context: JobContext, problems: Problems) -> Service | None:
    services = {service.name: service for service in translation.services}
    if context.spec.is_call and translation.worker is None:
        problems.spec(
            "functionName",
            f"no service of the file publishes port {WORKER_PORT}, where functions are called; "
            "leave out functionName to run the file as a job",
        )
    if (wanted := context.spec.main_service) is not None:
        if wanted in services:
            return services[wanted]
        problems.spec("mainService", f"the file has no service {wanted!r}, only {', '.join(services)}")
        return None
    worker = services.get(translation.worker or "")
    if context.call and worker is not None:
        return worker
    needed = {dependency.service for service in services.values() for dependency in service.depends_on}
    alone = [service for service in services.values() if service.name not in needed and service.joins is None]
    if worker in alone:
        return worker
    published = [
        service
        for service in alone
        if any(port.protocol == "TCP" and not port.exposed_only for port in service.ports)
    ]
    # Where every service is needed by another, the file goes in a circle or a joined one is the outermost.
    return next(iter([*published, *alone, *services.values()]), None)


def _waits(
    service: Service, services: Mapping[str, Service], roots: Mapping[str, str], findings: list[Finding]
) -> list[Wait]:
    found = []
    for dependency in service.depends_on:
        other = services.get(dependency.service)
        if other is None or dependency.until is Until.STARTED:
            continue
        root = services[roots[other.name]]
        path = f"services.{service.name}.depends_on.{other.name}"
        if root.name == roots[service.name]:
            findings.append(
                remark(
                    JobFinding.DEPENDENCY_IN_SAME_POD,
                    path=path,
                    message=f"{service.name} and {other.name} share a network, so they are started together",
                )
            )
        elif root.replicas == 0:
            findings.append(
                remark(
                    JobFinding.DEPENDENCY_WITHOUT_REPLICAS,
                    path=path,
                    message=f"{other.name} has no replicas, so {service.name} doesn't wait for it",
                )
            )
        else:
            until: Literal["healthy", "completed"] = (
                "completed" if dependency.until is Until.COMPLETED else "healthy"
            )
            found.append(Wait(until=until, component=root.dns_name))
    return found


def _refuse_missing(
    all_services: Iterable[Service], services: Mapping[str, Service], problems: Problems
) -> None:
    for service in all_services:
        for dependency in service.depends_on:
            if dependency.required and dependency.service not in services:
                problems.file(
                    f"services.{service.name}.depends_on names {dependency.service!r}, which isn't there"
                )


def _kind(
    service: Service, *, completed: set[str], translation: Translation, call: bool
) -> Literal["Deployment", "Job"]:
    if service.name == translation.worker:
        return "Deployment"
    if service.name in completed:
        # Somebody waits for its end, so it has one, whatever an anchor shared by all services says.
        return "Job"
    if service.restart is Restart.UNSET:
        return "Deployment" if call else "Job"
    return "Deployment" if service.restart is Restart.ALWAYS else "Job"


def _retries(service: Service, *, completed: set[str]) -> int:
    if service.restart is Restart.ON_FAILURE:
        return DEFAULT_RETRIES if service.max_retries is None else service.max_retries
    return DEFAULT_RETRIES if service.restart is Restart.ALWAYS and service.name in completed else 0


def _refuse_cycles(units: list[Unit], problems: Problems) -> None:
    edges = wait_edges(units)
    circle = [unit.component for unit in units if unit.component in reach(edges, unit.component)]
    if circle:
        problems.file(f"depends_on goes in a circle through {', '.join(circle)}")
        # Nothing that follows can make sense of it.
        problems.stop()


def _never_completes(units: list[Unit]) -> list[Finding]:
    kinds = {unit.component: unit.kind for unit in units}
    return [
        remark(
            JobFinding.NEVER_COMPLETES,
            path=f"services.{unit.root.name}.depends_on",
            message=f"{unit.component} waits until {wait.component} has ended, which is kept running",
        )
        for unit in units
        for wait in unit.waits
        if wait.until == "completed" and kinds[wait.component] == "Deployment"
    ]


def alias_findings(plan: Plan, files: Mapping[str, InlineFile]) -> list[Finding]:
    """Return a finding for each name that only Docker's resolver would have known.

    It is a warning where a sibling is seen to use the name.
    """
    members = [(member, unit) for unit in plan.units for member in unit.members]
    aliases = {alias for member, _ in members for alias in member.aliases}
    # Each text is read once, however many names there are and however many services are told it.
    in_files = {key: _words([file.content], aliases) for key, file in files.items()} if aliases else {}
    users: dict[str, set[str]] = {}
    for member, _ in members if aliases else ():
        said = _words(_texts(member), aliases).union(*(in_files[mount.file] for mount in member.files))
        for alias in said:
            users.setdefault(alias, set()).add(member.name)
    return [
        remark(
            JobFinding.ALIAS_NOT_RESOLVABLE,
            path=f"services.{member.name}",
            message=f"siblings reach {member.name} as {unit.component}, not as {alias}",
            severity=None if users.get(alias, set()) - {member.name} else Severity.INFO,
        )
        for member, unit in members
        for alias in dict.fromkeys(member.aliases)
        if alias != unit.component
    ]


def _texts(service: Service) -> list[str]:
    """Return what a service's container is told besides its files, in which a sibling's name may be."""
    container = service.container
    variables = [str(item.get("value", "")) for item in container.get("env") or []]
    return [*variables, *(container.get("command") or []), *(container.get("args") or [])]


def _words(texts: Iterable[str], wanted: Collection[str]) -> set[str]:
    """Return which of some host names are words of the texts."""
    return {word for text in texts for word in _HOST.findall(text) if word in wanted}

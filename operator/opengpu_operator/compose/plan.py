"""Everything about a file's services that doesn't come from kompose, decided once, with all findings.

Plain functions of the project; ``sanitise`` makes kompose's input of the result, ``overlay`` lays it over kompose's
output.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from opengpu_operator.api.findings import Severity
from opengpu_operator.api.labels import AGENT_CONTAINER, WORKER_PORT
from opengpu_operator.api.translation import (
    Dependency,
    GpuRequest,
    InlineFile,
    Port,
    Restart,
    TranslateOptions,
    Until,
    Volume,
)
from opengpu_operator.compose import containers, gpu, names, policy, storage, values
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip
from opengpu_operator.compose.names import HostNames
from opengpu_operator.compose.project import Definition, Project

#: Names and addresses by which containers reach the Docker host.
_HOST_NAMES: Final = (
    *(
        "host.docker.internal",
        "gateway.docker.internal",
        "host.containers.internal",
        "docker.for.mac.localhost",
    ),
    *("docker.for.mac.host.internal", "docker.for.win.localhost", "172.17.0.1"),
)
_GATEWAY: Final = "host-gateway"
_LOOPBACK: Final = ("127.", "::1", "localhost")


@dataclass
class ServicePlan:
    """One service."""

    definition: Definition
    dns_name: str
    aliases: list[str]
    environment: dict[str, str]
    """Rewritten, not escaped."""
    command: list[str]
    args: list[str]
    probe: dict[str, Any] | None
    ports: list[Port]
    gpu: GpuRequest | None
    storage: storage.ServiceStorage
    resources: dict[str, dict[str, str]]
    security: dict[str, Any]
    pod: dict[str, Any]
    depends_on: list[Dependency]
    restart: Restart
    max_retries: int | None
    replicas: int
    joins: str | None

    @property
    def image(self) -> str:
        """The image."""
        return str(self.definition.get("image"))


@dataclass
class Plan:
    """A whole file."""

    services: list[ServicePlan] = field(default_factory=list)
    volumes: dict[str, Volume] = field(default_factory=dict)
    files: dict[str, InlineFile] = field(default_factory=dict)
    worker: str | None = None


def make(project: Project, options: TranslateOptions, report: Report) -> Plan:
    """Return the plan of a project; what is changed or can't be done goes to ``report``."""
    return _Planner(project, options, report).make()


class _Planner:
    def __init__(self, project: Project, options: TranslateOptions, report: Report) -> None:
        self._project = project
        self._services = project.services
        self._options = options
        self._report = report
        self._labels = names.unique_labels(project.services, reserved=[AGENT_CONTAINER])
        self._roots = {name: self._root(name) for name in project.services}

    def make(self) -> Plan:
        for name, profiles in self._project.inactive.items():
            self._report.add(
                FindingReason.PROFILE_INACTIVE,
                ("services", name),
                f"{clip(name)} belongs to {clip(', '.join(profiles))}, so it isn't run.",
            )
        if not self._services and self._project.raw.get("include") is None:
            self._report.add(FindingReason.NO_SERVICES, ("services",))
        renamed: dict[str, str] = {}
        aliases = self._aliases(renamed)
        hosts = HostNames(
            renamed=renamed,
            host_names=[*_HOST_NAMES, *self._gateways()],
            published=self._published(),
        )
        stored = storage.plan(self._project, self._options, self._report)
        plan = Plan(volumes=stored.volumes)
        for service in self._services.values():
            plan.services.append(
                self._service(service, hosts, aliases[service.name], stored.services[service.name])
            )
        plan.files = {
            key: InlineFile(content=self._rewrite(hosts, file.content, (), where=key), secret=file.secret)
            for key, file in stored.files.items()
        }
        plan.worker = self._worker()
        self._unroute(plan)
        self._check_waiting(plan)
        return plan

    def _root(self, name: str) -> str:
        """Return the service in whose pod a service runs."""
        seen = {name}
        current = name
        while (joins := self._services[current].joins) in self._services and joins not in seen:
            assert joins is not None  # noqa: S101 - it is a key
            seen.add(joins)
            current = joins
        return current

    def _aliases(self, renamed: dict[str, str]) -> dict[str, list[str]]:
        """Return the other names of each service that DNS allows; all go to ``renamed``, to be rewritten.

        DNS knows a pod by one name.
        """
        result: dict[str, list[str]] = {name: [] for name in self._services}
        for name, label in self._labels.items():
            if name == label:
                continue
            is_case = name.lower() == label
            if not is_case:
                renamed[name] = label
            self._report.add(
                FindingReason.NAME_CHANGED,
                ("services", name),
                f"DNS doesn't allow the name {clip(name)}; the service is reached as {label}.",
                severity=Severity.INFO if is_case else None,
            )
        taken = set(self._labels.values()) | {name.lower() for name in self._labels}
        for owner, alias, path in self._alias_wishes():
            lowered = alias.lower()
            if lowered in taken or owner not in self._services or alias in renamed:
                continue
            taken.add(lowered)
            renamed[alias] = self._labels[self._roots[owner]]
            if names.is_label(lowered):
                result[owner].append(lowered)
            else:
                self._report.add(
                    FindingReason.ALIAS_NOT_POSSIBLE,
                    path,
                    f"DNS doesn't allow the alias {clip(alias)}; the service is reached as {renamed[alias]}.",
                )
        return result

    def _alias_wishes(self) -> Iterator[tuple[str, str, Path]]:
        for service in self._services.values():
            container = values.text(service.get("container_name"))
            if container:
                yield service.name, container, service.at("container_name")
            networks = service.get("networks")
            for network, entry in networks.items() if isinstance(networks, dict) else ():
                for alias in values.strings((entry or {}).get("aliases")):
                    yield service.name, alias, service.at("networks", network, "aliases")
            for target, entries in service.links.items():
                for alias in entries:
                    yield target, alias, service.at("links")

    def _gateways(self) -> list[str]:
        return [
            host
            for service in self._services.values()
            for host, target in _hosts(service)
            if target == _GATEWAY
        ]

    def _published(self) -> dict[int, tuple[str, int]]:
        result: dict[int, tuple[str, int]] = {}
        for service in self._services.values():
            label = self._labels[self._roots[service.name]]
            for port in service.ports:
                if port.published is not None:
                    result.setdefault(port.published, (label, port.target))
        return result

    def _worker(self) -> str | None:
        workers = [
            service
            for service in self._services.values()
            if any(port.target == WORKER_PORT and port.protocol == "tcp" for port in service.ports)
        ]
        for other in workers[1:]:
            self._report.add(
                FindingReason.SEVERAL_WORKERS,
                other.at("ports"),
                f"{clip(workers[0].name)} is the worker already.",
            )
        return workers[0].name if workers else None

    def _service(
        self, service: Definition, hosts: HostNames, aliases: list[str], stored: storage.ServiceStorage
    ) -> ServicePlan:
        report, options = self._report, self._options
        places = containers.variable_places(service)
        environment = {
            name: self._rewrite(hosts, value, places[name], variable=name)
            for name, value in containers.environment(service, options, report).items()
        }
        command, args = containers.command(service, report)
        probe = containers.readiness(service, report)
        if probe is not None:
            words = probe["exec"]["command"]
            place = service.at("healthcheck", "test")
            probe["exec"]["command"] = [self._rewrite(hosts, word, place) for word in words]
        containers.report_security_options(service, report)
        restart, retries = containers.restart(service, report)
        security: dict[str, Any] = containers.user(service, options, report)
        if added := containers.capabilities(service, options, report):
            security["capabilities"] = added
        if service.flag("read_only"):
            security["readOnlyRootFilesystem"] = True
        ipc = service.get("ipc")
        if ipc not in (None, "", "host", "private", "shareable", "none"):
            report.add(FindingReason.KEY_IGNORED, service.at("ipc"), severity=Severity.WARNING)
        for key in ("pid", "uts", "userns_mode", "cgroup"):
            # What the policy refuses would have an effect.
            if service.get(key) and policy.foreign_namespace(service.get(key)) is None:
                report.add(FindingReason.KEY_IGNORED, service.at(key))
        mode = service.get("network_mode")
        if mode and service.joins is None and policy.foreign_namespace(mode) is None:
            report.add(
                FindingReason.KEY_IGNORED,
                service.at("network_mode"),
                severity=Severity.WARNING if mode == "none" else None,
            )
        return ServicePlan(
            definition=service,
            dns_name=self._labels[service.name],
            aliases=aliases,
            environment=environment,
            command=[self._rewrite(hosts, word, service.at("entrypoint")) for word in command],
            args=[self._rewrite(hosts, word, service.at("command")) for word in args],
            probe=probe,
            ports=self._ports(service),
            gpu=gpu.request(service, options.environment, report),
            storage=stored,
            resources=containers.resources(service, report),
            security=security,
            pod=self._pod(service),
            depends_on=self._depends_on(service),
            restart=restart,
            max_retries=retries,
            replicas=containers.replicas(service, report),
            joins=None if self._roots[service.name] == service.name else self._roots[service.name],
        )

    def _rewrite(
        self, hosts: HostNames, value: str, path: Path, *, variable: str = "", where: str = ""
    ) -> str:
        rewritten = hosts.rewrite(value, variable=variable)
        what = variable or where or (str(path[-1]) if path else "")
        for found in rewritten.resolved:
            self._report.add(
                FindingReason.HOST_REFERENCE_REWRITTEN,
                path,
                f"{clip(what)}: {clip(found)} becomes a service's address.",
            )
        for found in rewritten.unresolved:
            if not found.startswith("172.17.0.1"):
                self._report.add(
                    FindingReason.HOST_REFERENCE_UNRESOLVED,
                    path,
                    f"{clip(what)}: no service publishes {clip(found)}.",
                )
        for found in rewritten.doubtful:
            self._report.add(
                FindingReason.NAME_NOT_REWRITTEN,
                path,
                f"{clip(what)}: {clip(found)} may mean a service that was renamed.",
            )
        return rewritten.value

    def _ports(self, service: Definition) -> list[Port]:
        result: dict[tuple[int, str, int | None], Port] = {}
        numbers: set[tuple[int, str]] = set()
        for port in service.ports:
            protocol = "UDP" if port.protocol == "udp" else "TCP"
            loopback = port.host.startswith(_LOOPBACK)
            if loopback:
                self._report.add(
                    FindingReason.LOOPBACK_PORT,
                    service.at("ports"),
                    f"Port {port.target} is published on loopback only.",
                )
            numbers.add((port.target, protocol))
            result.setdefault(
                (port.target, protocol, port.published),
                Port.model_validate(
                    {
                        "container": port.target,
                        "protocol": protocol,
                        "published": port.published,
                        "exposed_only": loopback,
                    }
                ),
            )
        for port in service.exposed:
            protocol = "UDP" if port.protocol == "udp" else "TCP"
            if (port.target, protocol) not in numbers:
                numbers.add((port.target, protocol))
                result[port.target, protocol, None] = Port.model_validate(
                    {"container": port.target, "protocol": protocol, "exposed_only": True}
                )
        return list(result.values())

    def _pod(self, service: Definition) -> dict[str, Any]:
        pod: dict[str, Any] = {}
        security: dict[str, Any] = {}
        if groups := containers.groups(service, self._report):
            security["supplementalGroups"] = groups
        if settings := containers.sysctls(service, self._report):
            security["sysctls"] = settings
        if security:
            pod["securityContext"] = security
        grace = service.get("stop_grace_period")
        if grace is not None:
            # With 0, Kubernetes would forget the pod before it has stopped.
            pod["terminationGracePeriodSeconds"] = max(1, math.ceil(values.duration(grace)))
        if aliases := self._host_aliases(service):
            pod["hostAliases"] = aliases
        if selector := containers.node_selector(service, self._report):
            pod["nodeSelector"] = selector
        return pod

    def _host_aliases(self, service: Definition) -> list[dict[str, Any]]:
        result: dict[str, list[str]] = {}
        for host, target in _hosts(service):
            if target == _GATEWAY:
                continue
            try:
                address = str(ipaddress.ip_address(target.strip("[]")))
            except ValueError:
                address = ""
            if address and all(names.is_label(part.lower()) for part in host.split(".")):
                result.setdefault(address, []).append(host.lower())
            else:
                self._report.add(
                    FindingReason.BAD_VALUE,
                    service.at("extra_hosts"),
                    f"{clip(host)}: {clip(target)} is no address of a host.",
                    severity=Severity.WARNING,
                )
        return [{"ip": address, "hostnames": hosts} for address, hosts in result.items()]

    def _depends_on(self, service: Definition) -> list[Dependency]:
        result: dict[str, Dependency] = {}
        for dependency in service.depends_on:
            other = self._services.get(dependency.service)
            if other is None:
                if dependency.service in self._project.inactive and dependency.required:
                    self._report.add(
                        FindingReason.DEPENDENCY_INACTIVE,
                        dependency.path,
                        f"{clip(dependency.service)} is not active, so it isn't waited for.",
                    )
                continue
            until = Until(dependency.condition)
            if until is Until.HEALTHY and not _has_check(other):
                self._report.add(
                    FindingReason.HEALTHY_WITHOUT_CHECK,
                    dependency.path,
                    f"{clip(other.name)} has no healthcheck; it counts as healthy once it started.",
                )
            if self._roots[other.name] != self._roots[service.name]:
                result[other.name] = Dependency(service=other.name, until=until, required=dependency.required)
        others = [
            *service.links,
            *(name.partition(":")[0] for name in values.strings(service.get("volumes_from"))),
        ]
        for name in others:
            if name in self._services and self._roots[name] != self._roots[service.name]:
                result.setdefault(name, Dependency(service=name))
        return list(result.values())

    def _unroute(self, plan: Plan) -> None:
        """Take from the routed ports those whose URL would be that of another, so that a file has no clash.

        A URL is named by the container port or, where services share that, by the published one.
        """
        while True:
            routed: dict[tuple[str, int], tuple[ServicePlan, int]] = {}
            for service in plan.services:
                for index, port in enumerate(service.ports):
                    if port.protocol == "TCP" and not port.exposed_only and port.container != WORKER_PORT:
                        routed.setdefault(
                            (self._roots[service.definition.name], port.container), (service, index)
                        )
            sharing = Counter(number for _, number in routed)
            taken: set[int] = set()
            clashing = []
            for service, index in routed.values():
                port = service.ports[index]
                public = port.container if sharing[port.container] == 1 else port.published
                if public is None or public == WORKER_PORT or public in taken:
                    clashing.append((service, index))
                else:
                    taken.add(public)
            if not clashing:
                return
            for service, index in clashing:
                port = service.ports[index]
                service.ports[index] = port.model_copy(update={"exposed_only": True})
                self._report.add(
                    FindingReason.PORT_UNROUTED,
                    service.definition.at("ports"),
                    f"Other services have port {port.container} too, so it gets no URL by default.",
                )

    def _check_waiting(self, plan: Plan) -> None:
        """Report pods that wait for each other because of services that share one."""
        edges: dict[str, set[str]] = {}
        for service in plan.services:
            waits = {
                self._roots[entry.service] for entry in service.depends_on if entry.until is not Until.STARTED
            }
            edges.setdefault(self._roots[service.definition.name], set()).update(waits)
        while settled := [name for name, waits in edges.items() if not waits & edges.keys()]:
            for name in settled:
                del edges[name]
        for name in sorted(edges):
            if self._roots[name] == name and any(entry.joins == name for entry in plan.services):
                self._report.add(
                    FindingReason.DEPENDENCY_CYCLE,
                    ("services", name),
                    f"The pod of {clip(name)} waits for itself.",
                )


def _hosts(service: Definition) -> list[tuple[str, str]]:
    written = service.get("extra_hosts")
    if isinstance(written, dict):
        return [(host, target) for host, targets in written.items() for target in values.strings(targets)]
    result = []
    for entry in values.strings(written):
        separator = "=" if "=" in entry else ":"
        host, _, target = entry.partition(separator)
        result.append((host.strip(), target.strip()))
    return [(host, target) for host, target in result if host]


def _has_check(service: Definition) -> bool:
    check = service.get("healthcheck")
    if not isinstance(check, dict) or (check.get("disable") is not None and values.boolean(check["disable"])):
        return False
    test = check.get("test")
    return test not in (None, "", [], ["NONE"], "NONE")

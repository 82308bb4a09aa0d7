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
from opengpu_operator.compose import containers, gpu, names, networks, policy, storage, values
from opengpu_operator.compose.findings import LOST_ADVICE, FindingReason, Path, Report, clip
from opengpu_operator.compose.names import HostNames
from opengpu_operator.compose.project import Definition, PortEntry, Project, extra_hosts

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
#: Of all services; each pod has an entry in DNS for each.
_MAX_ALIASES: Final = 512
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
    update_parallelism: int
    joins: str | None
    attachment: networks.Attachment | None

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
        # Only NVIDIA's runtime is ever Docker's default, and only then the services are read a first time.
        self._hinted = options.environment == "nvidia" and not gpu.is_said(
            project.services.values(), options.environment
        )

    def make(self) -> Plan:
        for name, profiles in self._project.inactive.items():
            self._report.add(
                FindingReason.PROFILE_INACTIVE,
                ("services", name, "profiles"),
                f"{clip(name)} belongs to {clip(', '.join(profiles))}, so it isn't run.",
            )
        if not self._services and not self._project.raw.get("include"):
            self._report.add(FindingReason.NO_SERVICES, ("services",))
        renamed: dict[str, str] = {}
        aliases = self._aliases(renamed)
        gateways = dict(self._gateways())
        hosts = HostNames(renamed=renamed, host_names=[*_HOST_NAMES, *gateways], published=self._published())
        attached = networks.attachments(self._project, self._roots, self._report) or {}
        stored = storage.plan(self._project, self._options, self._report)
        plan = Plan(volumes=stored.volumes)
        for service in self._services.values():
            name = service.name
            plan.services.append(
                self._service(service, hosts, aliases[name], stored.services[name], attached.get(name))
            )
        plan.files = {
            key: InlineFile(
                content=self._rewrite(hosts, file.content, stored.places[key]), secret=file.secret
            )
            for key, file in stored.files.items()
        }
        for host, place in gateways.items():
            if host.lower() not in hosts.found:
                self._report.add(
                    FindingReason.KEY_IGNORED,
                    place,
                    f"{clip(host)} is the host, which a job can't reach; the file says no more of it.",
                )
        plan.worker = self._worker()
        self._check_restarts(plan)
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
        """Return the other names of each service; those that DNS forbids go to ``renamed``, to be rewritten."""
        result: dict[str, dict[str, None]] = {name: {} for name in self._services}
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
        for owner, alias, path in self._alias_wishes():
            lowered = alias.lower()
            if owner not in self._services or lowered == self._labels[self._roots[owner]]:
                continue
            if names.is_label(lowered):
                result[owner][lowered] = None
                continue
            target = self._labels[self._roots[owner]]
            if alias not in renamed:
                renamed[alias] = target
                message = f"DNS doesn't allow the alias {clip(alias)}; the service is reached as {target}."
            elif renamed[alias] != target:
                message = f"DNS doesn't allow the alias {clip(alias)}, which is {renamed[alias]} already."
            else:
                continue
            self._report.add(FindingReason.ALIAS_NOT_POSSIBLE, path, message)
        self._host_names(result)
        if sum(map(len, result.values())) > _MAX_ALIASES:
            self._report.add(
                FindingReason.TOO_MANY,
                ("services",),
                f"The services of a file have at most {_MAX_ALIASES} aliases.",
            )
        return {name: list(aliases) for name, aliases in result.items()}

    def _host_names(self, aliases: dict[str, dict[str, None]]) -> None:
        """Add each service's own host name, which its containers look up, unless others are called by it."""
        taken = {alias: self._roots[name] for name, given in aliases.items() for alias in given}
        taken |= {self._labels[root]: root for root in self._roots.values()}
        for service in self._services.values():
            written = values.text(service.get("hostname"))
            hostname, root = written.lower(), self._roots[service.name]
            label = self._labels[root]
            if hostname in ("", label):
                continue
            path = service.at("hostname")
            if not names.is_label(hostname):
                message = f"DNS doesn't allow the host name {clip(written)}; the pod's is {label}."
                self._report.add(FindingReason.ALIAS_NOT_POSSIBLE, path, message)
            elif taken.get(hostname, root) != root:
                message = f"Another service is called {hostname}; the pod's host name is {label}."
                self._report.add(FindingReason.ALIAS_NOT_POSSIBLE, path, message)
            else:
                aliases[service.name][hostname] = None
                taken[hostname] = root
                message = f"The pod's host name is {label}; {hostname} is another name that it is reached by."
                self._report.add(FindingReason.KEY_IGNORED, path, message)

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

    def _gateways(self) -> Iterator[tuple[str, Path]]:
        """Return the names by which services call the host, and where they are written."""
        for service in self._services.values():
            for host, target in extra_hosts(service.get("extra_hosts")):
                if target == _GATEWAY:
                    yield host, service.at("extra_hosts")

    def _published(self) -> dict[int, tuple[str, int]]:
        result: dict[int, tuple[str, int]] = {}
        for service in self._services.values():
            label = self._labels[self._roots[service.name]]
            for entry in service.ports:
                if entry.port.published is not None:
                    result.setdefault(entry.port.published, (label, entry.port.target))
        return result

    def _worker(self) -> str | None:
        workers = [
            service
            for service in self._services.values()
            if any(
                entry.port.target == WORKER_PORT and entry.port.protocol == "tcp" for entry in service.ports
            )
        ]
        for other in workers[1:]:
            self._report.add(
                FindingReason.SEVERAL_WORKERS,
                other.at("ports"),
                f"{clip(workers[0].name)} is the worker already.",
            )
        return workers[0].name if workers else None

    def _service(
        self,
        service: Definition,
        hosts: HostNames,
        aliases: list[str],
        stored: storage.ServiceStorage,
        attachment: networks.Attachment | None,
    ) -> ServicePlan:
        report, options = self._report, self._options
        asked = gpu.read(service, options.environment, report, hinted=self._hinted)
        written = containers.environment(service, options, report, taken=asked.variable)
        places = containers.variable_places(service)
        environment = {
            name: self._rewrite(hosts, value, places[name], variable=name) for name, value in written.items()
        }
        command, args = containers.command(service, report)
        probe = containers.readiness(service, report)
        if probe is not None:
            place = service.at("healthcheck", "test")
            probe["exec"]["command"] = self._rewrite_words(hosts, probe["exec"]["command"], place)
        containers.report_security_options(service, report)
        restart, retries = containers.restart(service, report)
        security: dict[str, Any] = containers.user(service, options, report)
        if added := containers.capabilities(service, options, report):
            security["capabilities"] = added
        if service.flag("read_only"):
            security["readOnlyRootFilesystem"] = True
        ipc = service.get("ipc")
        if ipc not in (None, "", "host") and policy.foreign_namespace(ipc) is None:
            common = ipc in ("private", "shareable", "none")
            report.add(
                FindingReason.KEY_IGNORED,
                service.at("ipc"),
                severity=None if common else Severity.WARNING,
                advice="" if common else LOST_ADVICE,
            )
        for key in ("pid", "uts", "userns_mode", "cgroup"):
            # What the policy refuses would have an effect.
            if service.get(key) and policy.foreign_namespace(service.get(key)) is None:
                report.add(FindingReason.KEY_IGNORED, service.at(key))
        mode = service.get("network_mode")
        if mode and mode != "none" and service.joins is None and policy.foreign_namespace(mode) is None:
            report.add(FindingReason.KEY_IGNORED, service.at("network_mode"))
        return ServicePlan(
            definition=service,
            dns_name=self._labels[service.name],
            aliases=aliases,
            environment=environment,
            command=self._rewrite_words(hosts, command, service.at("entrypoint")),
            args=self._rewrite_words(hosts, args, service.at("command")),
            probe=probe,
            ports=self._ports(service),
            gpu=asked.request,
            storage=stored,
            resources=containers.resources(service, report),
            security=security,
            pod=self._pod(service, asked.request),
            depends_on=self._depends_on(service),
            restart=restart,
            max_retries=retries,
            replicas=containers.replicas(service, report),
            update_parallelism=containers.update_parallelism(service, report),
            joins=None if self._roots[service.name] == service.name else self._roots[service.name],
            attachment=attachment,
        )

    def _rewrite_words(self, hosts: HostNames, words: list[str], path: Path) -> list[str]:
        pairs = zip(["", *words], words, strict=False)
        return [self._rewrite(hosts, word, path, before=before) for before, word in pairs]

    def _rewrite(
        self, hosts: HostNames, value: str, path: Path, *, variable: str = "", before: str = ""
    ) -> str:
        rewritten = hosts.rewrite(value, variable=variable, before=before)
        what = variable or path[-1]
        for found in dict.fromkeys(rewritten.resolved):
            self._report.add(
                FindingReason.HOST_REFERENCE_REWRITTEN,
                path,
                f"{clip(what)}: {clip(found)} becomes a service's address.",
            )
        for found in dict.fromkeys(rewritten.unresolved):
            if not found.startswith("172.17.0.1"):
                self._report.add(
                    FindingReason.HOST_REFERENCE_UNRESOLVED,
                    path,
                    f"{clip(what)}: no service publishes {clip(found)}.",
                )
        for found in dict.fromkeys(rewritten.doubtful):
            self._report.add(
                FindingReason.NAME_NOT_REWRITTEN,
                path,
                f"{clip(what)}: {clip(found)} may mean a service that was renamed.",
            )
        return rewritten.value

    def _ports(self, service: Definition) -> list[Port]:
        result: dict[tuple[int, str, int | None], Port] = {}
        numbers: set[tuple[int, str]] = set()
        for entry in filter(self._is_declared, service.ports):
            port = entry.port
            loopback = port.host.startswith(_LOOPBACK)
            if loopback:
                self._report.add(
                    FindingReason.LOOPBACK_PORT,
                    entry.path,
                    f"Port {port.target} is published on loopback only.",
                )
            numbers.add((port.target, port.protocol))
            result.setdefault(
                (port.target, port.protocol, port.published),
                _port(port.target, port.protocol, published=port.published, exposed_only=loopback),
            )
        for entry in filter(self._is_declared, service.exposed):
            number = (entry.port.target, entry.port.protocol)
            if number not in numbers:
                numbers.add(number)
                result[*number, None] = _port(*number, exposed_only=True)
        return list(result.values())

    def _is_declared(self, entry: PortEntry) -> bool:
        """Whether a pod declares a port; the others are reported."""
        port = entry.port
        if port.length == 1 and port.protocol != "sctp":
            return True
        what = f"{port.length} ports from {port.target} on" if port.length > 1 else f"port {port.target}"
        self._report.add(
            FindingReason.PORT_UNDECLARED, entry.path, f"The service has {what} ({port.protocol})."
        )
        return False

    def _pod(self, service: Definition, asked: GpuRequest | None) -> dict[str, Any]:
        pod: dict[str, Any] = {}
        security: dict[str, Any] = {}
        if groups := containers.groups(service, asked, self._report):
            security["supplementalGroups"] = groups
        if settings := containers.sysctls(service, self._report):
            security["sysctls"] = settings
        if security:
            pod["securityContext"] = security
        grace = service.get("stop_grace_period")
        if grace is not None:
            # Rounded up: with 0, Kubernetes would forget the pod before it has stopped.
            pod["terminationGracePeriodSeconds"] = max(1, math.ceil(values.duration(grace)))
        if aliases := self._host_aliases(service):
            pod["hostAliases"] = aliases
        if selector := containers.node_selector(service, self._options, self._report):
            pod["nodeSelector"] = selector
        return pod

    def _host_aliases(self, service: Definition) -> list[dict[str, Any]]:
        result: dict[str, list[str]] = {}
        for host, target in extra_hosts(service.get("extra_hosts")):
            if target == _GATEWAY:
                continue
            try:
                address = "" if "%" in target else str(ipaddress.ip_address(target.strip("[]")))
            except ValueError:
                address = ""
            if address and names.is_domain(host.lower()):
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
                    self._inactive(dependency.service, dependency.path)
                continue
            until = Until(dependency.condition)
            if until is Until.HEALTHY and not _has_check(other):
                self._report.add(
                    FindingReason.HEALTHY_WITHOUT_CHECK,
                    dependency.path,
                    f"{clip(other.name)} has no healthcheck; it counts as healthy once it started.",
                )
            if self._roots[other.name] == self._roots[service.name]:
                if until is not Until.STARTED:
                    self._report.add(
                        FindingReason.DEPENDENCY_IN_SAME_POD,
                        dependency.path,
                        f"{clip(other.name)} is in the same pod, so it isn't waited for.",
                    )
            else:
                result[other.name] = Dependency(service=other.name, until=until, required=dependency.required)
        for key, targets in (("links", service.links), ("volumes_from", service.takes_volumes_from)):
            for name in targets:
                if name in self._project.inactive:
                    self._inactive(name, service.at(key))
                elif name in self._services and self._roots[name] != self._roots[service.name]:
                    result.setdefault(name, Dependency(service=name))
        return list(result.values())

    def _inactive(self, name: str, path: Path) -> None:
        message = f"{clip(name)} is not active, so it isn't waited for."
        self._report.add(FindingReason.DEPENDENCY_INACTIVE, path, message)

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
                    _written_at(service.definition, port),
                    f"Other services have port {port.container} too, so it gets no URL by default.",
                )

    def _check_restarts(self, plan: Plan) -> None:
        """Report services in the pod of another that is restarted otherwise."""
        said = {service.definition.name: (service.restart, service.max_retries) for service in plan.services}
        for service in plan.services:
            mine = said[service.definition.name]
            if service.joins is not None and mine[0] is not Restart.UNSET and mine != said[service.joins]:
                self._report.add(
                    FindingReason.KEY_IGNORED,
                    service.definition.at("restart"),
                    f"restart is ignored: the service is in the pod of {clip(service.joins)}, whose restart counts.",
                    severity=Severity.WARNING,
                    advice=f"Give {clip(service.joins)} the restart that both need.",
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


def _port(container: int, protocol: str, *, published: int | None = None, exposed_only: bool = False) -> Port:
    return Port.model_validate(
        {
            "container": container,
            "protocol": protocol.upper(),
            "published": published,
            "exposed_only": exposed_only,
        }
    )


def _written_at(service: Definition, port: Port) -> Path:
    """Return where a port that a service publishes is written."""
    wanted = (port.container, port.published)
    return next(
        (entry.path for entry in service.ports if (entry.port.target, entry.port.published) == wanted),
        service.at("ports"),
    )


def _has_check(service: Definition) -> bool:
    check = service.get("healthcheck")
    if not isinstance(check, dict) or (check.get("disable") is not None and values.boolean(check["disable"])):
        return False
    test = check.get("test")
    return test not in (None, "", [], ["NONE"], "NONE")

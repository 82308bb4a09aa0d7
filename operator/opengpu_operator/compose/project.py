"""A checked file in one form: ``extends`` merged, lists and mappings unified, ports and mounts parsed.

From here on nobody has to know in which of its spellings a key was written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opengpu_operator.compose import values
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip
from opengpu_operator.compose.load import MAX_NODES, MAX_TEXT

ALL_PROFILES: Final = "*"
#: How long the place of a service is.
_SERVICE: Final = 2
#: Below a service: what ``extends`` replaces as a whole; other lists are joined, and mappings merged.
_REPLACED: Final = frozenset({("command",), ("entrypoint",), ("healthcheck", "test")})
_VARIABLES: Final = frozenset(
    {("environment",), ("labels",), ("annotations",), ("sysctls",), ("deploy", "labels")}
)
#: What a service waits for, and what it waits for where nothing is said.
_STARTED: Final = {"condition": "service_started", "required": True}
#: So much text counts as one node.
_CHARACTERS: Final = MAX_TEXT // MAX_NODES


@dataclass(frozen=True)
class MountEntry:
    """A mount and where it is written."""

    mount: values.Mounted
    path: Path


@dataclass(frozen=True)
class PortEntry:
    """A port and where it is written."""

    port: values.PublishedPort
    path: Path


@dataclass(frozen=True)
class Dependency:
    """One entry of ``depends_on``."""

    service: str
    condition: str
    required: bool
    path: Path


@dataclass
class Definition:
    """One service."""

    name: str
    raw: dict[str, Any]
    environment: dict[str, str | None] = field(default_factory=dict)
    ports: list[PortEntry] = field(default_factory=list)
    exposed: list[PortEntry] = field(default_factory=list)
    mounts: list[MountEntry] = field(default_factory=list)
    depends_on: list[Dependency] = field(default_factory=list)
    links: dict[str, list[str]] = field(default_factory=dict)
    """Other names, by service."""
    joins: str | None = None

    @property
    def takes_volumes_from(self) -> list[str]:
        """The services whose mounts it has too."""
        return [written.partition(":")[0] for written in values.strings(self.raw.get("volumes_from"))]

    @property
    def path(self) -> Path:
        """Where the service is written."""
        return ("services", self.name)

    def at(self, *parts: str | int) -> Path:
        """Return the place of something in the service."""
        return (*self.path, *parts)

    def get(self, *keys: str) -> Any:
        """Return a value inside of the service, or None."""
        value: Any = self.raw
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def flag(self, key: str) -> bool:
        """Return a boolean key."""
        value = self.raw.get(key)
        return value is not None and values.boolean(value)


@dataclass(frozen=True)
class Project:
    """A whole file."""

    raw: dict[str, Any]
    services: dict[str, Definition]
    """The active ones, in the file's order."""
    inactive: dict[str, list[str]]
    """The profiles of the others."""

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a top-level section."""
        section = self.raw.get(name)
        return section if isinstance(section, dict) else {}


def build(
    data: dict[str, Any], *, profiles: Collection[str], report: Report, replaced: Collection[Path] = ()
) -> Project:
    """Return a checked file as a project; what doesn't fit together goes to ``report``.

    ``replaced`` are the places where what a service extends doesn't count.
    """
    merged = _Extends(data.get("services") or {}, replaced, report).all()
    services: dict[str, Definition] = {}
    inactive: dict[str, list[str]] = {}
    for name, raw in merged.items():
        wanted = values.strings(raw.get("profiles"))
        if (
            not wanted
            or "" in wanted
            or ALL_PROFILES in profiles
            or any(entry in profiles for entry in wanted)
        ):
            services[name] = _definition(name, raw)
        else:
            inactive[name] = wanted
    project = Project(data, services, inactive)
    if not data.get("include"):
        # What a file lacks may be in those it includes; that it needs them is refused by itself.
        _check_references(project, report)
    _check_cycles(project, report)
    return project


def _definition(name: str, raw: dict[str, Any]) -> Definition:
    service = Definition(name, raw)
    service.environment = values.variables(raw.get("environment"))
    service.ports = _ports(service, "ports", values.ports)
    service.exposed = _ports(service, "expose", values.exposed)
    service.mounts = [
        MountEntry(values.mount(entry), service.at("volumes", index))
        for index, entry in enumerate(raw.get("volumes") or [])
    ]
    _depends_on(service)
    for link in values.strings(raw.get("links")):
        target, _, alias = link.partition(":")
        service.links.setdefault(target, []).extend([alias] if alias and alias != target else [])
    mode = raw.get("network_mode") or ""
    if mode.startswith("service:"):
        service.joins = mode.removeprefix("service:")
    return service


def _ports(
    service: Definition, key: str, parse: Callable[[Any], list[values.PublishedPort]]
) -> list[PortEntry]:
    return [
        PortEntry(port, service.at(key, index))
        for index, entry in enumerate(service.get(key) or [])
        for port in parse(entry)
    ]


def _depends_on(service: Definition) -> None:
    written = service.raw.get("depends_on")
    for index, (name, entry) in enumerate(_waits(written).items()):
        place = name if isinstance(written, dict) else index
        service.depends_on.append(
            Dependency(
                name,
                entry["condition"],
                required=values.boolean(entry["required"]),
                path=service.at("depends_on", place),
            )
        )


def _waits(written: Any) -> dict[str, dict[str, Any]]:
    named = _named(written or ())
    return {
        name: _STARTED | {key: value for key, value in (entry or {}).items() if value is not None}
        for name, entry in named.items()
    }


def _check_references(project: Project, report: Report) -> None:
    known = project.services.keys() | project.inactive.keys()
    sections = {kind: project.section(kind).keys() for kind in ("networks", "configs", "secrets", "volumes")}
    for service in project.services.values():
        for dependency in service.depends_on:
            if dependency.service not in known:
                _undefined(report, dependency.path, "service", dependency.service)
        for target in service.links:
            if target not in known:
                _undefined(report, service.at("links"), "service", target)
        for index, target in enumerate(service.takes_volumes_from):
            # "container" is outside of the file, which the policy refuses.
            if target not in known and target != "container":
                _undefined(report, service.at("volumes_from", index), "service", target)
        if service.joins is not None and service.joins not in project.services:
            _undefined(report, service.at("network_mode"), "active service", service.joins)
        for key in ("ipc", "pid"):
            kind, _, target = (service.get(key) or "").partition(":")
            if kind == "service" and target not in known:
                _undefined(report, service.at(key), "service", target)
        for network in service.get("networks") or []:
            if network not in sections["networks"] and network != "default":
                _undefined(report, service.at("networks"), "network", network)
        for kind in ("configs", "secrets"):
            for index, entry in enumerate(service.get(kind) or []):
                source = values.text(entry["source"] if isinstance(entry, dict) else entry)
                if source not in sections[kind]:
                    _undefined(report, service.at(kind, index), kind.removesuffix("s"), source)
        for entry in service.mounts:
            if (
                entry.mount.kind == "volume"
                and entry.mount.source
                and entry.mount.source not in sections["volumes"]
            ):
                _undefined(report, entry.path, "volume", entry.mount.source)


def _undefined(report: Report, path: Path, kind: str, name: str) -> None:
    report.add(FindingReason.UNDEFINED_REFERENCE, path, f"The file defines no {kind} named {clip(name)}.")


def _check_cycles(project: Project, report: Report) -> None:
    edges: dict[str, list[str]] = {}
    for service in project.services.values():
        targets = [dependency.service for dependency in service.depends_on]
        targets += [*service.links, *service.takes_volumes_from, *([service.joins] if service.joins else [])]
        edges[service.name] = [target for target in targets if target in project.services]
    done: set[str] = set()
    for start, first in edges.items():
        # An explicit stack: a chain of thousands of services must not exhaust Python's.
        stack, trail = [(start, iter(first))], {start}
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                trail.discard(name)
                done.add(name)
            elif following in trail:
                report.add(
                    FindingReason.DEPENDENCY_CYCLE,
                    ("services", name),
                    f"The services {clip(name)} and {clip(following)} wait for each other.",
                )
                done.add(following)
            elif following not in done:
                trail.add(following)
                stack.append((following, iter(edges[following])))


class _Extends:
    """Merges services that extend others of the same file."""

    def __init__(self, services: dict[str, Any], replaced: Collection[Path], report: Report) -> None:
        self._services = services
        self._replaced: dict[str, list[Path]] = {}
        for place in replaced:
            if len(place) > _SERVICE and place[0] == "services":
                self._replaced.setdefault(str(place[1]), []).append(place[_SERVICE:])
        self._report = report
        self._done: dict[str, dict[str, Any]] = {}
        self._size = 0

    def all(self) -> dict[str, dict[str, Any]]:
        for name in self._services:
            self._resolve(name)
        return {name: self._done[name] for name in self._services}

    def _resolve(self, name: str) -> None:
        chain: list[str] = []
        current: str | None = name
        while current is not None and current not in self._done:
            if current in chain:
                self._report.add(
                    FindingReason.EXTENDS_CYCLE,
                    ("services", current, "extends"),
                    f"The service {clip(current)} extends itself.",
                )
                self._done[current] = self._own(current)
                break
            chain.append(current)
            current = self._base(current)
        for entry in reversed(chain):
            if entry in self._done:
                continue
            base = self._base(entry)
            own = self._own(entry)
            if base is not None and self._size <= MAX_NODES:
                # Each copy counts: extending a large service a hundred times makes it a hundred times as large.
                own = merge_service(_without(self._done[base], self._replaced.get(entry, ())), own)
                self._size += _size(own)
                if self._size > MAX_NODES:
                    self._report.add(FindingReason.TOO_MANY_NODES, ("services", entry, "extends"))
            self._done[entry] = own

    def _own(self, name: str) -> dict[str, Any]:
        return {key: value for key, value in self._services[name].items() if key != "extends"}

    def _base(self, name: str) -> str | None:
        written = self._services[name].get("extends")
        if written is None:
            return None
        if isinstance(written, dict):
            if written.get("file") is not None:
                return None
            written = written["service"]
        if written not in self._services:
            _undefined(self._report, ("services", name, "extends"), "service", values.text(written))
            return None
        return str(written)


def _without(value: dict[str, Any], places: Iterable[Path]) -> dict[str, Any]:
    """Return a mapping without what stands at some places in it, as far as they lead through mappings."""
    result = dict(value)
    for first, *rest in places:
        held = result.get(str(first))
        if not rest:
            result.pop(str(first), None)
        elif isinstance(held, dict):
            result[str(first)] = _without(held, [tuple(rest)])
    return result


def _size(value: Any) -> int:
    """Return how much a value counts: one for each node, and as much for its text as the limits of a file allow."""
    if isinstance(value, dict):
        return 1 + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    return 1 + (len(value) // _CHARACTERS if isinstance(value, str) else 0)


def merge_service(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a service that extends another, as Compose merges them."""
    return _merge_mapping(base, own, ())


def _merge_mapping(before: Mapping[str, Any], value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    result = dict(before)
    for key, item in value.items():
        result[key] = _merge(result[key], item, (*path, key)) if key in result else item
    return result


def _merge(before: Any, value: Any, path: Path) -> Any:
    if path in _REPLACED:
        return value
    if before is None or value is None:
        return before if value is None else value
    if path in _VARIABLES:
        return values.variables(before) | values.variables(value)
    if path == ("depends_on",):
        return _merge_mapping(_waits(before), value if isinstance(value, dict) else _waits(value), path)
    if path == ("networks",):
        return _merge_mapping(_named(before), _named(value), path)
    if path == ("extra_hosts",):
        before, value = _host_list(before), _host_list(value)
    if isinstance(before, dict) and isinstance(value, dict):
        return _merge_mapping(before, value, path)
    if isinstance(before, list) or isinstance(value, list):
        return _joined(before, value, path)
    return value


def _named(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else dict.fromkeys(value)


def _host_list(value: Any) -> list[str]:
    return [f"{host}={target}" for host, target in extra_hosts(value)]


def _joined(before: Any, value: Any, path: Path) -> list[Any]:
    """Return both lists as one; an entry that says anew where something is mounted takes the other's place."""
    first = before if isinstance(before, list) else [before]
    second = value if isinstance(value, list) else [value]
    target = _TARGETS.get(path)
    if target is None:
        # The same word twice says no more than once; the same request for a GPU does.
        known = {repr(entry) for entry in first}
        return first + [entry for entry in second if isinstance(entry, dict) or repr(entry) not in known]
    return list({target(entry): entry for entry in first + second}.values())


def _file_target(entry: Any) -> str:
    return (
        values.text(entry.get("target") or entry["source"]) if isinstance(entry, dict) else values.text(entry)
    )


_TARGETS: Final[Mapping[Path, Callable[[Any], str]]] = {
    ("volumes",): lambda entry: values.mount(entry).target,
    ("configs",): _file_target,
    ("secrets",): _file_target,
}


def extra_hosts(written: Any) -> list[tuple[str, str]]:
    """Return the hosts and addresses of ``extra_hosts``."""
    if isinstance(written, dict):
        return [(host, target) for host, targets in written.items() for target in values.strings(targets)]
    result = []
    for entry in values.strings(written):
        separator = "=" if "=" in entry else ":"
        host, _, target = entry.partition(separator)
        result.append((host.strip(), target.strip()))
    return [(host, target) for host, target in result if host]

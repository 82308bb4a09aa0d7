"""A checked file in one form: ``extends`` merged, lists and mappings unified, ports and mounts parsed.

From here on nobody has to know in which of its spellings a key was written.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opengpu_operator.compose import values
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip
from opengpu_operator.compose.load import MAX_NODES

ALL_PROFILES: Final = "*"
#: What ``extends`` replaces as a whole; lists of others are joined, and mappings merged.
_REPLACED: Final = frozenset({"command", "entrypoint", "test"})
#: Lists of variables and the like, of which the last with a name counts.
_VARIABLES: Final = frozenset({"environment", "labels", "annotations", "sysctls"})
#: Lists that may be written as one string.
_LISTS: Final = frozenset({"dns", "dns_search", "env_file", "label_file", "tmpfs"})
#: What a service waits for, and what it waits for where nothing is said.
_STARTED: Final = {"condition": "service_started", "required": True}


@dataclass(frozen=True)
class MountEntry:
    """A mount and where it is written."""

    mount: values.Mounted
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
    ports: list[values.PublishedPort] = field(default_factory=list)
    exposed: list[values.PublishedPort] = field(default_factory=list)
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
    if data.get("include") is None:
        # What a file lacks may be in those it includes; that it needs them is refused by itself.
        _check_references(project, report)
    _check_cycles(project, report)
    return project


def _definition(name: str, raw: dict[str, Any]) -> Definition:
    service = Definition(name, raw)
    service.environment = values.variables(raw.get("environment"))
    service.ports = [port for entry in raw.get("ports") or [] for port in values.ports(entry)]
    service.exposed = [port for entry in raw.get("expose") or [] for port in values.exposed(entry)]
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
        self._replaced = replaced
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
                own = _merge_mapping(self._without_replaced(self._done[base], ("services", entry)), own)
                self._size += _size(own)
                if self._size > MAX_NODES:
                    self._report.add(FindingReason.TOO_MANY_NODES, ("services", entry, "extends"))
            self._done[entry] = own

    def _without_replaced(self, base: dict[str, Any], path: Path) -> dict[str, Any]:
        return {
            key: self._without_replaced(value, (*path, key)) if isinstance(value, dict) else value
            for key, value in base.items()
            if (*path, key) not in self._replaced
        }

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


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _merge_mapping(before: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a service, or a mapping in one, that extends another, as Compose merges them."""
    result = dict(before)
    for key, value in own.items():
        result[key] = _merge(key, before[key], value) if before.get(key) is not None else value
    return result


def _merge(key: str, before: Any, value: Any) -> Any:
    if key in _REPLACED:
        return value
    if value is None:
        return before
    if key in _VARIABLES:
        return values.variables(before) | values.variables(value)
    if key == "depends_on":
        return _merge_mapping(_waits(before), value if isinstance(value, dict) else _waits(value))
    if key == "networks":
        return _merge_mapping(_named(before), _named(value))
    if key == "extra_hosts":
        return _joined(hosts(before), hosts(value))
    if key == "volumes":
        replaced = {values.mount(entry).target for entry in value}
        return [entry for entry in before if values.mount(entry).target not in replaced] + value
    if key in _LISTS or (isinstance(before, list) and isinstance(value, list)):
        return _joined(before, value)
    if isinstance(before, dict) and isinstance(value, dict):
        return _merge_mapping(before, value)
    return value


def _named(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else dict.fromkeys(value)


def _joined(before: Any, value: Any) -> list[Any]:
    """Return two lists as one, without what is in it twice."""
    entries = [entry for part in (before, value) for entry in (part if isinstance(part, list) else [part])]
    return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())


def hosts(written: Any) -> list[str]:
    """Return the entries of ``extra_hosts``, each as host=address."""
    if isinstance(written, dict):
        return [f"{host}={target}" for host, targets in written.items() for target in values.strings(targets)]
    return [entry if "=" in entry else entry.replace(":", "=", 1) for entry in values.strings(written)]

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
from opengpu_operator.compose.load import MAX_NODES, MAX_TEXT

ALL_PROFILES: Final = "*"
#: Keys whose lists are joined by ``extends``; the lists of the others are replaced.
_JOINED: Final = frozenset(
    {
        *("ports", "expose", "volumes", "tmpfs", "devices", "cap_add", "cap_drop", "configs", "secrets"),
        *(
            "dns",
            "dns_search",
            "env_file",
            "group_add",
            "security_opt",
            "external_links",
            "links",
            "volumes_from",
        ),
        *("device_cgroup_rules", "extra_hosts", "profiles"),
    }
)
_VARIABLES: Final = frozenset({"environment", "labels", "annotations", "sysctls"})
#: So much text counts as one node.
_CHARACTERS: Final = MAX_TEXT // MAX_NODES
CONDITIONS: Final = ("service_started", "service_healthy", "service_completed_successfully")


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


def build(data: dict[str, Any], *, profiles: Collection[str], report: Report) -> Project:
    """Return a file that passed the shape check as a project; what doesn't fit together goes to ``report``."""
    merged = _Extends(data["services"], report).all()
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
            services[name] = _definition(name, raw, report)
        else:
            inactive[name] = wanted
    project = Project(data, services, inactive)
    if data.get("include") is None:
        # What a file lacks may be in those it includes; that it needs them is refused by itself.
        _check_references(project, report)
    _check_cycles(project, report)
    return project


def _definition(name: str, raw: dict[str, Any], report: Report) -> Definition:
    service = Definition(name, raw)
    service.environment = values.variables(raw.get("environment"))
    service.ports = [port for entry in raw.get("ports") or [] for port in values.ports(entry)]
    service.exposed = [port for entry in raw.get("expose") or [] for port in values.exposed(entry)]
    service.mounts = [
        MountEntry(values.mount(entry), service.at("volumes", index))
        for index, entry in enumerate(raw.get("volumes") or [])
    ]
    _depends_on(service, report)
    for link in values.strings(raw.get("links")):
        target, _, alias = link.partition(":")
        service.links.setdefault(target, []).extend([alias] if alias and alias != target else [])
    mode = raw.get("network_mode") or ""
    if mode.startswith("service:"):
        service.joins = mode.removeprefix("service:")
    return service


def _depends_on(service: Definition, report: Report) -> None:
    written = service.raw.get("depends_on")
    if isinstance(written, list):
        service.depends_on = [
            Dependency(name, CONDITIONS[0], required=True, path=service.at("depends_on", index))
            for index, name in enumerate(written)
        ]
        return
    for name, entry in (written or {}).items():
        path = service.at("depends_on", name)
        entry = entry or {}  # noqa: PLW2901 - an empty value is an empty mapping
        condition = entry.get("condition") or CONDITIONS[0]
        if condition not in CONDITIONS:
            report.add(
                FindingReason.BAD_VALUE,
                (*path, "condition"),
                f"condition can't be {clip(condition)!r}: one of {', '.join(CONDITIONS)} is expected.",
            )
            continue
        required = entry.get("required")
        service.depends_on.append(
            Dependency(name, condition, required=required is None or values.boolean(required), path=path)
        )


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
        targets += [*service.links, *([service.joins] if service.joins else [])]
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

    def __init__(self, services: dict[str, Any], report: Report) -> None:
        self._services = services
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
                own = merge_service(self._done[base], own)
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


def _size(value: Any) -> int:
    """Return how much a value counts: one for each node, and as much for its text as the limits of a file allow."""
    if isinstance(value, dict):
        return 1 + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    return 1 + (len(value) // _CHARACTERS if isinstance(value, str) else 0)


def merge_service(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a service that extends another, as Compose merges them."""
    result = dict(base)
    for key, value in own.items():
        if key in result and value is None:
            continue
        before = result.get(key)
        if before is None:
            result[key] = value
        elif key in _VARIABLES:
            result[key] = values.variables(before) | values.variables(value)
        elif key in ("depends_on", "networks"):
            result[key] = _named(before) | _named(value)
        elif key == "volumes":
            replaced = {values.mount(entry).target for entry in value}
            result[key] = [entry for entry in before if values.mount(entry).target not in replaced] + value
        elif key in _JOINED:
            result[key] = _joined(before, value)
        elif isinstance(before, dict) and isinstance(value, dict):
            result[key] = _merge_mapping(before, value)
        else:
            result[key] = value
    return result


def _named(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(value)
    return dict.fromkeys(value)


def _joined(before: Any, value: Any) -> Any:
    if isinstance(before, dict) and isinstance(value, dict):
        return before | value
    if isinstance(before, dict) or isinstance(value, dict):
        return value
    first = before if isinstance(before, list) else [before]
    second = value if isinstance(value, list) else [value]
    known = {json.dumps(entry, sort_keys=True) for entry in first}
    return first + [entry for entry in second if json.dumps(entry, sort_keys=True) not in known]


def _merge_mapping(before: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    result = dict(before)
    for key, item in value.items():
        held = result.get(key)
        result[key] = (
            _merge_mapping(held, item) if isinstance(held, dict) and isinstance(item, dict) else item
        )
    return result

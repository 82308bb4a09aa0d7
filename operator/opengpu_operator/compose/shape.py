"""Check what the specification's schema can't say: what values mean, and how much of everything there is.

Driven by the table in ``keys``. What passes ``schema`` and this can be read by the later steps without further checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opengpu_operator.compose.findings import LOST_ADVICE, FindingReason, Path, Report, clip
from opengpu_operator.compose.keys import TABLES, Treatment

#: What one job can have; more is a mistake or an attack.
MAX_SERVICES: Final = 100
MAX_PORTS: Final = 2048
MAX_MOUNTS: Final = 1024
#: Of a service, a volume, a config or a secret.
MAX_NAME: Final = 128


def check(data: Mapping[str, Any], report: Report, *, wrong: Iterable[Path]) -> bool:
    """Check a file but for what is known to be wrong in it; return whether it can be read further."""
    checker = _Checker(report, wrong)
    if checker.names(data):
        checker.table(data, "top", ())
    return not checker.wrong


class _Checker:
    def __init__(self, report: Report, wrong: Iterable[Path]) -> None:
        self._report = report
        self._left = {"ports": MAX_PORTS, "volumes": MAX_MOUNTS}
        self.wrong: set[Path] = set()
        """Places that are wrong, or that something wrong is in."""
        for path in wrong:
            self._mark(path)

    def _mark(self, path: Path) -> None:
        self.wrong.update(path[:length] for length in range(len(path) + 1))

    def _fail(self, reason: FindingReason, path: Path, message: str) -> None:
        self._mark(path)
        self._report.add(reason, path, message)

    def names(self, data: Mapping[str, Any]) -> bool:
        """Check the names of what a file defines; return whether there are few enough services to look at."""
        sections = {key: data.get(key) for key in ("services", "volumes", "configs", "secrets")}
        for section, entries in sections.items():
            for name in entries if isinstance(entries, dict) else ():
                if len(name) > MAX_NAME:
                    message = f"{clip(name)!r} is longer than {MAX_NAME} characters."
                    self._fail(FindingReason.BAD_VALUE, (section, name), message)
        services = sections["services"]
        if isinstance(services, dict) and len(services) > MAX_SERVICES:
            self._fail(FindingReason.TOO_MANY, ("services",), f"A file has at most {MAX_SERVICES} services.")
            return False
        return True

    def table(self, data: Mapping[str, Any], name: str, path: Path) -> None:
        """Check a mapping whose keys are those of a table."""
        table = TABLES[name]
        for key, value in data.items():
            entry = table.get(key)
            if entry is None or value is None:
                continue
            here = (*path, key)
            for place, inside in entry.inside(value, here):
                self.table(inside, entry.of, place)
            if entry.parse is not None:
                self._parse(entry.parse, value, here)
            if entry.each is not None and isinstance(value, list):
                self._each(entry.each, value, here)
        for key, entry in table.items():
            if entry.required and data.get(key) is None:
                self._fail(FindingReason.MISSING_KEY, path, f"The key {key} is missing.")

    def _parse(self, parse: Callable[[Any], object], value: Any, path: Path) -> None:
        if path not in self.wrong:
            try:
                parse(value)
            except ValueError as error:
                message = f"{path[-1]} can't be {clip(value)!r}: {error}."
                self._fail(FindingReason.BAD_VALUE, path, message)

    def _each(self, parse: Callable[[Any], object], entries: list[Any], path: Path) -> None:
        counted = "volumes" if path[-1] == "volumes" else "ports"
        for index, entry in enumerate(entries):
            here = (*path, index)
            if here in self.wrong:
                continue
            try:
                parsed = parse(entry)
            except ValueError as error:
                shown = "this" if isinstance(entry, dict) else repr(clip(entry))
                self._fail(FindingReason.BAD_VALUE, here, f"{path[-1]} can't hold {shown}: {error}.")
                continue
            self._left[counted] -= len(parsed) if isinstance(parsed, list) else 1
            if self._left[counted] < 0:
                limit = MAX_MOUNTS if counted == "volumes" else MAX_PORTS
                self._fail(FindingReason.TOO_MANY, path, f"A file has at most {limit} {counted}.")
                return


def report_ignored(service: Mapping[str, Any], path: Path, report: Report) -> None:
    """Report every key of an active service that has no effect."""
    _ignored(service, "service", path, report)


def report_ignored_top(data: Mapping[str, Any], report: Report) -> None:
    """Report the keys outside of services that have no effect."""
    _ignored({key: value for key, value in data.items() if key != "services"}, "top", (), report)


def _ignored(data: Mapping[str, Any], table: str, path: Path, report: Report) -> None:
    for key, value in data.items():
        entry = TABLES[table].get(key)
        here = (*path, key)
        if value is None or key.startswith("x-"):
            continue
        if entry is None:
            report.add(FindingReason.KEY_IGNORED, here, f"{clip(key)} is ignored: Compose reads no such key.")
            continue
        if entry.treatment is Treatment.IGNORED:
            message = f"{key} is ignored: {entry.note}"
            # What is said not to be wanted is no loss.
            severity = None if value is False else entry.severity
            advice = LOST_ADVICE if severity is not None else ""
            report.add(entry.reasons[0], here, message, severity=severity, advice=advice)
        for place, inside in entry.inside(value, here):
            _ignored(inside, entry.of, place, report)

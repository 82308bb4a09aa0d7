"""Check that every value has the form that Compose's specification gives it, and report all that don't at once.

Driven by the table in ``keys``. What passes here can be read by the later steps without further checks of type.
A check against Compose's published JSON schema belongs beside :func:`check`, in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from opengpu_operator.compose import values
from opengpu_operator.compose.findings import LOST_ADVICE, FindingReason, Path, Report, clip
from opengpu_operator.compose.keys import TABLES, Form, Key, Treatment

_SCALARS: Final = (str, int, float, bool)
#: What one job can have; more is a mistake or an attack.
MAX_SERVICES: Final = 100
MAX_PORTS: Final = 2048
MAX_MOUNTS: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check(data: Any, report: Report) -> bool:
    """Check a whole file; return whether it can be read further."""
    if not isinstance(data, dict):
        report.add(FindingReason.WRONG_TYPE, (), "The file has to be a mapping.")
        return False
    checker = _Checker(report)
    checker.table(data, "top", ())
    return not checker.failed


class _Checker:
    def __init__(self, report: Report) -> None:
        self._report = report
        self.failed = False
        self._count = {Form.PORTS: 0, Form.MOUNTS: 0}

    def table(self, data: Mapping[str, Any], name: str, path: Path) -> None:
        """Check a mapping whose keys are those of a table."""
        table = TABLES[name]
        for key, value in data.items():
            if key.startswith("x-"):
                continue
            entry = table.get(key)
            if entry is None:
                self._fail(
                    FindingReason.UNKNOWN_KEY, (*path, key), f"Compose doesn't know the key {clip(key)} here."
                )
            elif value is not None:
                self._value(value, entry, (*path, key))
        for key, entry in table.items():
            if entry.required and data.get(key) is None:
                self._fail(FindingReason.MISSING_KEY, path, f"The key {key} is missing.")

    def _fail(self, reason: FindingReason, path: Path, message: str) -> None:
        self.failed = True
        self._report.add(reason, path, message)

    def _wrong(self, path: Path, form: str) -> None:
        self._fail(FindingReason.WRONG_TYPE, path, f"{path[-1]} has to be {form.strip()}.")

    def _value(self, value: Any, key: Key, path: Path) -> None:
        form = key.form
        if form is Form.ANY:
            return
        if form in _PARSED:
            self._parsed(_PARSED[form], value, path)
        elif form in _SIMPLE:
            if not _SIMPLE[form](value):
                self._wrong(path, form.value)
        else:
            _NESTED[form](self, value, key, path)

    def _parsed(self, parse: Callable[[Any], object], value: Any, path: Path) -> None:
        try:
            parse(value)
        except ValueError as error:
            self._fail(FindingReason.BAD_VALUE, path, f"{path[-1]} can't be {clip(value)!r}: {error}.")

    def mapping(self, value: Any, key: Key, path: Path) -> None:
        if isinstance(value, dict):
            self.table(value, key.of, path)
        elif not (key.form is Form.STRING_OR_OBJECT and isinstance(value, str)):
            self._wrong(path, key.form.value)

    def build(self, value: Any, key: Key, path: Path) -> None:
        if key.of:
            self.mapping(value, key, path)
        elif not isinstance(value, str | dict):
            self._wrong(path, key.form.value)

    def named(self, value: Any, key: Key, path: Path) -> None:
        if key.form is Form.NAMES_OR_NAMED and isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                self._wrong(path, Form.STRINGS.value)
            return
        if not isinstance(value, dict):
            self._wrong(path, key.form.value)
            return
        optional = key.of != "service"
        if not optional and len(value) > MAX_SERVICES:
            self._fail(FindingReason.TOO_MANY, path, f"A file has at most {MAX_SERVICES} services.")
            return
        for name, entry in value.items():
            here = (*path, name)
            if len(path) == 1 and not _NAME.fullmatch(name):
                self._fail(
                    FindingReason.BAD_VALUE,
                    here,
                    f"{clip(name)!r} is no name: letters, digits, dots, hyphens and underscores, at most 128.",
                )
            if isinstance(entry, dict):
                self.table(entry, key.of, here)
            elif not (entry is None and optional) and not (name.startswith("x-") and optional):
                self._wrong(here, Form.MAPPING.value)

    def entries(self, value: Any, key: Key, path: Path) -> None:
        if not isinstance(value, list):
            self._wrong(path, key.form.value)
            return
        parse = _ENTRY.get(key.form)
        for index, item in enumerate(value):
            here = (*path, index)
            before = self.failed
            self.failed = False
            if isinstance(item, dict):
                self.table(item, key.of, here) if key.of else self._wrong(path, key.form.value)
            elif not isinstance(item, _SCALARS) or (key.of == "gpu"):
                self._fail(
                    FindingReason.WRONG_TYPE, here, f"An entry of {path[-1]} has to be {_entry_form(key)}."
                )
            if parse is not None and not self.failed:
                try:
                    if not self._counted(key.form, parse(item), path):
                        return
                except ValueError as error:
                    shown = item if isinstance(item, _SCALARS) else "this"
                    self._fail(
                        FindingReason.BAD_VALUE, here, f"{path[-1]} can't hold {clip(shown)!r}: {error}."
                    )
            self.failed = self.failed or before

    def _counted(self, form: Form, parsed: Any, path: Path) -> bool:
        """Count ports and mounts; returns False where there are too many of them, which ends the reading."""
        counted = Form.MOUNTS if form is Form.MOUNTS else Form.PORTS
        self._count[counted] += len(parsed) if isinstance(parsed, list) else 1
        limit = MAX_MOUNTS if counted is Form.MOUNTS else MAX_PORTS
        if self._count[counted] > limit:
            self._fail(FindingReason.TOO_MANY, path, f"A file has at most {limit} {path[-1]}.")
            return False
        return True

    def gpus(self, value: Any, _: Key, path: Path) -> None:
        if isinstance(value, list):
            for index, item in enumerate(value):
                here = (*path, index)
                if not isinstance(item, dict):
                    self._wrong(here, Form.MAPPING.value)
                    continue
                # Unlike under deploy, the capability is understood here.
                self.table({"capabilities": ["gpu"], **item}, "gpu", here)
        elif value != "all":
            self._parsed(values.integer, value, path)


def _entry_form(key: Key) -> str:
    return "a mapping" if key.of == "gpu" else "a string or a mapping" if key.of else "a string"


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, _SCALARS) for item in value)


def _is_variables(value: Any) -> bool:
    if isinstance(value, dict):
        return all(item is None or isinstance(item, _SCALARS) for item in value.values())
    return _is_strings(value)


def _is_hosts(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(item, _SCALARS) or _is_strings(item) for item in value.values())
    return _is_strings(value)


def _is_env_files(value: Any) -> bool:
    entries = value if isinstance(value, list) else [value]
    return all(isinstance(item, str | dict) for item in entries)


_SIMPLE: Final[Mapping[Form, Callable[[Any], bool]]] = {
    Form.STRING: lambda value: isinstance(value, str),
    Form.SCALAR: lambda value: isinstance(value, _SCALARS),
    Form.STRINGS: _is_strings,
    Form.STRING_OR_STRINGS: lambda value: isinstance(value, str) or _is_strings(value),
    Form.VARIABLES: _is_variables,
    Form.HOSTS: _is_hosts,
    Form.MAPPING: lambda value: isinstance(value, dict),
    Form.LIST: lambda value: isinstance(value, list),
    Form.ENV_FILES: _is_env_files,
}


def _command(value: Any) -> object:
    if isinstance(value, list) and not _is_strings(value):
        msg = "a list of strings is expected"
        raise ValueError(msg)
    return values.command(value)


_PARSED: Final[Mapping[Form, Callable[[Any], object]]] = {
    Form.BOOLEAN: values.boolean,
    Form.INTEGER: values.integer,
    Form.NUMBER: values.number,
    Form.SIZE: values.size,
    Form.DURATION: values.duration,
    Form.COMMAND: _command,
}

_ENTRY: Final[Mapping[Form, Callable[[Any], object]]] = {
    Form.PORTS: values.ports,
    Form.EXPOSED: values.exposed,
    Form.MOUNTS: values.mount,
}

_NESTED: Final[Mapping[Form, Callable[[_Checker, Any, Key, Path], None]]] = {
    Form.OBJECT: _Checker.mapping,
    Form.STRING_OR_OBJECT: _Checker.build,
    Form.NAMED: _Checker.named,
    Form.NAMES_OR_NAMED: _Checker.named,
    Form.ENTRIES: _Checker.entries,
    Form.PORTS: _Checker.entries,
    Form.EXPOSED: _Checker.entries,
    Form.MOUNTS: _Checker.entries,
    Form.GPUS: _Checker.gpus,
}


def report_ignored(service: Mapping[str, Any], path: Path, report: Report) -> None:
    """Report every key of an active service that has no effect."""
    _ignored(service, "service", path, report)


def report_ignored_top(data: Mapping[str, Any], report: Report) -> None:
    """Report the keys outside of services that have no effect."""
    for key, entry in TABLES["top"].items():
        value = data.get(key)
        if value is None:
            continue
        if entry.treatment is Treatment.IGNORED:
            report.add(entry.reason, (key,), entry.note, severity=entry.severity)
        elif entry.form is Form.NAMED and key != "services" and isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, dict):
                    _ignored(item, entry.of, (key, name), report)


def _ignored(data: Mapping[str, Any], table: str, path: Path, report: Report) -> None:
    for key, value in data.items():
        entry = TABLES[table].get(key)
        if entry is None or value is None:
            continue
        here = (*path, key)
        if entry.treatment is Treatment.IGNORED:
            advice = LOST_ADVICE if entry.severity is not None else ""
            report.add(
                entry.reason, here, f"{key} is ignored: {entry.note}", severity=entry.severity, advice=advice
            )
        elif entry.of and isinstance(value, dict):
            if entry.form is Form.NAMES_OR_NAMED:
                for name, item in value.items():
                    if isinstance(item, dict):
                        _ignored(item, entry.of, (*here, name), report)
            elif entry.form in (Form.OBJECT, Form.STRING_OR_OBJECT):
                _ignored(value, entry.of, here, report)
        elif entry.of and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _ignored(item, entry.of, (*here, index), report)

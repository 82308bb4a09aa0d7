"""Check a file against the Compose specification's own schema, and say in words for people what it doesn't allow.

``data/compose-spec.json`` is the schema that kompose's library carries, unchanged. It says what may be written where:
keys, types, a few values. What is inside of the values (sizes, ports, mounts) is left to ``shape``.

jsonschema-rs reads it: on the largest files that ``load`` lets pass, checking takes 0.5 ms and reporting 10,000 errors
60 ms, where jsonschema, in Python, takes 30 to 150 ms, and 11 s for a list of 3,300 ports, which it compares in pairs.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final, NamedTuple

import jsonschema_rs

from opengpu_operator.compose import values
from opengpu_operator.compose.findings import MAX_FINDINGS, FindingReason, Path, Report, clip

_Kind = jsonschema_rs.ValidationErrorKind

_NUMBER: Final = re.compile(r"\+?[0-9]+")
#: JSON's types, in the order in which a message lists them.
_TYPES: Final = {
    "boolean": ("true", "false"),
    "integer": ("a whole number",),
    "number": ("a number",),
    "string": ("a string",),
    "array": ("a list",),
    "object": ("a mapping",),
}
#: Lists out of which Compose takes what is there twice before it validates; in all others that is an error.
_THINNED: Final = frozenset(
    {
        *("annotations", "cap_add", "cap_drop", "dns", "dns_opt", "dns_search", "environment", "expose"),
        *("labels", "links", "ports", "profiles", "sysctls", "tmpfs", "volumes", "deploy.labels"),
        *("build.args", "build.additional_contexts", "build.labels"),
        *("networks.*.aliases", "networks.*.link_local_ips"),
    }
)
#: What the schema's regular expressions ask for.
PATTERNS: Final = {
    "[a-zA-Z0-9][a-zA-Z0-9_.-]+": "letters, digits, dots, hyphens and underscores are",
    "always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+": (
        "always, never, missing, if_not_present, build, refresh, daily, weekly or every_12h is"
    ),
}
#: What to do about a number, by key, where quotes aren't enough.
_NUMBERS: Final = {
    **dict.fromkeys(("interval", "timeout", "start_period", "start_interval"), "Add the unit: 10s."),
    **dict.fromkeys(("stop_grace_period", "delay", "monitor", "window"), "Add the unit: 10s."),
    "gpus": "Write all, or a list: [{count: 2}].",
}
#: Keys whose ``no`` YAML 1.1 takes for false, as programs that write these files may.
_SWITCHES: Final = {"restart", "condition"}
#: Sections and keys whose mappings have names for keys.
_NAMED: Final = frozenset({"services", "volumes", "networks", "configs", "secrets", "depends_on"})
#: Where the keys of a mapping are names, that can't be left out.
_NAMES: Final = {(key,) for key in _NAMED}


@functools.cache
def specification() -> Mapping[str, Any]:
    """Return the schema with its references followed and its choices merged, so that every error has one place.

    All alternatives of a ``oneOf`` differ by type, and a keyword for one type doesn't bear on values of another: merged
    into one, they allow the same values, and what is wrong with a value is said by the alternative of its type.
    """
    file = resources.files(__package__) / "data" / "compose-spec.json"
    schema = json.loads(file.read_text("utf-8"))
    service, secret, config = (schema["definitions"][name] for name in ("service", "secret", "config"))
    # Compose acts on it before it validates, and reads no other keys.
    del service["properties"]["extends"]["oneOf"][1]["additionalProperties"]
    # Ours: a file that can't refer to others has no other way to hold a secret.
    secret["properties"]["content"] = config["properties"]["content"]
    resolved: dict[str, Any] = _resolved(schema, schema["definitions"])
    return resolved


def _resolved(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _resolved(definitions[node["$ref"].removeprefix("#/definitions/")], definitions)
    result = {key: _resolved(value, definitions) for key, value in node.items() if key != "definitions"}
    choices = result.pop("oneOf", None)
    return result | _merged(choices) if choices else result


def _merged(choices: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {"type": []}
    for choice in choices:
        rest = {key: value for key, value in choice.items() if key not in ("type", "description")}
        types = choice["type"] if isinstance(choice["type"], list) else [choice["type"]]
        if "enum" in rest:
            # The one keyword that isn't about a type.
            rest["if"], rest["then"] = {"type": types}, {"enum": rest.pop("enum")}
        result |= {**rest, "type": result["type"] + types}
    return result


def mapping(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the mappings that a value, the entries of a list or the values of names can be."""
    if "properties" in node:
        return node
    held = [*([node["items"]] if "items" in node else []), *node.get("patternProperties", {}).values()]
    return next(filter(None, map(mapping, held)), None)


@functools.cache
def _validator() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(dict(specification()))


def mend(data: dict[str, Any], report: Report) -> dict[str, Any]:
    """Return a file with those values put right that the schema doesn't allow but that can mean one thing only.

    People write ``user: 1000`` and leave keys empty. Compose refuses that, though nobody is in doubt about it.
    """
    found = [(path, meant) for path, meant in map(_meant, _errors(data)) if path]
    if not found:
        return data
    data = copy.deepcopy(data)
    # The innermost first, before anything around it moves.
    for path, meant in sorted(found, key=lambda entry: len(entry[0]), reverse=True):
        parent = _at(data, path[:-1])
        if meant is None:
            del parent[path[-1]]
        else:
            parent[path[-1]] = meant
        how = "left out" if meant is None else f"read as {clip(json.dumps(meant))}"
        report.add(FindingReason.LOOSE_VALUE, path, f"{_subject(path)} is {how}.")
    return data


def _meant(error: _Error) -> tuple[Path, Any]:
    """Return a place and what is meant there, None for nothing; no place where that isn't plain."""
    path, value = error.path, error.value
    match error.kind:
        case _Kind.Type(_) if value is None:
            key = path and isinstance(path[-1], str) and path[-2:-1] not in _NAMES and path != ("services",)
            return (path, None) if key else ((), None)
        case _Kind.Type(_) if path and path[-1] == "gpus" and isinstance(value, int) and value > 0:
            return path, [{"count": value}]
        case _Kind.Type(types) if "string" in types and path[-1] not in _NUMBERS:
            if value is False and path[-1] in _SWITCHES:
                return path, "no"
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return path, values.text(value)
        case _Kind.UniqueItems():
            if not _is_thinned(path):
                return path, _thinned(value)
    return (), None


def _thinned(entries: list[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for entry in entries:
        seen.setdefault(json.dumps(entry, sort_keys=True), entry)
    return list(seen.values())


def check(data: dict[str, Any], report: Report) -> set[Path]:
    """Report everything in a file that the schema doesn't allow; return the places, which mean nothing further."""
    places: set[Path] = set()
    errors = _errors(data)
    for error in itertools.islice(errors, MAX_FINDINGS):
        for fault in _faults(error):
            places.add(fault.path)
            report.add(fault.reason, fault.path, fault.message, advice=fault.advice)
    report.count(sum(1 for _ in errors))
    return places


class _Error(NamedTuple):
    kind: jsonschema_rs.ValidationErrorKind
    path: Path
    value: Any
    originals: Mapping[str, str]
    """Keys of the value that were written otherwise."""


def _errors(data: dict[str, Any]) -> Iterator[_Error]:
    """Yield what the schema doesn't allow, with its place in the file."""
    originals: dict[int, dict[str, str]] = {}
    validated = _without_numbers(_as_validated(data), originals)
    for error in _validator().iter_errors(validated):
        path, value = [], validated
        for part in error.instance_path:
            path.append(originals.get(id(value), {}).get(part, part) if isinstance(part, str) else part)
            value = value[part]
        yield _Error(error.kind, tuple(path), value, originals.get(id(value), {}))


def _without_numbers(value: Any, originals: dict[int, dict[str, str]]) -> Any:
    """Return the same without keys that look like numbers, which the library takes for places in lists."""
    if isinstance(value, list):
        return [_without_numbers(item, originals) for item in value]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for key, item in value.items():
        name = key
        while _NUMBER.fullmatch(key) and (name == key or name in value):
            name += "_"
        if name != key:
            renamed[name] = key
        result[name] = _without_numbers(item, originals)
    if renamed:
        originals[id(result)] = renamed
    return result


def _as_validated(data: dict[str, Any]) -> dict[str, Any]:
    """Return a file as Compose has it when it validates: some strings are cast, and services have been extended."""
    services = data.get("services")
    if not isinstance(services, dict):
        return data
    return {**data, "services": {name: _service(service) for name, service in services.items()}}


def _service(service: Any) -> Any:
    if not isinstance(service, dict):
        return service
    extends = service.get("extends") is not None
    # A key without a value leaves the extended service's as it is.
    result = _without_empty(service) if extends else dict(service)
    if isinstance(waits := result.get("depends_on"), dict):
        defaults = {"condition": "service_started"} if extends else {}
        result["depends_on"] = {
            name: defaults | _cast(entry) if isinstance(entry, dict) else entry
            for name, entry in waits.items()
        }
    return result


def _without_empty(data: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_empty(value) if isinstance(value, dict) else value
        for key, value in data.items()
        if value is not None
    }


def _cast(dependency: dict[str, Any]) -> dict[str, Any]:
    """Return a dependency with the one key that Compose casts and whose string its schema doesn't allow."""
    try:
        return {**dependency, "required": values.boolean(dependency["required"])}
    except (KeyError, ValueError):
        return dependency


class _Fault(NamedTuple):
    reason: FindingReason
    path: Path
    message: str
    advice: str = ""


def _faults(error: _Error) -> Iterator[_Fault]:
    """Say what an error means; nothing where Compose, for all its schema, takes the value."""
    path, value = error.path, error.value
    match error.kind:
        case _Kind.Type(types):
            yield _wrong_type(types, value, path)
        case _Kind.AdditionalProperties(names):
            for name in names:
                yield _unknown(error.originals.get(name, name), path)
        case _Kind.Required(name):
            yield _Fault(FindingReason.MISSING_KEY, path, f"The key {name} is missing.")
        case _Kind.Enum(options):
            if isinstance(value, str):
                yield _bad(value, path, f"{', '.join(map(str, options))} is expected")
        case _Kind.Pattern(pattern):
            yield _bad(value, path, f"{PATTERNS[pattern]} expected")
        case _Kind.Minimum(limit):
            yield _bad(value, path, f"{limit} or more is expected")
        case _Kind.Maximum(limit):
            yield _bad(value, path, f"{limit} or less is expected")
        case _Kind.UniqueItems():
            # Compose thins these out itself; the others were.
            return
        case _:
            yield _Fault(FindingReason.BAD_VALUE, path, "")


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _subject(path: Path) -> str:
    """Return what a message calls the value at a place: its key, or an entry of the list's."""
    if not path:
        return "The file"
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    return clip(key) if path[-1] == key else f"An entry of {clip(key)}"


def _wrong_type(types: list[str], value: Any, path: Path) -> _Fault:
    words = [word for name, spelled in _TYPES.items() if name in types for word in spelled]
    expected = " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    if value is None:
        message = f"{_subject(path)} is empty; it has to be {expected}."
        return _Fault(FindingReason.WRONG_TYPE, path, message, "Give it a value, or remove it.")
    advice = ""
    if isinstance(value, int | float) and "string" in types:
        advice = _NUMBERS.get(str(path[-1]), "Put the value in quotes.")
    message = f"{_subject(path)} has to be {expected}, not {_shown(value)}."
    return _Fault(FindingReason.WRONG_TYPE, path, message, advice)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return values.text(value)
        case int() | float():
            return f"the number {clip(values.text(value))}"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _unknown(name: str, path: Path) -> _Fault:
    here = (*path, name)
    if len(path) in (1, 3) and path[-1] in _NAMED:
        message = f"{clip(name)!r} is no name: letters, digits, dots, hyphens and underscores are allowed."
        return _Fault(FindingReason.BAD_VALUE, here, message)
    return _Fault(FindingReason.UNKNOWN_KEY, here, f"Compose doesn't know the key {clip(name)} here.")


def _bad(value: Any, path: Path, why: str) -> _Fault:
    return _Fault(FindingReason.BAD_VALUE, path, f"{_subject(path)} can't be {clip(value)!r}: {why}.")


def _is_thinned(path: Path) -> bool:
    match path:
        case ("services", _, "networks", _, key):
            return f"networks.*.{key}" in _THINNED
        case ("services", _, *keys):
            return ".".join(map(str, keys)) in _THINNED
        case ("networks", _, "labels"):
            return True
    return False

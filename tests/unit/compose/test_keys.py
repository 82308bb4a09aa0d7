"""No key is dropped silently: each is visible in the translation, or found, as its table says."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import opengpu_operator.compose
from opengpu_operator.api.translation import Translation
from opengpu_operator.compose import load, schema
from opengpu_operator.compose.findings import RULES, FindingReason, Report
from opengpu_operator.compose.keys import SERVICE, TABLES, TOP, Treatment
from tests.support.compose import one, reasons, translate
from tests.support.keycases import DONE_ANYWAY, FOUND, UNSEEN, VISIBLE

PACKAGE = Path(opengpu_operator.compose.__file__).parent
#: What else a mapping of a table needs to mean anything.
NEEDED: dict[str, dict[str, Any]] = {
    "service": {"image": "x"},
    "gpu": {"capabilities": ["gpu"]},
    "discrete_resource": {"kind": "GPU"},
    "healthcheck": {"test": ["CMD", "x"]},
    "port": {"target": 80},
    "mount": {"type": "volume", "target": "/x"},
    "device_mapping": {"source": "/dev/kfd"},
    "dependency": {"condition": "service_started"},
    "extends": {"service": "db"},
    "file": {"source": "f"},
    "config": {"content": "x"},
    "secret": {"content": "x"},
}
NAMES = {"service": "app", "dependency": "db"}
#: What other parts of a file refer to.
DEFINED = {
    "services": {"app": {"image": "x"}, "db": {"image": "y"}},
    "volumes": {"x": None},
    "networks": {"x": None},
    "configs": {"f": {"content": "c"}},
    "secrets": {"f": {"content": "c"}},
}
#: Values of keys whose schema asks for more than a type.
SAMPLES = {"pull_policy": "always"}

Wrap = Callable[[dict[str, Any]], dict[str, Any]]


def holders(
    table: str = "top", path: str = "", wrap: Wrap = dict, node: Any = None
) -> Iterator[tuple[str, str, Wrap, dict[str, Any]]]:
    """Yield every place of every table: the table, its path, what makes a file of a mapping there, and its schema."""
    node = node or schema.specification()
    yield table, path, wrap, node
    for key, entry in TABLES[table].items():
        inside = schema.mapping(node["properties"][key]) if entry.of else None
        if inside is None:
            continue
        needed, name = NEEDED.get(entry.of, {}), NAMES.get(entry.of, "x")
        outer = f"{path}.{key}".strip(".")
        if entry.named:
            place = f"{outer}.{name}"
        elif "properties" in node["properties"][key]:
            place, name = outer, ""
        else:
            place, name = f"{outer}[0]", "[]"

        yield from holders(entry.of, place, partial(held, wrap, key, name, needed), inside)


def held(wrap: Wrap, key: str, name: str, needed: dict[str, Any], mapping: dict[str, Any]) -> dict[str, Any]:
    full = needed | mapping
    return wrap({key: [full] if name == "[]" else {name: full} if name else full})


HOLDERS = list(holders())


def sample(node: dict[str, Any]) -> Any:
    """Return a value that a schema allows."""
    types = node.get("type", "string")
    kind = types if isinstance(types, str) else next(name for name in types if name != "null")
    if "enum" in node:
        return node["enum"][0]
    match kind:
        case "string":
            return "x"
        case "boolean":
            return True
        case "array":
            return [sample(node["items"])]
        case "object":
            properties = node.get("properties", {})
            wanted = node.get("required") or list(properties)[:1]
            named = next(iter(node.get("patternProperties", {"": {}}).values()))
            return {name: sample(properties[name]) for name in wanted} or (
                {"x": sample(named)} if named else {}
            )
    return 1


def merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


def file(wrap: Wrap, key: str, value: Any) -> str:
    """Return a file that holds a key, or the one that a value is."""
    if isinstance(value, str) and value.startswith("services:"):
        return value
    return json.dumps(merged(DEFINED, wrap({key: value})))


def read(text: str) -> Any:
    """Return a value as a file's loader reads it."""
    document = load.load(text, Report())
    assert document is not None
    return document.data


def is_at(found: str, path: str) -> bool:
    """Whether a finding is about a key: at its place, inside of it, or at the entry that holds it."""
    parts = [re.split(r"[.\[]", place.replace("]", "")) for place in (found, path)]
    shorter = min(map(len, parts))
    return bool(found) and parts[0][:shorter] == parts[1][:shorter] and (shorter > 2 or len(parts[1]) <= 2)


def shown(translation: Translation) -> str:
    return translation.model_dump_json(by_alias=True, exclude={"findings", "digest"})


def each(treatments: set[Treatment]) -> list[Any]:
    return [
        pytest.param(table, key, f"{path}.{key}".strip("."), wrap, id=f"{path}.{key}".strip("."))
        for table, path, wrap, _ in HOLDERS
        for key, entry in TABLES[table].items()
        if entry.treatment in treatments
    ]


@pytest.mark.parametrize(("table", "key", "path", "wrap"), each({Treatment.IGNORED}))
def test_what_is_ignored_is_found(table: str, key: str, path: str, wrap: Wrap) -> None:
    entry = TABLES[table][key]
    node = next(node for name, _, _, node in HOLDERS if name == table)
    value = SAMPLES.get(key) or sample(node["properties"][key])
    translation = translate(file(wrap, key, value))
    assert not translation.refused, translation.findings
    (found,) = (finding for finding in translation.findings if finding.path == path)
    assert found.reason == entry.reasons[0]
    assert found.severity == (entry.severity or RULES[entry.reasons[0]].severity)
    assert found.message == f"{key} is ignored: {entry.note}"


@pytest.mark.parametrize(("table", "key", "path", "wrap"), each(set(Treatment) - {Treatment.IGNORED}))
def test_what_else_may_be_found_is_found(table: str, key: str, path: str, wrap: Wrap) -> None:
    cases = FOUND.get(table, {}).get(key, {})
    assert list(cases) == list(TABLES[table][key].reasons)
    for reason, text in cases.items():
        value = text if text.startswith("services:") else read(text)
        translation = translate(file(wrap, key, value))
        found = {finding.path for finding in translation.findings if finding.reason == reason}
        assert any(is_at(place, path) for place in found), (reason, translation.findings)


@pytest.mark.parametrize(
    ("table", "key", "path", "wrap"), each({Treatment.MAPPED, Treatment.CHANGED, Treatment.REFUSED})
)
def test_what_is_mapped_is_seen(table: str, key: str, path: str, wrap: Wrap) -> None:
    entry = TABLES[table][key]
    seen, unseen = (cases.get(table, {}).get(key) for cases in (VISIBLE, UNSEEN))
    if seen is None and unseen is None:
        assert entry.treatment is Treatment.REFUSED or (table, key) in DONE_ANYWAY
    for case, expected in ((seen, True), (unseen, False)):
        if case is None:
            continue
        text, part = case
        value = text if text.startswith("services:") else read(text)
        translation = translate(file(wrap, key, value))
        assert not translation.refused, translation.findings
        assert (part in shown(translation)) == expected
        # Nothing is there without the key.
        if value is not text and key not in NEEDED.get(table, {}):
            assert (part in shown(translate(file(wrap, "x-none", value)))) != expected


def test_every_case_is_of_a_key() -> None:
    for cases in (VISIBLE, UNSEEN, FOUND):
        for table, keys in cases.items():
            assert keys.keys() <= TABLES[table].keys()


def test_every_reason_has_a_rule() -> None:
    assert set(RULES) == set(FindingReason)
    for rule in RULES.values():
        assert rule.meaning.endswith(".")
        assert rule.advice.endswith(".")


def test_every_reason_is_used() -> None:
    used = set()
    for path in PACKAGE.glob("*.py"):
        if path.name == "findings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("FindingReason", "_F")
            ):
                used.add(node.attr)
    own = {"TOO_MANY_FINDINGS"}
    assert used | own == {reason.name for reason in FindingReason}


def test_every_key_is_documented() -> None:
    for table in TABLES.values():
        for key, entry in table.items():
            assert entry.note.endswith("."), key


@pytest.mark.parametrize("key", sorted(TOP))
def test_wrong_types_are_named_at_the_top(key: str) -> None:
    translation = translate(json.dumps({"services": {"app": {"image": "x"}}} | {key: [[[1]]]}))
    found = {entry.path.partition("[")[0] for entry in translation.findings if entry.reason == "WrongType"}
    assert found == {key}, translation.findings


@pytest.mark.parametrize("key", sorted(SERVICE))
def test_wrong_types_are_named(key: str) -> None:
    translation = translate(json.dumps({"services": {"app": {"image": "x", key: [[1]]}}}))
    found = {entry.path for entry in translation.findings if entry.reason == "WrongType"}
    assert any(path.startswith(f"services.app.{key}") for path in found), translation.findings


@pytest.mark.parametrize("key", ["imagee", "port", "volume", "enviroment", "scaling"])
def test_unknown_keys_are_refused(key: str) -> None:
    assert reasons(translate(one(f"{key}: x")), "error") == {"UnknownKey"}
    assert not translate(one(f"x-{key}: x", top=f"x-{key}: x")).refused

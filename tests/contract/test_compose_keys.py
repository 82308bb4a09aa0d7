"""The tables of Compose's keys name those of the specification's schema, which is read as it is written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opengpu_operator.compose import schema
from opengpu_operator.compose.keys import TABLES, Treatment

ROOT = Path(__file__).parents[2]
FILE = resources.files("opengpu_operator.compose") / "data" / "compose-spec.json"
VENDORED = json.loads(FILE.read_text())
#: Keys that only the tables have, each with its reason.
OURS = {("secret", "content"): "a file that can't refer to others has no other way to hold a secret"}

Node = dict[str, Any]


def resolved(node: Node) -> Node:
    while "$ref" in node:
        node = VENDORED["definitions"][node["$ref"].removeprefix("#/definitions/")]
    return node


def inside(node: Node) -> Iterator[Node]:
    """Yield every mapping with keys of its own that a value can be or hold."""
    node = resolved(node)
    if "properties" in node:
        yield node
        return
    for choice in [*node.get("oneOf", ()), *node.get("patternProperties", {}).values()]:
        yield from inside(choice)
    if "items" in node:
        yield from inside(node["items"])


def walk(table: str, node: Node, seen: set[str]) -> None:
    seen.add(table)
    properties = node["properties"]
    ours = {key for name, key in OURS if name == table}
    assert TABLES[table].keys() == properties.keys() | ours, table
    assert not properties.keys() & ours
    for key in properties:
        entry = TABLES[table][key]
        held = list(inside(properties[key]))
        if entry.of:
            assert held, (table, key)
            for mapping in held:
                walk(entry.of, mapping, seen)
        elif held:
            # Its keys are what the whole is.
            assert entry.treatment in (Treatment.IGNORED, Treatment.REFUSED), (table, key)


def test_the_tables_hold_the_specifications_keys() -> None:
    seen: set[str] = set()
    walk("top", VENDORED, seen)
    assert seen == TABLES.keys()


def test_the_schema_is_that_of_komposes_library() -> None:
    """NOTICE says which version it is; whoever takes another one has to look at what is new in it."""
    (version,) = re.findall(
        r"^github\.com/compose-spec/compose-go/v2 (v[^\s/]+) h1:",
        (ROOT / "kompose" / "go.sum").read_text(),
        re.MULTILINE,
    )
    assert f"compose-go {version}" in " ".join((ROOT / "NOTICE").read_text().split())
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == (
        "4c82f37952baa25ddc949641f5db53a23a51e0f961825509fcb485c8f85c3854"
    )


#: What ``schema`` has words for; an error about another keyword would only say that something is wrong.
KEYWORDS = {
    *(
        "type",
        "properties",
        "patternProperties",
        "additionalProperties",
        "items",
        "required",
        "enum",
        "pattern",
    ),
    *("minimum", "maximum", "uniqueItems", "if", "then"),
}
NOTES = {"description", "title", "default", "deprecated", "$schema", "$id"}


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for key in ("properties", "patternProperties"):
        for child in node.get(key, {}).values():
            yield from nodes(child)
    for key in ("items", "if", "then"):
        if key in node:
            yield from nodes(node[key])


def test_every_error_has_words() -> None:
    for node in nodes(dict(schema.specification())):
        assert node.keys() <= KEYWORDS | NOTES, node
        assert node.get("pattern") in {None, *schema.PATTERNS}
        # Else an alternative would have been merged over another.
        types = node.get("type", [])
        assert isinstance(types, str) or len(types) == len(set(types))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.sampled_from([0.5, 2.0, "", "x", "all", "host", "80"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-x", max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def fitting(node: Node) -> st.SearchStrategy[Any]:
    """Return values that fit a part of the schema, more or less."""
    node = resolved(node)
    if "oneOf" in node:
        return values | st.one_of([fitting(choice) for choice in node["oneOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"]) | scalars
    if "properties" in node or "patternProperties" in node:
        known = {key: fitting(child) for key, child in node.get("properties", {}).items()}
        named = [fitting(child) for child in node.get("patternProperties", {}).values() if child]
        others = st.dictionaries(
            st.sampled_from(["a", "x-b", "a b"]), st.one_of([*named, scalars]), max_size=2
        )
        some = st.fixed_dictionaries({}, optional=known)
        return st.builds(lambda one, other: {**one, **other}, some, others) | scalars
    if "items" in node:
        return st.lists(fitting(node["items"]), max_size=3) | scalars
    return values


SERVICE = VENDORED["definitions"]["service"]["properties"]
ORIGINAL = jsonschema.Draft7Validator(VENDORED)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from(sorted(SERVICE.keys() - {"extends"})))
def test_merging_choices_changes_nothing(data: st.DataObject, key: str) -> None:
    """The schema as it is written, read by another library, allows the same files."""
    file = {"services": {"app": {key: data.draw(fitting(SERVICE[key]))}}}
    assert schema._validator().is_valid(file) == ORIGINAL.is_valid(file)

"""The CRDs and the models say the same, and what the operator writes is what is stored.

The schemas are compared by walking both, without the generator: a mistake in it shows up as a difference.
"""

import copy
import functools
import typing
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel

from opengpu_operator.api import crd, generate, source, task
from opengpu_operator.api.conditions import MESSAGE_LIMIT, set_condition
from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.meta import Model
from opengpu_operator.api.reasons import ConditionType, Reason
from tests.support.models import Bounds, field_of, instances, unwrap

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "crds").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PRESERVE = "x-kubernetes-preserve-unknown-fields"
RULES = "x-kubernetes-validations"

MODELS: dict[str, dict[str, type[Model]]] = {
    source.KIND: {"spec": source.SourceSpec, "status": source.SourceStatus},
    task.KIND: {"spec": task.TaskSpec, "status": task.TaskStatus},
}
PARTS = [(kind, part) for kind, parts in MODELS.items() for part in parts]


@functools.cache
def load(kind: str) -> dict[str, Any]:
    for file in FILES:
        definition = yaml.safe_load(file.read_text())
        if definition["spec"]["names"]["kind"] == kind:
            return typing.cast("dict[str, Any]", definition)
    raise LookupError(kind)


def version(kind: str) -> dict[str, Any]:
    (only,) = load(kind)["spec"]["versions"]
    return typing.cast("dict[str, Any]", only)


def schema(kind: str, part: str) -> dict[str, Any]:
    return typing.cast("dict[str, Any]", version(kind)["schema"]["openAPIV3Schema"]["properties"][part])


def nodes(node: dict[str, Any], path: str) -> typing.Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


NODES = [
    pytest.param(node, id=f"{kind}.{path}")
    for kind, part in PARTS
    for path, node in nodes(schema(kind, part), part)
]


# ------------------------------------------------------------------------------------------------ generated files


def test_committed_files_are_the_generated_ones(capsys):
    arguments = [str(ROOT / "crds"), "--docs", str(ROOT / "docs" / "reference" / "api.md"), "--check"]
    assert generate.main(arguments) == 0, capsys.readouterr().err


def test_there_is_one_file_per_kind():
    assert {yaml.safe_load(file.read_text())["spec"]["names"]["kind"] for file in FILES} == set(MODELS)
    for file in FILES:
        definition = yaml.safe_load(file.read_text())
        assert file.name == f"{definition['spec']['group']}_{definition['spec']['names']['plural']}.yaml"


@pytest.mark.parametrize("kind", MODELS)
def test_names(kind):
    names = load(kind)["spec"]["names"]
    assert names["shortNames"] == [{source.KIND: "ogs", task.KIND: "ogt"}[kind]]
    assert names["categories"] == ["opengpu"]
    assert names["singular"] == kind.lower()
    assert names["listKind"] == f"{kind}List"
    assert version(kind)["subresources"] == {"status": {}}


# ------------------------------------------------------------------------------------------------- schema = models


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_schema_equals_model(kind, part):
    assert_same(schema(kind, part), MODELS[kind][part], Bounds([]), path=part)


def assert_same(node: dict[str, Any], annotation: Any, bounds: Bounds, *, path: str) -> None:
    """Compare types, bounds, enums, names and what is required, in both directions."""
    known = bounds.known
    assert node.get("x-kubernetes-list-type") == bounds.extra.get("x-kubernetes-list-type"), path
    assert node.get("x-kubernetes-list-map-keys") == bounds.extra.get("x-kubernetes-list-map-keys"), path
    if annotation is Any:
        assert "type" not in node, path
        assert node[PRESERVE] is True, path
        return
    assert node["type"] == expected_type(annotation), path
    lengths = {
        "string": ("minLength", "maxLength"),
        "array": ("minItems", "maxItems"),
        "object": ("", "maxProperties"),
    }
    least, most = lengths.get(node["type"], ("", ""))
    assert node.get(most) == known.get("max_length"), path
    assert node.get(least) == known.get("min_length"), path
    assert node.get("minimum") == known.get("ge"), path
    assert node.get("maximum") == known.get("le"), path
    assert node.get("pattern") == known.get("pattern"), path
    assert node.get("enum") == choices(annotation), path

    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        inner, inner_bounds, optional = unwrap(arguments[0])
        assert not optional, path
        assert_same(node["items"], inner, inner_bounds, path=f"{path}[]")
    elif origin is dict and arguments[1] is Any:
        assert node[PRESERVE] is True, path
        assert "additionalProperties" not in node, path
    elif origin is dict:
        inner, inner_bounds, _ = unwrap(arguments[1])
        assert_same(node["additionalProperties"], inner, inner_bounds, path=f"{path}{{}}")
        _, keys, _ = unwrap(arguments[0])
        (rule,) = node[RULES]
        assert f"size(key) <= {keys.known['max_length']} " in rule["rule"], path
        assert f"matches('{keys.known['pattern']}')" in rule["rule"], path
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias: field for field in annotation.model_fields.values()}
        assert list(node["properties"]) == list(fields), path
        assert node.get("required", []) == [name for name, field in fields.items() if field.is_required()], (
            path
        )
        rules = [rule.dump() for rule in getattr(annotation, "rules", ())]
        assert node.get(RULES, []) == rules, path
        for name, field in fields.items():
            inner, inner_bounds, optional = field_of(field)
            assert not (optional and field.is_required()), f"{path}.{name} may be null, which isn't stored"
            assert_same(node["properties"][name], inner, inner_bounds, path=f"{path}.{name}")


def expected_type(annotation: Any) -> str:
    if choices(annotation) or annotation is str:
        return "string"
    if typing.get_origin(annotation) is list:
        return "array"
    return {bool: "boolean", int: "integer"}.get(annotation, "object")


def choices(annotation: Any) -> list[str] | None:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    return None


# ---------------------------------------------------------------------------------------------------- every field


@pytest.mark.parametrize("node", NODES)
def test_everything_is_bounded(node):
    """Rules have a cost budget, and one object must not fill the API server's memory."""
    match node.get("type"):
        case "string":
            assert "enum" in node or 0 < node["maxLength"] <= 32768
        case "array":
            assert 0 < node["maxItems"] <= 128
            assert "items" in node
        case "object" if "properties" not in node:
            assert 0 < node["maxProperties"] <= 1024
        case "integer":
            assert node["format"] in {"int32", "int64"}
            assert (node["format"] == "int32") == ("maximum" in node)


@pytest.mark.parametrize("node", NODES)
def test_structural_and_without_defaults(node):
    """A default that the API server adds looks like a change to GitOps tools."""
    allowed = {*crd._KEPT, "properties", "required", "items", "additionalProperties", PRESERVE, RULES}
    assert node.keys() <= allowed
    assert "properties" not in node or PRESERVE not in node


@pytest.mark.parametrize("node", NODES)
def test_every_field_is_described_by_its_name(node):
    for name, child in node.get("properties", {}).items():
        assert child["description"].split()[0].rstrip(":,.") == name
        assert child["description"].rstrip().endswith((".", ")"))


@pytest.mark.parametrize("node", NODES)
def test_rules_say_what_is_wrong_and_where(node):
    for rule in node.get(RULES, []):
        assert rule["message"]
        assert "\n" not in rule["rule"] + rule["message"]
        field = rule.get("fieldPath", "").removeprefix(".")
        assert not field or field in node["properties"]


@pytest.mark.parametrize("kind", MODELS)
def test_print_columns_show_what_is_there(kind):
    """A path with a typing error prints an empty column for ever."""
    root = version(kind)["schema"]["openAPIV3Schema"]
    columns = version(kind)["additionalPrinterColumns"]
    assert columns[-1]["name"] == "Age"
    for column in columns:
        assert column["description"]
        if column["name"] == "Age":
            continue
        node = root
        for step in column["jsonPath"].split("[?")[0].removeprefix(".").replace("[0]", ".0").split("."):
            node = node["items"] if step == "0" else node["properties"][step]
        if "[?" in column["jsonPath"]:
            node = node["items"]["properties"][column["jsonPath"].rpartition(".")[2]]
            assert any(f'"{member}"' in column["jsonPath"] for member in ConditionType)
        assert node["type"] == column["type"]


# ------------------------------------------------------------------------------------- what is written is what is kept


def prune(node: dict[str, Any], value: Any) -> Any:
    """Drop what the API server would drop: every field that the schema doesn't name."""
    if node.get(PRESERVE):
        return value
    if isinstance(value, list):
        return [prune(node["items"], each) for each in value]
    if isinstance(value, dict):
        if "additionalProperties" in node:
            return {key: prune(node["additionalProperties"], each) for key, each in value.items()}
        return {
            key: prune(node["properties"][key], each)
            for key, each in value.items()
            if key in node["properties"]
        }
    return value


FORMATS = jsonschema.FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value: object) -> bool:
    """As the API server has it: RFC 3339, with a zone. (jsonschema itself checks it only with another package.)"""
    return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None


def assert_kept(kind: str, part: str, value: dict[str, Any]) -> None:
    node = schema(kind, part)
    before = copy.deepcopy(value)
    assert prune(node, value) == before
    jsonschema.Draft202012Validator(node, format_checker=FORMATS).validate(value)


def kept_for_any(kind: str, part: str) -> None:
    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(instances(MODELS[kind][part]))
    def check(value):
        written = value.dump()
        assert_kept(kind, part, written)
        # Read back, it is what it was: nothing is renamed, rounded or lost on the way.
        assert MODELS[kind][part].model_validate(written).dump() == written

    check()


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_any_instance_survives(kind, part):
    kept_for_any(kind, part)


def test_the_test_would_notice():
    """A field that the schema doesn't know is pruned, and a text that is too long is refused."""
    with pytest.raises(AssertionError):
        assert_kept(task.KIND, "status", {"jobID": "a"})
    with pytest.raises(jsonschema.ValidationError):
        assert_kept(task.KIND, "status", {"endReason": "a" * 129})
    with pytest.raises(jsonschema.ValidationError):
        assert_kept(task.KIND, "status", {"expiresAt": "tomorrow"})


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_fits_a_condition_and_an_end(reason, now):
    for word in (reason, reason.about("imageEnvs"), reason.about("ttlSecondsAfterFinished")):
        conditions = set_condition(
            [], type=ConditionType.READY, status=None, reason=word, generation=1, now=now
        )
        status = task.TaskStatus(conditions=conditions, end_reason=word).dump()
        assert_kept(task.KIND, "status", status)


def test_every_condition_type_at_once_with_the_longest_message(now):
    conditions: list[Any] = []
    for type_ in ConditionType:
        conditions = set_condition(
            conditions,
            type=type_,
            status=True,
            reason=Reason.RUNNING,
            message="ü" * (2 * MESSAGE_LIMIT),
            generation=2**40,
            now=now,
        )
    for kind, model in ((source.KIND, source.SourceStatus), (task.KIND, task.TaskStatus)):
        assert_kept(kind, "status", model(conditions=conditions).dump())


def test_findings_that_quote_a_hostile_file():
    """Texts are cut rather than refused: a status that can't be written would hide every finding."""
    finding = Finding(
        severity=Severity.ERROR,
        reason="Privileged",
        path="a" * 9999,
        line=1,
        message="b" * 9999,
        advice="c" * 9999,
    )
    entry = source.EnvironmentStatus(
        name=source.Environment.CPU, message="d" * 9999, findings=[finding] * source.STATUS_FINDINGS
    )
    status = source.SourceStatus(environments=[entry], reconcile_requested_at="e" * 9999).dump()
    assert_kept(source.KIND, "status", status)
    assert status["environments"][0]["findings"][0]["message"].endswith("b…")


# ------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_are_read_in_full(file):
    """The operator sees every field of an example; none is misspelt in the model."""
    found = 0
    for document in yaml.safe_load_all(file.read_text()):
        if document["kind"] in MODELS:
            found += 1
            assert_kept(document["kind"], "spec", document["spec"])
            model = MODELS[document["kind"]]["spec"]
            read = model.model_validate(document["spec"])
            assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == document["spec"]
    assert found


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_refer_to_what_is_there(file):
    """A ConfigMap, Secret or source that an example names is in it, or in one that it says it needs."""
    text = file.read_text()
    needed = [other for other in EXAMPLES if other == file or f"Needs {other.name}" in text]
    there = {
        (document["kind"], document["metadata"]["name"]): document
        for other in needed
        for document in yaml.safe_load_all(other.read_text())
    }

    def check(value: Any) -> None:
        if isinstance(value, list):
            for each in value:
                check(each)
        elif isinstance(value, dict):
            for key, each in value.items():
                if key in {"configMapKeyRef", "secretKeyRef"}:
                    found = there["ConfigMap" if key == "configMapKeyRef" else "Secret", each["name"]]
                    assert each["key"] in found.get("data", found.get("stringData"))
                elif key == "sourceRef":
                    assert (source.KIND, each["name"]) in there
                else:
                    check(each)

    for document in yaml.safe_load_all(text):
        if document["kind"] in MODELS:
            check(document["spec"])

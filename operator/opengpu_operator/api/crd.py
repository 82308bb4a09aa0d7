"""Generates the CustomResourceDefinitions from the models, so that there is one source of truth.

Nothing at run time imports this.

A CRD wants a *structural* schema, which is JSON Schema without references, ``null`` or alternatives. Whatever
keyword pydantic emits that isn't understood here is an error rather than left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import BaseModel

from opengpu_operator.api import labels, source, task
from opengpu_operator.api.meta import RULES, Rule

Schema = dict[str, Any]

_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
#: What may stay as it is, in the order in which it is written.
_KEPT: Final = (
    "description",
    "type",
    "format",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "maxItems",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
#: What has no place in a structural schema: defaults are the code's, since those that the API server adds look like
#: changes to GitOps tools; titles repeat the names.
_DROPPED: Final = frozenset({"title", "default"})
#: What is turned into something else.
_TRANSLATED: Final = frozenset(
    {
        "properties",
        "required",
        "items",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        RULES,
        "$defs",
    }
)
_INT32: Final = 2**31 - 1


class NotStructuralError(ValueError):
    """A model says something that a CRD can't."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of ``kubectl get``."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    """Only with ``-o wide``."""
    description: str

    def dump(self) -> Schema:
        """Return it as an entry of ``additionalPrinterColumns``."""
        wide = {"priority": 1} if self.wide else {}
        return {
            "name": self.name,
            "type": self.type,
            "description": self.description,
            "jsonPath": self.path,
            **wide,
        }


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One kind."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    model: type[BaseModel]
    """The whole object, with the fields ``spec`` and ``status``."""
    columns: tuple[Column, ...]

    @property
    def file_name(self) -> str:
        """The name of the file that holds the definition."""
        return f"{labels.GROUP}_{self.plural}.yaml"

    @property
    def description(self) -> str:
        """What the kind is for."""
        return _text(self.model.__doc__ or "")

    def part(self, name: str) -> Schema:
        """Return the structural schema of ``spec`` or ``status``."""
        model = self.model.model_fields[name].annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise NotStructuralError(f"{self.kind}.{name} is not a model")
        return structural(model)


_AGE: Final = Column(
    name="Age",
    type="date",
    path=".metadata.creationTimestamp",
    description="Time since the object was created.",
)


def _condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


DEFINITIONS: Final = (
    Definition(
        kind=source.KIND,
        plural=source.PLURAL,
        singular="opengpusource",
        short_names=("ogs",),
        model=source.Source,
        columns=(
            Column(
                name="Ready",
                path=_condition("Ready", "status"),
                description="Whether tasks can use the source.",
            ),
            Column(name="Offered", path=".status.offered", description="Environments that are ready."),
            Column(
                name="Tasks",
                type="integer",
                path=".status.activeTasks",
                description="Tasks that have not ended.",
            ),
            Column(
                name="Reason",
                wide=True,
                path=_condition("Ready", "reason"),
                description="Why it is ready or not.",
            ),
            Column(
                name="Delivery",
                wide=True,
                path=".spec.deliveryMethod",
                description="When an answer is final.",
            ),
            _AGE,
        ),
    ),
    Definition(
        kind=task.KIND,
        plural=task.PLURAL,
        singular="opengputask",
        short_names=("ogt",),
        model=task.Task,
        columns=(
            Column(name="Source", path=".spec.sourceRef.name", description="The source that the task runs."),
            Column(name="Env", path=".status.environment", description="The environment that was chosen."),
            Column(name="Status", path=".status.taskStatus", description="The state in OpenGPU's words."),
            Column(
                name="Reason",
                path=_condition("Ready", "reason"),
                description="What the task waits for or does.",
            ),
            Column(
                name="GPUs", type="integer", path=".status.gpus", description="GPUs that the task asks for."
            ),
            Column(
                name="Attempts",
                type="integer",
                wide=True,
                path=".status.attempts",
                description="How often it was tried.",
            ),
            Column(name="URL", path=".status.urls[0].url", description="Where its first port is reached."),
            Column(
                name="Cftunnel", wide=True, path=".status.cftunnel", description="URL of a Cloudflare tunnel."
            ),
            _AGE,
        ),
    ),
)


def structural(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), where=model.__name__)


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Schema], *, where: str) -> Schema:
    schema = _flat(schema, definitions, where=where)
    unknown = schema.keys() - set(_KEPT) - _DROPPED - _TRANSLATED
    if unknown:
        raise NotStructuralError(f"{where}: no place in a CRD for {', '.join(sorted(unknown))}")
    result: Schema = {key: schema[key] for key in _KEPT if key in schema}
    if "description" in result:
        result["description"] = _text(result["description"])
    if schema.get("type") == "integer":
        result["format"] = "int32" if schema.get("maximum", _INT32 + 1) <= _INT32 else "int64"
    if "items" in schema:
        result["items"] = _convert(schema["items"], definitions, where=f"{where}[]")
    if "properties" in schema:
        result["properties"] = {
            name: _convert(value, definitions, where=f"{where}.{name}")
            for name, value in schema["properties"].items()
        }
        if schema.get("required"):
            result["required"] = list(schema["required"])
    rules = list(schema.get(RULES, []))
    if "type" not in schema or schema.get("additionalProperties") is True:
        # Anything at all, or an object of unknown shape.
        result[_PRESERVE] = True
    elif schema["type"] == "object" and "properties" not in schema:
        values, rule = _map(schema, where=where)
        result["additionalProperties"] = _convert(values, definitions, where=f"{where}{{}}")
        rules.append(rule.dump())
    if rules:
        result[RULES] = rules
    return result


def _flat(schema: Mapping[str, Any], definitions: Mapping[str, Schema], *, where: str) -> Schema:
    """Resolve references, and what may be null becomes what may be absent."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return _flat(
            {**target, **{key: schema[key] for key in schema if key != "$ref"}}, definitions, where=where
        )
    if "anyOf" in schema:
        given = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
        if len(given) != 1:
            raise NotStructuralError(f"{where}: a CRD has no alternatives")
        return _flat(
            {**given[0], **{key: schema[key] for key in schema if key != "anyOf"}}, definitions, where=where
        )
    return dict(schema)


def _map(schema: Schema, *, where: str) -> tuple[Schema, Rule]:
    """Return the values' schema, and what JSON Schema says of the keys as a rule, since a CRD has no word for it."""
    patterns: Schema = schema.get("patternProperties", {})
    length = schema.get("propertyNames", {}).get("maxLength")
    if len(patterns) != 1 or length is None:
        raise NotStructuralError(f"{where}: a map's keys need a pattern and a maximum length")
    ((pattern, values),) = patterns.items()
    if "'" in pattern or "\\" in pattern:
        raise NotStructuralError(f"{where}: the keys' pattern needs quoting, which isn't done here")
    return values, Rule(
        f"self.all(key, size(key) <= {length} && key.matches('{pattern}'))",
        f"keys must have at most {length} characters and match {pattern}",
    )


def _text(text: str) -> str:
    """Return a docstring's text without the source's line breaks and markup."""
    return " ".join(text.split()).replace("``", "`")


def definition(kind: Definition) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{labels.GROUP}"},
        "spec": {
            "group": labels.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": ["opengpu"],
            },
            "versions": [
                {
                    "name": labels.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.dump() for column in kind.columns],
                    "schema": {
                        "openAPIV3Schema": {
                            "description": kind.description,
                            "type": "object",
                            "properties": {
                                "apiVersion": {
                                    "description": "apiVersion is the version of this representation of the object.",
                                    "type": "string",
                                },
                                "kind": {"description": "kind of the object.", "type": "string"},
                                "metadata": {"type": "object"},
                                "spec": kind.part("spec"),
                                "status": kind.part("status"),
                            },
                            "required": ["spec"],
                        }
                    },
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes lists indented under their key, and no anchors for what occurs twice."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def render(kind: Definition) -> str:
    """Return the file that defines a kind."""
    body = yaml.dump(definition(kind), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return f"# Generated by `make generate` from operator/opengpu_operator/api; change the models instead.\n{body}"

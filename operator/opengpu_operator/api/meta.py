"""What the models of the kinds share: names, amounts, references, and rules that the API server checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

#: Keyword of a structural schema for rules in CEL (https://kubernetes.io/docs/reference/using-api/cel/).
RULES: Final = "x-kubernetes-validations"
#: Lists whose entries have a name: at most one of each, and two appliers can each own their entries.
BY_NAME: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
#: Conditions, which are told apart by their type.
BY_TYPE: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
#: Lists of plain values, each at most once.
UNIQUE: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}

#: A DNS-1123 label, the form of most names.
Label = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
#: A DNS-1123 subdomain, the form of object names.
ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
#: An amount of the network's native coin in wei, as a decimal string (it exceeds what JSON numbers hold).
Wei = Annotated[str, Field(max_length=78, pattern=r"^(0|[1-9][0-9]*)$")]
#: A Kubernetes quantity above zero; the API server checks it in full where it ends up in a child.
Quantity = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
        json_schema_extra={
            RULES: [
                {
                    "rule": "quantity(self).isGreaterThan(quantity('0'))",
                    "message": "must be more than 0",
                    "reason": "FieldValueInvalid",
                }
            ]
        },
    ),
]
#: Name of an environment variable.
EnvName = Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
#: A service's name in a Compose file.
ServiceName = Annotated[str, Field(max_length=128, pattern=r"^[a-zA-Z0-9._-]+$")]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$", max_length=42)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
#: The digest of a file.
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
#: A time as Kubernetes writes it, see :func:`~opengpu_operator.api.conditions.timestamp`.
Timestamp = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]


def cut_to(limit: int) -> BeforeValidator:
    """Return a validator that cuts a text to ``limit`` characters instead of refusing it.

    For texts that quote what others wrote (file names, keys, errors of other programs): a status that the API server
    refuses for its length would hide all of it.
    """

    def cut(value: object) -> object:
        return value[: limit - 1] + "…" if isinstance(value, str) and len(value) > limit else value

    return BeforeValidator(cut)


@dataclass(frozen=True)
class Rule:
    """A rule that the API server checks on every write, besides types and bounds."""

    cel: str
    """The expression; ``self`` is the object that the rule is attached to."""
    message: str
    """What is wrong, and what would be right."""
    path: str | None = None
    """Which field of ``self`` is to blame: ``.ports``. None: the object as a whole."""
    reason: Literal[
        "FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"
    ] = "FieldValueInvalid"

    def dump(self) -> dict[str, str]:
        """Return it as an entry of :data:`RULES`."""
        where = {} if self.path is None else {"fieldPath": self.path}
        return {"rule": self.cel, "message": self.message, **where, "reason": self.reason}


def immutable(*fields: str) -> tuple[Rule, ...]:
    """Return rules by which fields can be neither changed, nor added, nor removed after creation.

    They belong to the parent of the fields: a transition rule on an optional field itself is not evaluated when the
    field comes or goes.
    """
    return tuple(
        Rule(
            f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
            f"{field} can't be changed after creation; make a new object instead",
            path=f".{field}",
            reason="FieldValueForbidden",
        )
        for field in fields
    )


class Model(BaseModel):
    """A part of a spec or status: camelCase outside, snake_case inside; unknown fields are ignored.

    They are ignored because the API server has pruned what the schema doesn't know, and an object written through a
    newer schema must still be readable after a downgrade.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", use_attribute_docstrings=True
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What the API server checks besides types and bounds. The operator relies on it only for objects that were
    written since the rule exists."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Put the rules into the schema."""
        result = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            result[RULES] = [rule.dump() for rule in cls.rules]
        return result

    def dump(self) -> dict[str, Any]:
        """Return it as the API server has it: camelCase, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Meta(Model):
    """What we read of an object's metadata."""

    name: str
    namespace: str
    uid: str
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    finalizers: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class LocalKey(Model):
    """A key of a ConfigMap or Secret in the same namespace."""

    name: ObjectName
    """name of the ConfigMap or Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """key in its data."""


class LocalReference(Model):
    """Another object of the same namespace."""

    name: ObjectName
    """name of the object."""

"""Any instance of a model, from its own types and bounds, for tests that hold for all of them."""

import types
import typing
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import annotated_types
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from opengpu_operator.api.conditions import timestamp

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e6, 1e6).map(lambda x: x + 0.5)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)


class Bounds:
    """What is said of a type besides the type: lengths, limits, pattern, and how a list is merged."""

    def __init__(self, metadata: typing.Iterable[Any]) -> None:
        self.known: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        for entry in metadata:
            if isinstance(entry, FieldInfo):
                inner = Bounds(entry.metadata)
                self.known |= inner.known
                self.extra |= entry.json_schema_extra if isinstance(entry.json_schema_extra, dict) else {}
            elif isinstance(entry, annotated_types.MaxLen):
                self.known["max_length"] = entry.max_length
            elif isinstance(entry, annotated_types.MinLen):
                self.known["min_length"] = entry.min_length
            elif isinstance(entry, annotated_types.Ge):
                self.known["ge"] = entry.ge
            elif isinstance(entry, annotated_types.Le):
                self.known["le"] = entry.le
            elif getattr(entry, "pattern", None):
                self.known["pattern"] = entry.pattern


def unwrap(annotation: Any, metadata: typing.Iterable[Any] = ()) -> tuple[Any, Bounds, bool]:
    """Return the bare type, its bounds and whether it may be None."""
    collected, optional = list(metadata), False
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *more = typing.get_args(annotation)
            collected += more
        elif typing.get_origin(annotation) in {typing.Union, types.UnionType}:
            (annotation,) = (each for each in typing.get_args(annotation) if each is not type(None))
            optional = True
        else:
            return annotation, Bounds(collected), optional


def field_of(field: FieldInfo) -> tuple[Any, Bounds, bool]:
    """Return the same of a model's field."""
    extra = [field] if field.json_schema_extra else []
    return unwrap(field.annotation, [*field.metadata, *extra])


def instances(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return any instance of ``model``; what may be absent sometimes is."""
    return st.builds(
        model,
        **{field.alias or name: _values(*field_of(field)) for name, field in model.model_fields.items()},
    )


def _values(kind: Any, bounds: Bounds, optional: bool) -> st.SearchStrategy[Any]:
    values = _some(kind, bounds)
    return st.none() | values if optional else values


def _some(kind: Any, bounds: Bounds) -> st.SearchStrategy[Any]:
    if kind is Any:
        return JSON
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(bounds.known.get("ge", -(2**63)), bounds.known.get("le", 2**63 - 1))
    if kind is str:
        return _texts(bounds)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return _lists(unwrap(typing.get_args(kind)[0]), bounds)
    if typing.get_origin(kind) is dict:
        keys, values = typing.get_args(kind)
        if values is Any:
            return OBJECTS
        return st.dictionaries(_values(*unwrap(keys)), _values(*unwrap(values)), max_size=3)
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    return instances(kind)


def _lists(items: tuple[Any, Bounds, bool], bounds: Bounds) -> st.SearchStrategy[Any]:
    most = min(3, bounds.known["max_length"])
    keys = bounds.extra.get("x-kubernetes-list-map-keys")
    if keys:
        return st.lists(_values(*items), max_size=most, unique_by=lambda entry: getattr(entry, keys[0]))
    return st.lists(
        _values(*items), max_size=most, unique=bounds.extra.get("x-kubernetes-list-type") == "set"
    )


def _texts(bounds: Bounds) -> st.SearchStrategy[str]:
    least, most = bounds.known.get("min_length", 0), bounds.known["max_length"]
    if bounds.extra.get("format") == "date-time":
        seconds = st.integers(0, 2**31 - 1)
        return seconds.map(lambda passed: timestamp(datetime.fromtimestamp(passed, UTC)))
    if "pattern" in bounds.known:
        texts = st.from_regex(bounds.known["pattern"], fullmatch=True)
        return texts.filter(lambda text: least <= len(text) <= most)
    # Now and then as long as can be, in characters of several bytes.
    return st.text(min_size=least, max_size=min(most, 20)) | st.just("ü" * most)

"""Interpolation against a model that is written another way: over a syntax tree instead of over text."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengpu_operator.compose.interpolate import RequiredError, TemplateError, substitute

NAMES = ("A", "B_1", "_c", "UNSET", "EMPTY")
VARIABLES = {"A": "alpha", "B_1": "b$A}", "_c": "${A}", "EMPTY": ""}


class Text(NamedTuple):
    value: str


class Reference(NamedTuple):
    name: str
    operator: str
    word: tuple[object, ...]
    braces: bool


OPERATORS = st.sampled_from([":-", "-", ":+", "+", ":?", "?"])
texts = st.text(
    st.characters(codec="utf-8", exclude_characters="${}", exclude_categories=["Cs"]), max_size=8
).map(Text)
plain = st.builds(Reference, st.sampled_from(NAMES), st.just(""), st.just(()), st.booleans())
templates = st.recursive(
    st.lists(texts | plain | st.just(Text("$")), max_size=3).map(tuple),
    lambda inner: st.lists(
        texts | plain | st.builds(Reference, st.sampled_from(NAMES), OPERATORS, inner, st.just(True)),
        max_size=3,
    ).map(tuple),
    max_leaves=6,
)


def written(template: tuple[object, ...]) -> str:
    text = ""
    for part in reversed(template):
        if isinstance(part, Text):
            text = part.value.replace("$", "$$") + text
        elif isinstance(part, Reference):
            bare = not part.braces and not (text[:1].isascii() and (text[:1].isalnum() or text[:1] == "_"))
            text = (
                f"${part.name}" if bare else f"${{{part.name}{part.operator}{written(part.word)}}}"
            ) + text
    return text


def meant(template: tuple[object, ...]) -> str:
    parts = []
    for part in template:
        if isinstance(part, Text):
            parts.append(part.value)
        elif isinstance(part, Reference):
            parts.append(value_of(part))
    return "".join(parts)


def value_of(reference: Reference) -> str:
    value = VARIABLES.get(reference.name)
    usable = bool(value) if reference.operator.startswith(":") else value is not None
    kind = reference.operator[-1:]
    if kind == "":
        return value or ""
    if kind == "+":
        return meant(reference.word) if usable else ""
    if usable:
        assert value is not None
        return value
    if kind == "?":
        raise LookupError(reference.name)
    return meant(reference.word)


@settings(max_examples=500)
@given(templates)
def test_against_the_model(template: tuple[object, ...]) -> None:
    text = written(template)
    try:
        expected = meant(template)
    except LookupError:
        with pytest.raises(RequiredError):
            substitute(text, VARIABLES, unset=lambda name: None)
    else:
        assert substitute(text, VARIABLES, unset=lambda name: None) == expected


@settings(max_examples=500)
@given(st.text(alphabet="${}:-+?Ab_1 (", max_size=40))
def test_any_text(text: str) -> None:
    seen: list[str] = []
    try:
        result = substitute(text, VARIABLES, unset=seen.append)
    except (TemplateError, RequiredError):
        return
    assert all(name not in VARIABLES for name in seen)
    if "$" not in text:
        assert result == text

"""Compose's variables: every form of ``$NAME`` and ``${NAME…}``, from a given mapping and from nothing else.

What Compose leaves alone stays as it is: a ``$`` that starts no name (``$(date)``, ``$2a``, a last ``$``) is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from opengpu_operator.compose.findings import FindingReason, Path, Report, clip

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Pairs of dollar signs, a brace, a name, or none of them.
_DOLLAR: Final = re.compile(rf"\$(?:(\$(?:\$\$)*)|({{)|({_NAME.pattern}))?")
_BRACE: Final = re.compile(r"[{}]")
_OPERATOR: Final = re.compile(r":?[-+?]")
#: Expanding nested defaults costs a level of recursion each.
_MAX_NESTING: Final = 16
#: A value that grew beyond this is no longer a setting.
_MAX_LENGTH: Final = 256 * 1024


class TemplateError(ValueError):
    """A reference that Compose would refuse."""


class RequiredError(ValueError):
    """A variable that the file requires (``${NAME:?why}``) isn't set."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name
        self.why = why


class Unset(Protocol):
    """Is told of every variable that was needed and isn't set."""

    def __call__(self, name: str, /) -> None:
        """Hear of one."""


def substitute(template: str, variables: Mapping[str, str], *, unset: Unset) -> str:
    """Return ``template`` with its references replaced."""
    return _Template(template, variables, unset).expand(0, len(template), depth=0)


class _Template:
    """A text with references; its braces are paired once, so that deep nesting costs no more than flat text."""

    def __init__(self, text: str, variables: Mapping[str, str], unset: Unset) -> None:
        self._text = text
        self._variables = variables
        self._unset = unset
        self._closing: dict[int, int] = {}
        opened: list[int] = []
        for brace in _BRACE.finditer(text):
            if brace.group() == "{":
                opened.append(brace.start())
            elif opened:
                self._closing[opened.pop()] = brace.start()

    def expand(self, position: int, end: int, *, depth: int) -> str:
        """Return a part of the text with its references replaced."""
        if depth > _MAX_NESTING:
            msg = "references are nested too deeply"
            raise TemplateError(msg)
        parts: list[str] = []
        while match := _DOLLAR.search(self._text, position, end):
            parts.append(self._text[position : match.start()])
            position = match.end()
            escaped, brace, name = match.groups()
            if escaped:
                parts.append("$" * ((len(escaped) + 1) // 2))
            elif brace:
                text, position = self._braced(match.start(), depth=depth)
                parts.append(text)
            else:
                parts.append(self._value(name) if name else "$")
        parts.append(self._text[position:end])
        result = "".join(parts)
        if len(result) > _MAX_LENGTH:
            msg = "the value becomes too long"
            raise TemplateError(msg)
        return result

    def _value(self, name: str) -> str:
        if name not in self._variables:
            self._unset(name)
        return self._variables.get(name, "")

    def _braced(self, dollar: int, *, depth: int) -> tuple[str, int]:
        """Return what ``${…}`` at ``dollar`` becomes, and where the text goes on."""
        end = self._closing.get(dollar + 1, -1)
        match = _NAME.match(self._text, dollar + 2)
        if end < 0 or match is None or match.end() > end:
            msg = f"{clip(self._text[dollar : dollar + 40])} is no reference"
            raise TemplateError(msg)
        name = match.group()
        if match.end() == end:
            return self._value(name), end + 1
        operator = _OPERATOR.match(self._text, match.end(), end)
        if operator is None:
            msg = f"{clip(self._text[dollar : end + 1])} is no reference"
            raise TemplateError(msg)
        value = self._variables.get(name)
        present = value is not None and (value != "" or not operator.group().startswith(":"))

        def word() -> str:
            return self.expand(operator.end(), end, depth=depth + 1)

        match operator.group()[-1]:
            case "-":
                text = value or "" if present else word()
            case "+":
                text = word() if present else ""
            case _:
                if not present:
                    raise RequiredError(name, word())
                text = value or ""
        return text, end + 1


def interpolate(data: Any, variables: Mapping[str, str], report: Report) -> Any:
    """Return a file's data with every string substituted; what is wrong or unset goes to ``report``."""
    return _Walk(variables, report).visit(data, ())


class _Walk:
    def __init__(self, variables: Mapping[str, str], report: Report) -> None:
        self._variables = variables
        self._report = report
        self._told: set[str] = set()

    def visit(self, data: Any, path: Path) -> Any:
        if isinstance(data, str):
            return self._text(data, path) if "$" in data else data
        if isinstance(data, dict):
            return {key: self.visit(value, (*path, key)) for key, value in data.items()}
        if isinstance(data, list):
            return [self.visit(value, (*path, index)) for index, value in enumerate(data)]
        return data

    def _text(self, text: str, path: Path) -> str:
        def unset(name: str, /) -> None:
            if name not in self._told:
                self._told.add(name)
                self._report.add(
                    FindingReason.VARIABLE_UNSET, path, f"The variable {clip(name)} is not set; it is empty."
                )

        try:
            return substitute(text, self._variables, unset=unset)
        except RequiredError as error:
            why = f": {clip(error.why)}" if error.why else ""
            self._report.add(
                FindingReason.VARIABLE_REQUIRED,
                path,
                f"The file requires the variable {clip(error.name)}, which is not set{why}.",
            )
        except TemplateError as error:
            self._report.add(
                FindingReason.BAD_INTERPOLATION, path, f"A variable reference can't be understood: {error}."
            )
        return ""

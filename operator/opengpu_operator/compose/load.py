"""Turn the text of a stranger into plain data, within limits, remembering where each value stands.

The walk is over libyaml's events, before anything is built: aliases are counted at their expanded size, so that a
bomb of a few hundred bytes is refused instead of filling the memory. Scalars are read as Compose's own library
(YAML 1.2) reads them, not as PyYAML (YAML 1.1) would: ``no`` is a string, ``22:22`` is not a number.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from opengpu_operator.compose.findings import FindingReason, Path, Report, clip

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 64
MAX_NODES: Final = 10_000
MAX_ALIASES: Final = 500
#: All text of the file once its aliases are expanded.
MAX_TEXT: Final = 512 * 1024

_INTEGER: Final = re.compile(r"[-+]?(0b[01]+|0o?[0-7]+|0x[0-9a-fA-F]+|[0-9]+)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
#: Numbers longer than this are text: converting them costs more than reading them is worth.
_MAX_DIGITS: Final = 64
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_INFINITE: Final = {
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_PREFIX: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(
    {
        "!",
        "!override",
        *(_PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")),
    }
)
_BOM: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


@dataclass(frozen=True)
class Document:
    """A file's data, and the line and column of every value in it."""

    data: Any
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)
    replaced: frozenset[Path] = frozenset()
    """Where ``!reset`` and ``!override`` stand: what is merged there is forgotten."""


@dataclass(slots=True)
class _Node:
    """A node that was read; ``size``, ``text`` and ``depth`` are those of its whole expanded tree."""

    line: int
    column: int
    tag: str | None
    value: Any
    """A scalar's text, a list of nodes, or a list of (key, value) pairs of nodes."""
    kind: str
    plain: bool = False
    size: int = 1
    text: int = 0
    depth: int = 1


class _LimitError(Exception):
    def __init__(self, reason: FindingReason, mark: Any, *, message: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message
        self.at = (mark.line + 1, mark.column + 1)


def decode(text: bytes | str, report: Report) -> str | None:
    """Return the text of a file, or None where it is too large or no UTF-8 text."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        report.add(FindingReason.TOO_LARGE)
        return None
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError:
        report.add(FindingReason.BAD_ENCODING)
        return None
    decoded = decoded.removeprefix(_BOM)
    control = _CONTROL.search(decoded)
    if control is not None:
        line = decoded.count("\n", 0, control.start()) + 1
        report.add(
            FindingReason.BAD_ENCODING,
            message=f"The file contains the control character U+{ord(control.group()):04X}.",
            at=(line, control.start() - decoded.rfind("\n", 0, control.start())),
        )
        return None
    return decoded


def load(text: str, report: Report) -> Document | None:
    """Return the data of a file that :func:`decode` let pass, or None with the reason in ``report``."""
    try:
        root = _Composer(text).compose()
    except _LimitError as error:
        report.add(error.reason, message=error.message, at=error.at)
        return None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or "the text can't be read"
        report.add(
            FindingReason.BAD_YAML,
            message=f"The file is not valid YAML: {clip(problem)}.",
            at=(mark.line + 1, mark.column + 1) if mark else None,
        )
        return None
    if root is None:
        return Document(None)
    builder = _Builder(report)
    data = builder.build(root, ())
    return Document(None if data is _LEFT_OUT else data, builder.positions, frozenset(builder.replaced))


class _Composer:
    """Reads events into nodes and keeps the limits."""

    def __init__(self, text: str) -> None:
        self._events = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._anchors: dict[str, _Node] = {}
        self._aliases = 0
        self._nodes = 0

    def compose(self) -> _Node | None:
        root: _Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _LimitError(FindingReason.MULTIPLE_DOCUMENTS, event.start_mark)
                self._anchors.clear()
                root = self._node(next(self._events), depth=1)
        return root

    def _node(self, event: Any, *, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise _LimitError(FindingReason.TOO_DEEP, event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth=depth)
        # Already while reading: lists in lists are added up only when they end.
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _LimitError(FindingReason.TOO_MANY_NODES, event.start_mark)
        mark = event.start_mark
        node = _Node(line=mark.line + 1, column=mark.column + 1, tag=event.tag, value=None, kind="scalar")
        if isinstance(event, yaml.ScalarEvent):
            if "\0" in event.value:
                # Escaped in quotes; no program, variable or path can hold it.
                message = "The file contains the control character U+0000."
                raise _LimitError(FindingReason.BAD_ENCODING, mark, message=message)
            node.value = event.value
            node.text = len(event.value)
            node.plain = event.style is None or event.style == ""
        elif isinstance(event, yaml.SequenceStartEvent):
            node.kind = "list"
            node.value = []
            while not isinstance(child := next(self._events), yaml.SequenceEndEvent):
                item = self._node(child, depth=depth + 1)
                self._grow(node, item, child)
                node.value.append(item)
        else:
            node.kind = "map"
            node.value = []
            while not isinstance(child := next(self._events), yaml.MappingEndEvent):
                key = self._node(child, depth=depth + 1)
                value = self._node(next(self._events), depth=depth + 1)
                self._grow(node, key, child)
                self._grow(node, value, child)
                node.value.append((key, value))
        if event.anchor is not None:
            # Only now: an alias inside of its own anchor finds nothing, so no data can contain itself.
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, *, depth: int) -> _Node:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _LimitError(FindingReason.TOO_MANY_ALIASES, event.start_mark)
        node = self._anchors.get(event.anchor)
        if node is None:
            raise yaml.composer.ComposerError(None, None, "an alias refers to no anchor", event.start_mark)
        if depth + node.depth - 1 > MAX_DEPTH:
            raise _LimitError(FindingReason.TOO_DEEP, event.start_mark)
        return node

    @staticmethod
    def _grow(parent: _Node, child: _Node, event: Any) -> None:
        parent.size += child.size
        parent.text += child.text
        parent.depth = max(parent.depth, child.depth + 1)
        if parent.size > MAX_NODES:
            raise _LimitError(FindingReason.TOO_MANY_NODES, event.start_mark)
        if parent.text > MAX_TEXT:
            message = f"The file has more than {MAX_TEXT // 1024} KiB of text once its aliases are expanded."
            raise _LimitError(FindingReason.TOO_MANY_NODES, event.start_mark, message=message)


_LEFT_OUT: Final = object()
"""Stands for a value tagged ``!reset``, or in a way that can't be read: the key is left out."""


class _Builder:
    """Makes plain data of nodes."""

    def __init__(self, report: Report) -> None:
        self.positions: dict[Path, tuple[int, int]] = {}
        self.replaced: set[Path] = set()
        self._report = report

    def build(self, node: _Node, path: Path) -> Any:
        self.positions.setdefault(path, (node.line, node.column))
        tag = node.tag
        if tag in ("!reset", "!override"):
            self.replaced.add(path)
        if tag == "!reset":
            return _LEFT_OUT
        if tag is not None and tag not in _TAGS:
            self._report.add(
                FindingReason.BAD_YAML,
                path,
                f"Compose doesn't know the YAML tag {clip(tag)}.",
                at=(node.line, node.column),
            )
            return _LEFT_OUT
        if node.kind == "list":
            items = (self.build(item, (*path, index)) for index, item in enumerate(node.value))
            return [item for item in items if item is not _LEFT_OUT]
        if node.kind == "map":
            return self._map(node, path)
        return self._scalar(node, path)

    def _scalar(self, node: _Node, path: Path) -> Any:
        """Return a scalar's value; no program can be given text that an escape puts a zero into."""
        if "\0" not in node.value:
            return scalar(node.value, plain=node.plain, tag=node.tag)
        self._report.add(
            FindingReason.BAD_ENCODING,
            path,
            "The text contains the control character U+0000.",
            at=(node.line, node.column),
            advice="Remove the character.",
        )
        return ""

    def _map(self, node: _Node, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merges: list[_Node] = []
        for key_node, value_node in node.value:
            if key_node.kind == "scalar" and key_node.plain and key_node.value == "<<":
                if merges:
                    self._twice("<<", key_node, path)
                merges.append(value_node)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            if key in result:
                self._twice(key, key_node, here)
                continue
            self.positions.setdefault(here, (key_node.line, key_node.column))
            value = self.build(value_node, here)
            if value is not _LEFT_OUT:
                result[key] = value
        for merge in merges:
            self._merge(result, merge, path)
        return result

    def _twice(self, key: str, node: _Node, path: Path) -> None:
        self._report.add(
            FindingReason.DUPLICATE_KEY,
            path,
            f"The key {clip(key)} is there twice.",
            at=(node.line, node.column),
        )

    def _key(self, node: _Node, path: Path) -> str | None:
        if node.kind != "scalar":
            self._report.add(
                FindingReason.WRONG_TYPE, path, "A key has to be text.", at=(node.line, node.column)
            )
            return None
        value = self._scalar(node, path)
        if not isinstance(value, str):
            self._report.add(
                FindingReason.WRONG_TYPE,
                path,
                f"The key {clip(node.value)} has to be text.",
                at=(node.line, node.column),
                advice="Quote the key.",
            )
            return None
        return value

    def _merge(self, into: dict[str, Any], node: _Node, path: Path) -> None:
        sources = node.value if node.kind == "list" else [node]
        for source in sources:
            if source.kind != "map":
                self._report.add(
                    FindingReason.BAD_YAML,
                    path,
                    "Only a mapping can be merged with <<.",
                    at=(node.line, node.column),
                )
                continue
            for key, value in self._map(source, path).items():
                # What is written out wins over what is merged; of two merges, the first.
                into.setdefault(key, value)


def scalar(text: str, *, plain: bool, tag: str | None = None) -> Any:
    """Return the value of a scalar as YAML 1.2 (and Go's yaml.v3, which Compose uses) reads it."""
    if tag == f"{_PREFIX}str" or (not plain and (tag is None or tag in ("!", "!override"))):
        return text
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text in _INFINITE:
        return _INFINITE[text]
    if len(text) <= _MAX_DIGITS and text[0] in "+-.0123456789":
        return _number(text)
    return text


def _number(text: str) -> Any:
    plain = text.replace("_", "")
    if plain != "-0" and _INTEGER.fullmatch(plain):
        with contextlib.suppress(ValueError):
            whole = _integer(plain)
            if _SMALLEST <= whole <= _LARGEST:
                return whole
    # What is no integer of Go's is a number all the same: 08, and those of more than 64 bits.
    number = float(plain) if _FLOAT.fullmatch(plain) else math.inf
    return text if math.isinf(number) else number


def _integer(plain: str) -> int:
    digits = plain.lstrip("+-")
    is_octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xXoObB"
    value = int(digits, 8 if is_octal else 0)
    return -value if plain.startswith("-") else value

"""Findings as people read them: one line each, in colour on a terminal."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

from opengpu_operator.api.findings import Finding, Severity

_COLOURS: Final = {Severity.ERROR: "\x1b[31m", Severity.WARNING: "\x1b[33m", Severity.INFO: "\x1b[36m"}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
_NAMES: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "remark"}


def show(findings: Iterable[Finding], stream: TextIO) -> None:
    """Print the findings of one file, which needs no name."""
    _print([(f"{row.line or '-'}:{row.column or '-'}", row) for row in findings], stream)


def show_in_files(found: Iterable[tuple[str, Finding]], stream: TextIO) -> None:
    """Print findings with their files: ``file:line:column``, as compilers write it."""
    _print(
        [(":".join(map(str, filter(None, (file, row.line, row.column)))), row) for file, row in found], stream
    )


def _print(rows: Sequence[tuple[str, Finding]], stream: TextIO) -> None:
    if not rows:
        return
    colour = stream.isatty() and not os.environ.get("NO_COLOR")
    widths = (
        max(len(row.severity.value) for _, row in rows),
        max(len(row.reason) for _, row in rows),
        max(len(place) for place, _ in rows),
    )
    for place, row in rows:
        severity = row.severity.value.ljust(widths[0])
        where = f"{row.path}: " if row.path else ""
        advice = f" {row.advice}" if row.advice else ""
        said, advice = _printable(f"{place.ljust(widths[2])}  {where}{row.message}"), _printable(advice)
        if colour:
            severity = f"{_COLOURS[row.severity]}{severity}{_PLAIN}"
            advice = advice and f" {_DIM}{advice[1:]}{_PLAIN}"
        print(f"{severity}  {row.reason.ljust(widths[1])}  {said}{advice}", file=stream)


def summary(findings: Iterable[Finding]) -> str:
    """Return how many findings there are: ``2 errors, 1 remark``."""
    counts = Counter(finding.severity for finding in findings)
    parts = [
        f"{counts[severity]} {name}{'' if counts[severity] == 1 else 's'}"
        for severity, name in _NAMES.items()
        if counts[severity]
    ]
    return ", ".join(parts) or "nothing found"


def _printable(text: str) -> str:
    """Return a text without what would steer a terminal: keys are quoted as strangers wrote them."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )

"""Findings as SARIF 2.1.0, the format in which code hosts and editors take the results of linters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.compose import findings as compose
from opengpu_operator.desired import findings as desired
from opengpu_operator.observability.metrics import version

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
#: A word that is in both tables means the same.
_RULES: Final[Mapping[str, tuple[Severity, str, str]]] = {
    reason.value: rule for rules in (desired.RULES, compose.RULES) for reason, rule in rules.items()
}
_IDS: Final = sorted(_RULES)


def document(found: Iterable[tuple[str, Finding]]) -> dict[str, Any]:
    """Return the SARIF log of one run, given the file of each finding."""
    driver = {
        "name": "opengpu lint",
        "version": version(),
        "informationUri": "https://opengpu.network",
        "rules": [_rule(reason) for reason in _IDS],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(file, finding) for file, finding in found],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(reason: str) -> dict[str, Any]:
    severity, meaning, advice = _RULES[reason]
    return {
        "id": reason,
        "shortDescription": {"text": meaning},
        "help": {"text": advice},
        "defaultConfiguration": {"level": _LEVELS[severity]},
    }


def _result(file: str, finding: Finding) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(file)}}
    if finding.line is not None:
        column = {"startColumn": finding.column} if finding.column is not None else {}
        place["region"] = {"startLine": finding.line, **column}
    location: dict[str, Any] = {"physicalLocation": place}
    if finding.path:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.path}]
    return {
        "ruleId": finding.reason,
        "ruleIndex": _IDS.index(finding.reason),
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.message} {finding.advice}".rstrip()},
        "locations": [location],
    }


def _uri(file: str) -> str:
    """Return a file's URI; a relative path stays relative, to wherever the results are looked at."""
    if "://" in file:
        return quote(file, safe=":/?#[]@!$&'()*+,;=%")
    if file == "-":
        return "stdin"
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())

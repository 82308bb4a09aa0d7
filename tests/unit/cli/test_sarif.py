"""SARIF 2.1.0: what the specification requires, and what makes a result land on its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.cli import sarif
from opengpu_operator.compose.findings import RULES, FindingReason
from opengpu_operator.desired.findings import RULES as JOB_RULES
from opengpu_operator.desired.findings import JobFinding


def finding(**fields: Any) -> Finding:
    given = {"severity": Severity.ERROR, "reason": "Privileged", "message": "M.", **fields}
    return Finding.model_validate(given)


def result(file: str = "compose.yaml", **fields: Any) -> dict[str, Any]:
    (run,) = sarif.document([(file, finding(**fields))])["runs"]
    (found,) = run["results"]
    return dict(found)


def rules() -> list[dict[str, Any]]:
    driver = sarif.document([])["runs"][0]["tool"]["driver"]
    return list(driver["rules"])


def test_the_log() -> None:
    document = sarif.document([])
    assert set(document) == {"$schema", "version", "runs"}
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("/sarif-schema-2.1.0.json")
    (run,) = document["runs"]
    # No results is a clean run; without the key it would be one that found out nothing.
    assert run["results"] == []
    assert run["columnKind"] == "unicodeCodePoints"
    driver = run["tool"]["driver"]
    assert driver["name"]
    assert driver["version"]
    assert driver["informationUri"].startswith("https://")


def test_rules_are_those_of_the_tables() -> None:
    listed = {rule["id"]: rule for rule in rules()}
    assert len(listed) == len(rules())
    assert set(listed) == {str(reason) for reason in (*RULES, *JOB_RULES)}
    assert listed["Privileged"] == {
        "id": "Privileged",
        "shortDescription": {"text": RULES[FindingReason.PRIVILEGED].meaning},
        "help": {"text": RULES[FindingReason.PRIVILEGED].advice},
        "defaultConfiguration": {"level": "error"},
    }
    assert listed["PortsCut"]["shortDescription"]["text"] == JOB_RULES[JobFinding.PORTS_CUT].meaning
    levels = {rule["defaultConfiguration"]["level"] for rule in listed.values()}
    assert levels == {"error", "warning", "note"}


@pytest.mark.parametrize("reason", sorted({*map(str, RULES), *map(str, JOB_RULES)}))
def test_every_reason_finds_its_rule(reason: str) -> None:
    found = result(reason=reason)
    assert rules()[found["ruleIndex"]]["id"] == found["ruleId"] == reason


@pytest.mark.parametrize(
    ("severity", "level"),
    [(Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note")],
)
def test_levels(severity: Severity, level: str) -> None:
    assert result(severity=severity)["level"] == level


def test_a_result_with_a_place() -> None:
    found = result(path="services.web", line=3, column=7, advice="Do.")
    assert found["message"] == {"text": "M. Do."}
    assert found["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "compose.yaml"},
                "region": {"startLine": 3, "startColumn": 7},
            },
            "logicalLocations": [{"fullyQualifiedName": "services.web"}],
        }
    ]


def test_a_result_without_a_place() -> None:
    found = result()
    assert found["message"] == {"text": "M."}
    assert found["locations"] == [{"physicalLocation": {"artifactLocation": {"uri": "compose.yaml"}}}]
    only_line = result(line=2)["locations"][0]["physicalLocation"]["region"]
    assert only_line == {"startLine": 2}


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("deploy/compose.yaml", "deploy/compose.yaml"),
        ("my file#1%.yaml", "my%20file%231%25.yaml"),
        ("a:b.yaml", "a%3Ab.yaml"),
        ("https://example.org/a%20b?raw=1", "https://example.org/a%20b?raw=1"),
        ("-", "stdin"),
        ("/a b/c.yaml", "file:///a%20b/c.yaml"),
    ],
)
def test_uris(file: str, uri: str) -> None:
    place = result(file)["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == uri


def test_files_keep_their_order() -> None:
    each = [(str(Path("b")), finding()), ("a", finding())]
    found = sarif.document(each)["runs"][0]["results"]
    uris = [entry["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for entry in found]
    assert uris == ["b", "a"]

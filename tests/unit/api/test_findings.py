"""The whole report on a file: one spelling, whoever writes it."""

from __future__ import annotations

import json

from opengpu_operator.api.findings import FileReport, Finding, Severity
from opengpu_operator.api.source import Environment

WARNING = Finding(
    severity=Severity.WARNING, reason="BindReplaced", path="a.ü", line=3, column=1, message="M."
)
ERROR = Finding(severity=Severity.ERROR, reason="Privileged", message="No.", advice="Remove it.")


def test_the_form_is_as_documented() -> None:
    report = FileReport(environment=Environment.CPU, digest="sha256:0", findings=[WARNING, ERROR])
    assert json.loads(report.canonical()) == report.dump()
    assert report.dump() == {
        "environment": "cpu",
        "digest": "sha256:0",
        "refused": True,
        "findings": [
            {
                "severity": "warning",
                "reason": "BindReplaced",
                "path": "a.ü",
                "line": 3,
                "column": 1,
                "message": "M.",
                "advice": "",
            },
            {
                "severity": "error",
                "reason": "Privileged",
                "path": "",
                "line": None,
                "column": None,
                "message": "No.",
                "advice": "Remove it.",
            },
        ],
    }
    assert not FileReport(environment=None, digest=None, findings=[WARNING]).refused


def test_the_same_report_has_the_same_bytes() -> None:
    first = FileReport(environment="cpu", digest="d", findings=[WARNING, ERROR])
    read = Finding.model_validate_json(WARNING.model_dump_json())
    assert FileReport(findings=[read, ERROR], digest="d", environment="cpu").canonical() == first.canonical()
    assert (
        FileReport(environment="cpu", digest="d", findings=[ERROR, WARNING]).canonical() != first.canonical()
    )
    assert first.canonical() == (
        b'{"digest":"d","environment":"cpu","findings":[{"advice":"","column":1,"line":3,"message":"M.",'
        b'"path":"a.\\u00fc","reason":"BindReplaced","severity":"warning"},{"advice":"Remove it.","column":null,'
        b'"line":null,"message":"No.","path":"","reason":"Privileged","severity":"error"}],"refused":true}'
    )

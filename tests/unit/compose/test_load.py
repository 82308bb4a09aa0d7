"""Limits: what a hostile file costs, and how YAML is read."""

from __future__ import annotations

from typing import Any

import pytest

from opengpu_operator.compose.findings import Report
from opengpu_operator.compose.load import MAX_BYTES, load, scalar
from tests.support.compose import errors, one, reasons, translate


def loaded(text: str) -> Any:
    report = Report()
    document = load(text, report)
    assert document is not None, report.findings()
    assert not report.refused, report.findings()
    return document.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (text, text)
            for text in (
                "yes",
                "no",
                "on",
                "off",
                "y",
                "22:22",
                "1:2:3",
                "2001-01-01",
                "=",
                "<",
                "0x",
                "1e",
                "+",
                ".",
            )
        ),
        *((text, None) for text in ("", "~", "null", "Null", "NULL")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *(("0o17", 15), ("017", 15), ("0x1F", 31), ("0b11", 3), ("-5", -5), ("1_000", 1000), ("09", 9.0)),
        *(("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("-.inf", float("-inf")), ("1_000.5", 1000.5)),
        *(("_1", "_1"), ("1e400", "1e400"), (str(2**64), 2.0**64), ("0_8", 8.0)),
        ("9" * 65, "9" * 65),
    ],
)
def test_plain_scalars_are_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text, plain=True) == value
    assert type(scalar(text, plain=True)) is type(value)
    assert scalar(text, plain=False) == text


def test_anchors_and_merge_keys() -> None:
    data = loaded(
        """
        x-a: &a {p: 1, q: 1}
        x-b: &b {q: 2, r: 2}
        one: {<<: [*a, *b], r: 3}
        two: {<<: *a, p: 9}
        list: [*a, !override {p: 0}, !reset x]
        gone: !reset null
        """
    )
    assert data["one"] == {"p": 1, "q": 1, "r": 3}
    assert data["two"] == {"p": 9, "q": 1}
    assert data["list"] == [{"p": 1, "q": 1}, {"p": 0}]
    assert "gone" not in data


def test_places_that_are_replaced() -> None:
    report = Report()
    document = load("a: {b: !reset null, c: !override [x]}\nd: !unknown x\ne: x", report)
    assert document is not None
    assert document.replaced == {("a", "b"), ("a", "c")}
    # What can't be read isn't an empty value, which would be found a second time.
    assert document.data == {"a": {"c": ["x"]}, "e": "x"}
    assert [finding.path for finding in report.findings()] == ["d"]


def test_places_whose_base_is_forgotten() -> None:
    document = load("a: &a {k: !reset null, l: !override [1]}\nb: {<<: *a, m: [!reset 1]}", Report())
    assert document is not None
    assert document.data == {"a": {"l": [1]}, "b": {"l": [1], "m": []}}
    assert document.replaced == {("a", "k"), ("a", "l"), ("b", "k"), ("b", "l"), ("b", "m", 0)}


@pytest.mark.parametrize(
    "text", [r'{"a": "x\u0000y"}', 'a: "\\0"', 'a: {b: ["\\x00"]}', 'a:\n  "k\\0": 1', '"\\0"']
)
def test_escaped_zeros(text: str) -> None:
    report = Report()
    load(text, report)
    (found,) = report.findings()
    assert (found.reason, found.line) == ("BadEncoding", text.count("\n") + 1)
    assert found.severity == "error"


def test_a_second_merge_key_is_a_duplicate() -> None:
    report = Report()
    load("a: &a {x: 1}\nb: {<<: *a, <<: *a}", report)
    assert [(entry.reason, entry.line) for entry in report.findings()] == [("DuplicateKey", 2)]


def test_positions_are_those_of_the_keys() -> None:
    translation = translate(
        "services:\n  app:\n    image: app\n    privileged: true\n    volumes:\n      - /:/host\n"
    )
    places = {
        finding.reason: (finding.path, finding.line, finding.column) for finding in translation.findings
    }
    assert places["Privileged"] == ("services.app.privileged", 4, 5)
    assert places["HostPathRefused"] == ("services.app.volumes[0]", 6, 9)


@pytest.mark.parametrize(
    "data",
    [
        b"services: {app: {image: x\x00}}",
        b"\xff\xfes\x00e\x00r\x00v\x00",
        b"services: {app: {image: \xff}}",
        b"services: {app: {image: x\x1b[31m}}",
        b"services: {app: {image: \xed\xa0\x80}}",
    ],
)
def test_odd_encodings(data: bytes) -> None:
    assert errors(data) == {"BadEncoding"}


def test_a_byte_order_mark_is_no_text() -> None:
    assert not translate(b"\xef\xbb\xbfservices: {app: {image: x}}").refused


def test_the_limits_themselves_are_allowed() -> None:
    padding = MAX_BYTES - len("services: {app: {image: x}}\n#")
    assert not translate("services: {app: {image: x}}\n#" + "x" * padding).refused
    deep = "x-deep: " + "[" * 62 + "]" * 62 + "\nservices: {app: {image: x}}"
    assert not translate(deep).refused


def test_everything_wrong_is_found_at_once() -> None:
    found = translate(
        one(
            """
            privileged: true
            prvileged: true
            ports: [x, 99999, 80]
            restart: sometimes
            healthcheck: {interval: soon}
            """
        )
    )
    assert found.refused
    assert {(finding.reason, finding.path) for finding in found.findings} >= {
        ("UnknownKey", "services.app.prvileged"),
        ("BadValue", "services.app.ports[0]"),
        ("BadValue", "services.app.ports[1]"),
        ("BadValue", "services.app.healthcheck.interval"),
    }


def test_findings_are_bounded() -> None:
    found = translate(
        "services: {{app: {{image: x, {}}}}}".format(", ".join(f"k{n}: 1" for n in range(2000)))
    )
    assert len(found.findings) == 501
    assert found.findings[-1].reason == "TooManyFindings"
    assert "1500" in found.findings[-1].message


def test_messages_are_safe_to_print() -> None:
    text = 'services: {app: {image: "a\\e[31m\\n' + "y" * 5000 + '", "k\\e[2J": 1}, "s\\e[2J": 1}'
    found = translate(text)
    for finding in found.findings:
        assert finding.message.isprintable()
        assert finding.path.isprintable()
        assert len(finding.message) < 500
    assert reasons(found) == {"BadValue", "UnknownKey"}

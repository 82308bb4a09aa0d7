"""Findings as a table: aligned, in colour on a terminal alone, and harmless to it."""

from __future__ import annotations

import io

import pytest

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.cli.table import show, show_in_files, summary

ERROR = Finding(
    severity=Severity.ERROR, reason="Privileged", path="a.b", line=3, column=4, message="No.", advice="Do."
)
REMARK = Finding(severity=Severity.INFO, reason="KeyIgnored", message="Nothing.")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, coloured = io.StringIO(), Terminal()
    show([ERROR], plain)
    show([ERROR], coloured)
    assert plain.getvalue() == "error  Privileged  3:4  a.b: No. Do.\n"
    assert coloured.getvalue() == ("\x1b[31merror\x1b[0m  Privileged  3:4  a.b: No. \x1b[2mDo.\x1b[0m\n")
    show([], plain)
    assert plain.getvalue().count("\n") == 1


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("0", False), ("", True)])
def test_no_color(monkeypatch: pytest.MonkeyPatch, value: str, coloured: bool) -> None:
    """https://no-color.org: set to anything but nothing."""
    monkeypatch.setenv("NO_COLOR", value)
    stream = Terminal()
    show([ERROR], stream)
    assert ("\x1b[" in stream.getvalue()) is coloured


def test_columns_are_aligned_over_all_files() -> None:
    stream = io.StringIO()
    show_in_files([("compose.yaml", ERROR), ("b.yaml", REMARK)], stream)
    assert stream.getvalue() == (
        "error  Privileged  compose.yaml:3:4  a.b: No. Do.\ninfo   KeyIgnored  b.yaml            Nothing.\n"
    )


def test_a_place_that_isnt_known_has_its_column_too() -> None:
    stream = io.StringIO()
    show([REMARK, ERROR], stream)
    assert [line.split("  ")[2] for line in stream.getvalue().splitlines()] == ["-:-", "3:4"]


def test_what_a_stranger_wrote_doesnt_steer_the_terminal() -> None:
    hostile = Finding(
        severity=Severity.ERROR, reason="X", path="a\x1b[2J\nb", message="m\x07", advice="\x9b1m"
    )
    stream = io.StringIO()
    show_in_files([("f\x1b.yaml", hostile)], stream)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("severities", "text"),
    [
        ([], "nothing found"),
        ([Severity.INFO], "1 remark"),
        ([Severity.INFO, Severity.ERROR, Severity.ERROR], "2 errors, 1 remark"),
        ([Severity.WARNING] * 3 + [Severity.ERROR], "1 error, 3 warnings"),
    ],
)
def test_summary(severities: list[Severity], text: str) -> None:
    assert summary(ERROR.model_copy(update={"severity": severity}) for severity in severities) == text

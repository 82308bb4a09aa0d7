"""Where keys stand, for findings that know the key alone."""

from __future__ import annotations

import pytest

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.cli.places import Places

TEXT = """\
services:
  web.one:
    image: x
    ports: [a, b]
"""


def at(text: str | bytes, path: str, **known: int) -> tuple[int | None, int | None]:
    finding = Finding(severity=Severity.INFO, reason="X", path=path, message="M.", **known)
    located = Places(text).locate(finding)
    assert located == finding.model_copy(update={"line": located.line, "column": located.column})
    return located.line, located.column


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("services.web.one.image", (3, 5)),
        ("services.web.one.ports[1]", (4, 16)),
        # The nearest that is there.
        ("services.web.one.ports[7]", (4, 5)),
        ("services.web.one.healthcheck.test[0]", (2, 3)),
        ("services.cache", (1, 1)),
        ("volumes", (None, None)),
        ("", (None, None)),
    ],
)
def test_places(path: str, place: tuple[int | None, int | None]) -> None:
    assert at(TEXT, path) == place
    assert at(TEXT.encode(), path) == place


def test_what_is_known_stays() -> None:
    assert at(TEXT, "services", line=9, column=8) == (9, 8)
    assert at(TEXT, "services", line=9) == (9, None)


@pytest.mark.parametrize("text", ["", "[", b"\xff", "services: [", "x" * 300_000, "a: 1\n---\nb: 1"])
def test_a_file_that_cant_be_read_has_no_places(text: str | bytes) -> None:
    assert at(text, "services.web") == (None, None)

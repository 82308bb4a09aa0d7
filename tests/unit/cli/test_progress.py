"""Progress: on a terminal alone, and honest about what was there before."""

from __future__ import annotations

import io

import pytest

from opengpu_operator.cli.progress import Progress, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 30, "1.0 GiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_nothing_is_shown_where_nobody_looks() -> None:
    stream = io.StringIO()
    with Progress("a", 10, stream=stream) as progress:
        progress.add(10)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("total", "before", "added", "shown"),
    [
        (10, 0, 10, "100%  10 B of 10 B"),
        (10, 5, 0, "50%  5 B of 10 B"),
        (None, 0, 7, "a  7 B"),
        (0, 0, 0, "0 B of 0 B"),
    ],
)
def test_a_terminal_shows_one_line(total: int | None, before: int, added: int, shown: str) -> None:
    stream = Terminal()
    with Progress("a", total, done=before, stream=stream) as progress:
        progress.add(added)
    text = stream.getvalue()
    assert shown in text
    assert text.count("\n") == 1
    assert text.endswith("\n")


def test_a_terminal_shows_why_it_stands_still_and_where_it_goes_on() -> None:
    stream = Terminal()
    with Progress("a", 10, stream=stream) as progress:
        progress.add(8)
        progress.halt("broke off")
        progress.at(5)
        progress.add(5)
    assert "80%  8 B of 10 B  broke off" in stream.getvalue()
    last = stream.getvalue().split("\r")[-1]
    assert "100%  10 B of 10 B" in last
    assert "broke off" not in last

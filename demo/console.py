"""What the demo prints: numbered steps with their time, in colour where that helps."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def paint(text: str, *styles: str) -> str:
    """Return the text in a colour, where a person watches (https://no-color.org)."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"


class Console:
    """Prints steps and counts them."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._step = 0
        self._start = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print a step's title, and its time once it is done."""
        self._step += 1
        print(f"\n{paint(f'[{self._step}/{self._steps}] {title}', 'bold', 'cyan')}", flush=True)
        start = time.monotonic()
        yield
        print(paint(f"      done in {time.monotonic() - start:.1f} s", "green"), flush=True)

    @property
    def seconds(self) -> float:
        """How long everything took so far."""
        return time.monotonic() - self._start

    def say(self, text: str = "", *styles: str) -> None:
        """Print lines that belong to the current step."""
        for line in text.splitlines() or [""]:
            print(f"      {paint(line, *styles)}" if line else "", flush=True)

    def command(self, text: str) -> None:
        """Print a command that was run, so that the reader can type it too."""
        self.say(f"$ {text}", "dim")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns; the first row is the heading."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say("  ".join(cells).rstrip(), *(("bold",) if number == 0 else ()))

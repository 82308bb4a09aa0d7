"""How far a transfer is: one line on a terminal that is written over, and nothing anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

_WIDTH: Final = 24
_EVERY_SECONDS: Final = 0.1
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """A transfer under way."""

    def __init__(self, what: str, total: int | None, *, done: int = 0, stream: TextIO | None = None) -> None:
        """``total`` is None where only the end will tell; ``done`` is what was there before."""
        self._what = what
        self._total = total
        self._done = self._before = done
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._started = time.monotonic()
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._show(time.monotonic())
            print(file=self._stream)

    def add(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        if self._shown and (now := time.monotonic()) >= self._next:
            self._next = now + _EVERY_SECONDS
            self._show(now)

    def halt(self, why: str) -> None:
        """Say why there is nothing more just now."""
        if self._shown:
            self._show(time.monotonic(), note=why)

    def at(self, done: int) -> None:
        """It goes on from there, which may be before where it was."""
        self._before += done - self._done
        self._done = done

    def _show(self, now: float, *, note: str = "") -> None:
        speed = (self._done - self._before) / max(now - self._started, 0.001)
        text = f"{self._what}  {_bar(self._done, self._total)}{size(self._done)}"
        if self._total is not None:
            text += f" of {size(self._total)}"
        text += f"  {note or f'{size(round(speed))}/s'}"
        print(f"\r{text}\x1b[K", end="", file=self._stream, flush=True)


def size(count: int) -> str:
    """Return a number of bytes as people read it: ``1.5 GiB``."""
    number = float(count)
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def _bar(done: int, total: int | None) -> str:
    if not total:
        return ""
    full = min(_WIDTH, _WIDTH * done // total)
    return f"[{'#' * full}{' ' * (_WIDTH - full)}] {min(100, 100 * done // total):3d}%  "

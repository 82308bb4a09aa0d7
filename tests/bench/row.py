"""What a benchmark is: a figure and a reference, measured in the same run so that their ratio means something."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measurement and what it is held against."""

    value: float
    reference: float
    """What the same machine needs, at the same time, for the least that the job can be."""
    unit: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A benchmark. The target is a ratio of value to reference, so it holds on fast and slow machines alike."""

    name: str
    measure: Callable[[], Figure]
    target: float
    better: Literal["lower", "higher"] = "lower"
    why: str = ""
    """What the reference is."""

    def run(self) -> tuple[str, bool]:
        """Measure; return the line to print and whether the target was met."""
        figures = sorted(
            (self.measure() for _ in range(REPEATS)), key=lambda figure: figure.value / figure.reference
        )
        middle = figures[len(figures) // 2]
        ratio = middle.value / middle.reference
        ok = ratio <= self.target if self.better == "lower" else ratio >= self.target
        sign = "<=" if self.better == "lower" else ">="
        return (
            f"row={self.name} value={middle.value:.4g} unit={middle.unit} reference={middle.reference:.4g} "
            f"ratio={ratio:.3g} target={sign}{self.target:g} {'ok' if ok else 'short'}"
        ), ok


def median_of(times: int, action: Callable[[], float]) -> float:
    """Return the middle one of several measurements."""
    return statistics.median(action() for _ in range(times))

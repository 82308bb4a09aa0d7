"""Waiting for a condition, always with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

from localcluster.errors import Failure

T = TypeVar("T")


def until(what: str, condition: Callable[[], T | None], seconds: float, interval: float = 0.05) -> T:
    """Return the first true value of a condition, or fail when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() >= deadline:
            raise Failure(f"Gave up after {seconds:.0f} s of waiting for {what}.")
        time.sleep(interval)

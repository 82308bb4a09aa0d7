"""What the user sees while something takes long: on standard error, so that standard output stays usable."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print a line with the time that a step took, once it is done."""
    start = time.monotonic()
    yield
    say(f"{text} … {time.monotonic() - start:.1f} s")

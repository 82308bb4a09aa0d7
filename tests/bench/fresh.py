"""Measuring in a process of its own: what came before has left nothing, and what is measured leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an action took."""

    cpu: float
    """Seconds, children's included."""
    peak: int
    """Bytes that the process had at most."""
    growth: int
    """Bytes of that which it didn't have before."""


def memory(action: Callable[[], object]) -> Cost:
    """Do something in a child, and return what it cost."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # A child starts with what its parent holds, and with a high water mark of its own.
            before, start = _high_water(), time.process_time()
            action()
            cost = Cost(cpu=time.process_time() - start, peak=_high_water(), growth=_high_water() - before)
            os.write(sending, pickle.dumps(cost))
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        message = "the action failed in its process"
        raise RuntimeError(message)
    cost = pickle.loads(answer)
    assert isinstance(cost, Cost)
    return cost


def _high_water() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Shared(Generic[T]):
    """Measurements that several rows use: each row sees all of them in turn, and none is made twice."""

    def __init__(self, measure: Callable[[], T]) -> None:
        self._measure = measure
        self._made: list[T] = []
        self._seen: Counter[str] = Counter()

    def next(self, row: str) -> T:
        """Return a row's next measurement."""
        if self._seen[row] == len(self._made):
            self._made.append(self._measure())
        self._seen[row] += 1
        return self._made[self._seen[row] - 1]

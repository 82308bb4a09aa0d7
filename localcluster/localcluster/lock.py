"""One run at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.errors import Failure
from localcluster.report import say

_PATIENCE = 900.0


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file; another run waits, so that two ``up`` at once end with one cluster.

    The kernel drops the lock with the last process that has it open, however that process ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE
        announced = False
        while not _try_lock(descriptor):
            if not announced:
                say("Another localcluster is at work on this cluster; waiting for it.")
                announced = True
            if time.monotonic() > deadline:
                raise Failure(
                    f"Another localcluster has held {path} for {_PATIENCE:.0f} s: end it and try again."
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

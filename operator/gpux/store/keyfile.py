"""The key that tokens are signed with, which may be replaced while the store runs."""

from __future__ import annotations

import os
from pathlib import Path

from gpux import tokens


class KeyFile:
    """Gives the key that is in the file now. It is read again when the file is another one, and only then."""

    def __init__(self, path: Path) -> None:
        """Look at it at once, so that a key that is no good is seen at the start. Raises ValueError, OSError."""
        self._path = path
        self._state: tuple[int, ...] = ()
        self._key = self()

    def __call__(self) -> bytes:
        """The key. Raises ValueError, OSError; the former one doesn't count any more then."""
        found = os.stat(self._path)
        state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        if state != self._state:
            self._key = tokens.load_key(self._path)
            # Only now: what can't be read is tried again.
            self._state = state
        return self._key

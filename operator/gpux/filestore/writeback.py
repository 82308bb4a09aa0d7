"""Has the kernel write a file to disk while it grows, so that little is left to wait for when it must be durable.

Python has no name for the system call, so it is taken from the C library; where that lacks it, the kernel writes when
it likes, and the wait at the end is longer.
"""

from __future__ import annotations

import ctypes

_STEP = 8 << 20
_WRITE = 2
"""SYNC_FILE_RANGE_WRITE: begin to write what is dirty, and wait for nothing."""

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Writeback:
    """Follows one file. It promises nothing: durable is what was synced."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = 0

    def grown(self, size: int) -> None:
        """Begin to write what has come since the last time, if it is worth it."""
        if _sync_file_range is not None and size - self._begun >= _STEP:
            _sync_file_range(self._fd, self._begun, size - self._begun, _WRITE)
            self._begun = size

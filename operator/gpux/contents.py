"""A content that lies in a file, for whichever backend has it there."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import BinaryIO

from gpux.splice import Pipe

_PIECE = 1 << 20


class FileContent:
    """See `Content`."""

    def __init__(self, path: str) -> None:
        """Open it. Raises OSError."""
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 closed by `close`
        self.size = os.fstat(self._file.fileno()).st_size

    def file(self) -> BinaryIO:
        """See `Content`."""
        return self._file

    def read(self, start: int, end: int) -> Generator[bytes]:
        """See `Content`."""
        while start < end and (piece := os.pread(self._file.fileno(), min(_PIECE, end - start), start)):
            yield piece
            start += len(piece)

    def stream(self, start: int, end: int, pipe: Pipe) -> Generator[bytes | None]:  # noqa: ARG002 there is a file
        """See `Content`."""
        return self.read(start, end)

    def close(self) -> None:
        """See `Content`."""
        self._file.close()

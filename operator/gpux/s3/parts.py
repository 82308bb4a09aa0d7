"""Bytes on their way into one object, whose number isn't known before the last of them.

A part waits in a file that has no name until it is full; then it is sent while the next ones fill, and can be sent
again. So an upload takes a few small files and hardly any memory, however large it is.
"""

from __future__ import annotations

import tempfile
from collections import deque
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from typing import BinaryIO

from gpux.errors import UnavailableError
from gpux.s3.bucket import Bucket, Part, crc32

_PART = 8 << 20
_AT_ONCE = 4
"""So many parts of an upload are sent at a time: services are fast for many connections, less so for one."""
_PARTS_PER_SIZE = 1000
"""So many parts of each size, which doubles then: 10,000 parts are the most, and so they are enough for terabytes."""


class Parts:
    """One object that comes into being. For one thread at a time."""

    def __init__(self, bucket: Bucket, key: str, senders: Executor, *, spool: str | None) -> None:
        """`spool` is the directory of the files, None for the system's; `senders` send."""
        self._bucket = bucket
        self._key = key
        self._senders = senders
        self._spool = spool
        self._file: BinaryIO | None = self._new_file()
        self._filled = 0
        self._crc32 = 0
        self._upload: str | None = None
        self._parts: list[Part] = []
        self._sending: deque[Future[Part]] = deque()

    @property
    def ended(self) -> bool:
        """Whether nothing can be written any more."""
        return self._file is None

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Keep the next bytes. Raises UnavailableError."""
        if self._file is None:
            raise ValueError("the upload has ended")
        view = memoryview(chunk)
        while view:
            if self._filled == self._size():
                self._send(self._file)
            piece = view[: self._size() - self._filled]
            try:
                self._file.write(piece)
            except OSError as error:
                raise UnavailableError(f"no room for parts of uploads: {error}") from error
            self._crc32 = crc32(piece, self._crc32)
            self._filled += len(piece)
            view = view[len(piece) :]

    def finish(self) -> None:
        """Make the object of all that was written. Raises UnavailableError."""
        if self._file is None:
            raise ValueError("the upload has ended")
        if self._upload is None:
            self._bucket.put_file(self._key, self._file, size=self._filled, crc32=self._crc32)
            return
        if self._filled:
            self._send(self._file)
        self._wait(0)
        self._bucket.complete(self._key, self._upload, self._parts)
        self._upload = None

    def close(self) -> None:
        """Forget what isn't finished. Safe to call at any time."""
        file, self._file = self._file, None
        upload, self._upload = self._upload, None
        # A part that arrives after the upload was aborted would stay.
        wait(self._sending)
        self._sending.clear()
        if upload is not None:
            with suppress(UnavailableError):
                self._bucket.abort(self._key, upload)
        if file is not None:
            file.close()

    def _new_file(self) -> BinaryIO:
        return tempfile.TemporaryFile(buffering=0, dir=self._spool)

    def _size(self) -> int:
        return _PART << (len(self._parts) + len(self._sending)) // _PARTS_PER_SIZE

    def _wait(self, most: int) -> None:
        """Wait until at most so many parts are on their way."""
        while len(self._sending) > most:
            self._parts.append(self._sending[0].result())
            self._sending.popleft()

    def _send(self, file: BinaryIO) -> None:
        """Send what the file holds in the background, and go on with another one."""
        self._wait(_AT_ONCE - 1)
        if self._upload is None:
            self._upload = self._bucket.begin(self._key)
        upload, number = self._upload, len(self._parts) + len(self._sending) + 1
        size, checksum = self._filled, self._crc32
        self._file, self._filled, self._crc32 = self._new_file(), 0, 0

        def send() -> Part:
            with file:
                return self._bucket.put_part(
                    self._key, upload, number=number, file=file, size=size, crc32=checksum
                )

        self._sending.append(self._senders.submit(send))

"""Taking in a content: to S3 part by part while it comes, and into the entries when its hashes are known.

A part waits in a file that has no name until it is full; then it is sent while the next one fills, and can be sent
again. So an upload takes two small files and hardly any memory, however large it is. The content's own name is random,
since its hash is known only at the end, and copying it to another name would take as long again.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, suppress
from typing import BinaryIO

from gpux.blobs import PUBLIC, Blob, Keeper
from gpux.errors import UnavailableError
from gpux.s3.bucket import Part, crc32
from gpux.s3.shelves import Reference, Shelves

_PART = 8 << 20
_PARTS_PER_SIZE = 1000
"""So many parts of each size, which doubles then: 10,000 parts are the most, and so they are enough for terabytes."""
_LONGEST_COMMIT = 1200.0
"""Seconds from the end of a content to its entry; the sweep takes it for abandoned after an hour."""


class S3Upload:
    """See `Upload`."""

    def __init__(
        self, shelves: Shelves, senders: Executor, *, spool: str | None, stored: Callable[[int], None]
    ) -> None:
        """`spool` is the directory of the parts, None for the system's; `stored` is told the size of what is new."""
        self._shelves = shelves
        self._stored = stored
        self._senders = senders
        self._spool = spool
        self._data = secrets.token_hex(16)
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._file: BinaryIO | None = self._new_file()
        self._filled = 0
        self._crc32 = 0
        self._upload: str | None = None
        self._parts: list[Part] = []
        self._sending: Future[Part] | None = None

    @property
    def _key(self) -> str:
        return f"data/{self._data}"

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `Upload`."""
        if self._file is None:
            raise ValueError("the upload has ended")
        view = memoryview(chunk)
        while view:
            if self._filled == self._part_size():
                self._send_part()
            piece = view[: self._part_size() - self._filled]
            try:
                self._file.write(piece)
            except OSError as error:
                raise UnavailableError(f"no room for parts of uploads: {error}") from error
            self._crc32 = crc32(piece, self._crc32)
            self._filled += len(piece)
            self._size += len(piece)
            view = view[len(piece) :]

    def update_sha1(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `Upload`."""
        self._sha1.update(chunk)

    def update_sha256(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `Upload`."""
        self._sha256.update(chunk)

    def commit(self, keeper: Keeper) -> tuple[Blob, bool]:
        """See `Upload`."""
        if self._file is None:
            raise ValueError("the upload has ended")
        blob = Blob(self._sha1.hexdigest(), self._sha256.hexdigest(), self._size)
        places = places_of(keeper)
        new = False
        with ExitStack() as undo:
            refer(self._shelves, keeper, [blob], undo=undo)
            if lacking := [place for place in places if not self._shelves.present(place, blob)]:
                new = self._enter(blob, lacking, keeper.namespace)
            for place in places:
                self._shelves.point_back(place, blob)
            if not all(self._shelves.present(place, blob) for place in lacking):
                # On a service where removing an old entry and bringing it back don't exclude each other.
                raise UnavailableError("what was just stored isn't there")
            undo.pop_all()
        self.abort()
        if new:
            self._stored(blob.size)
        return blob, new

    def _enter(self, blob: Blob, places: Sequence[str], own: str) -> bool:
        """Send what is still here, and enter it; whether it is new in the place `own`."""
        self._finish()
        ended = time.monotonic()
        entered = {place: self._shelves.enter(place, blob, self._data) for place in places}
        if not any(entry.ours for entry in entered.values()):
            # Another upload of the same bytes was first. Where that isn't sure, the sweep finds out.
            self._shelves.bucket.delete(self._key)
        elif time.monotonic() - ended > _LONGEST_COMMIT:
            raise UnavailableError("entering a file took too long")
        return own in entered and entered[own].new

    def abort(self) -> None:
        """See `Upload`."""
        file, self._file = self._file, None
        sending, self._sending = self._sending, None
        upload, self._upload = self._upload, None
        if sending is not None:
            # A part that arrives after the upload was aborted would stay.
            with suppress(Exception):
                sending.result()
        if upload is not None:
            with suppress(UnavailableError):
                self._shelves.bucket.abort(self._key, upload)
        if file is not None:
            file.close()

    # ------------------------------------------------------------------------------------------------ inside

    def _new_file(self) -> BinaryIO:
        return tempfile.TemporaryFile(buffering=0, dir=self._spool)

    def _part_size(self) -> int:
        return _PART << (len(self._parts) + (self._sending is not None)) // _PARTS_PER_SIZE

    def _wait(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            self._parts.append(sending.result())

    def _send_part(self) -> None:
        """Send what the file holds in the background, and go on with another one."""
        assert self._file is not None  # noqa: S101 for the type checker
        self._wait()
        if self._upload is None:
            self._upload = self._shelves.bucket.begin(self._key)
        file, size, checksum = self._file, self._filled, self._crc32
        upload, number = self._upload, len(self._parts) + 1
        self._file, self._filled, self._crc32 = self._new_file(), 0, 0

        def send() -> Part:
            with file:
                return self._shelves.bucket.put_part(
                    self._key, upload, number=number, file=file, size=size, crc32=checksum
                )

        self._sending = self._senders.submit(send)

    def _finish(self) -> None:
        assert self._file is not None  # noqa: S101 for the type checker
        if self._upload is None:
            self._shelves.bucket.put_file(self._key, self._file, size=self._filled, crc32=self._crc32)
            return
        if self._filled:
            self._send_part()
        self._wait()
        self._shelves.bucket.complete(self._key, self._upload, self._parts)
        self._upload = None


def refer(shelves: Shelves, keeper: Keeper, blobs: Sequence[Blob], *, undo: ExitStack) -> None:
    """Make a keeper's references, and note in `undo` how to end those that are new. Raises QuotaError."""
    for place in places_of(keeper):
        for name, limit in keeper.references.items():
            for blob in blobs:
                made = shelves.refer(place, name, blob, limit=None if place == PUBLIC else limit)
                if made is not None:
                    undo.callback(_forget, shelves, made)


def places_of(keeper: Keeper) -> tuple[str, ...]:
    """Where a keeper's entries are."""
    return (keeper.namespace, PUBLIC) if keeper.public else (keeper.namespace,)


def _forget(shelves: Shelves, reference: Reference) -> None:
    # What can't be undone now, the sweep will.
    with suppress(UnavailableError):
        shelves.bucket.delete(reference.key)

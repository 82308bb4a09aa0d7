"""Taking in a content, and entering it when its hashes are known.

The content's own name is random, since its hash is known only at the end, and copying it to another name would take as
long again.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress

from gpux.blobs import PUBLIC, Blob, Keeper
from gpux.errors import UnavailableError
from gpux.s3.parts import Parts
from gpux.s3.shelves import Reference, Shelves

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
        self._data = secrets.token_hex(16)
        self._parts = Parts(shelves.bucket, f"data/{self._data}", senders, spool=spool)
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._size = 0

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `Upload`."""
        self._parts.write(chunk)
        self._size += len(chunk)

    def update_sha1(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `Upload`."""
        self._sha1.update(chunk)

    def update_sha256(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `Upload`."""
        self._sha256.update(chunk)

    def commit(self, keeper: Keeper) -> tuple[Blob, bool]:
        """See `Upload`."""
        if self._parts.ended:
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
        self._parts.finish()
        ended = time.monotonic()
        entered = {place: self._shelves.enter(place, blob, self._data) for place in places}
        if not any(entry.ours for entry in entered.values()):
            # Another upload of the same bytes was first. Where that isn't sure, the sweep finds out.
            self._shelves.bucket.delete(f"data/{self._data}")
        elif time.monotonic() - ended > _LONGEST_COMMIT:
            raise UnavailableError("entering a file took too long")
        return own in entered and entered[own].new

    def abort(self) -> None:
        """See `Upload`."""
        self._parts.close()


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

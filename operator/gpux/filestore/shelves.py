"""The changes that can be made to the store's directory, each safe against a power cut and against the others.

A commit makes all its names first and then makes them durable, with one journal commit for most of them, before
anybody is told: the content under its SHA-256, never replacing → the entries → the references. A crash leaves at worst
some of these names: a content that no entry names, an entry that nothing refers to or that leads nowhere. None of them
was promised; the next upload of the same bytes completes them, or the sweep removes them.

Whoever names or removes a content holds the lock of its SHA-256, so that an upload of bytes that are there already
and a sweep that is about to remove them exclude each other.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice, product
from typing import TypeAlias

from gpux.blobs import PUBLIC, Blob, HashConflictError, Keeper
from gpux.files import Disk
from gpux.filestore.accounts import Accounts
from gpux.filestore.layout import Layout, target
from gpux.hashes import FileHash
from gpux.log import log

_LOCKS = 256
_BATCH = 10_000
_DAY = 86_400.0

_Taken: TypeAlias = dict[tuple[str, str], int]
"""Bytes taken from the accounts, by reference and SHA-1, for references that aren't made yet."""


class Shelves:
    """The directory, its locks and its accounts."""

    def __init__(self, layout: Layout, *, disk: Disk, clock: Callable[[], float]) -> None:
        self.layout = layout
        self.disk = disk
        self.clock = clock
        self.accounts = Accounts()
        self.objects = 0
        self.size = 0
        self._locks = [threading.RLock() for _ in range(_LOCKS)]
        self._totals = threading.Lock()
        # A folder of references goes with its last one; nobody may be about to put another there.
        self._folders = threading.Lock()

    def lock(self, sha256: str) -> threading.RLock:
        """What has to be held to name or remove a content."""
        return self._locks[int(sha256[:8], 16) % _LOCKS]

    # ------------------------------------------------------------------------------------------------ adding

    def keep(self, temporary: str, blob: Blob, keeper: Keeper) -> bool:
        """Name a durable temporary file, enter it and refer to it, all or nothing; whether the entry is new.

        Raises QuotaError, HashConflictError, OSError.
        """
        places = _places(keeper)
        new = False
        with self.lock(blob.sha256), ExitStack() as accounts, ExitStack() as undo:
            taken = {place: accounts.enter_context(self._taking(place, [blob], keeper)) for place in places}
            changed = {self._name(temporary, blob, undo=undo)}
            for place in places:
                directory, entered = self._enter(place, "sha1", blob.sha1, blob.sha256, undo=undo)
                back, _ = self._enter(place, "sha256", blob.sha256, blob.sha1, undo=undo)
                changed |= {directory, back}
                new |= entered and place == keeper.namespace
            for place, reference in product(places, keeper.references):
                folder, made = self._refer(place, reference, blob, taken=taken[place])
                changed.add(folder)
                if made:
                    undo.callback(self.let_go, place, reference, blob.sha1)
            self.sync(changed)
            undo.pop_all()
        return new

    def refer(self, keeper: Keeper, blobs: Sequence[Blob]) -> None:
        """Refer to entries. What is short is known before the first; a full disk may leave some of them.

        Raises QuotaError, KeyError, OSError.
        """
        different = list({blob.sha1: blob for blob in blobs}.values())
        for place in _places(keeper):
            changed: set[str] = set()
            with self._taking(place, different, keeper) as taken:
                for blob in different:
                    # The sweep, too, takes an entry only while it holds this.
                    with self.lock(blob.sha256):
                        if self.layout.find(place, FileHash("sha1", blob.sha1)) is None:
                            raise KeyError(blob.sha1)
                        for reference in keeper.references:
                            changed.add(self._refer(place, reference, blob, taken=taken)[0])
            self.sync(changed)

    @contextmanager
    def _taking(self, place: str, blobs: Sequence[Blob], keeper: Keeper) -> Iterator[_Taken]:
        """Take from the accounts what the references lack; what is left of it at the end is given back."""
        taken = {
            (reference, blob.sha1): blob.size
            for reference, blob in product(keeper.references, blobs)
            if not os.path.lexists(self.layout.reference(place, reference, blob.sha1))
        }
        sizes: dict[str, int] = {}
        for (reference, _), size in taken.items():
            sizes[reference] = sizes.get(reference, 0) + size
        self.accounts.take(place, sizes, limits={} if place == PUBLIC else keeper.references)
        try:
            yield taken
        finally:
            for (reference, _), size in taken.items():
                self.accounts.give(place, reference, size)

    def _name(self, temporary: str, blob: Blob, *, undo: ExitStack) -> str:
        """Give a content its name; the directory of it."""
        path = self.layout.content(blob.sha256)
        fan = self.disk.make_directories(self.layout.contents, blob.sha256[:2])
        try:
            self.disk.link(temporary, path)
        except FileExistsError:
            size = os.stat(path).st_size
            if size == blob.size:
                return fan
            # What lies there can't be what its name says, and here is what it should be.
            self.set_aside(blob.sha256)
            self.disk.link(temporary, path)
        self.count(1, blob.size)
        undo.callback(self._remove, blob)
        return fan

    def _enter(
        self, place: str, algorithm: str, key: str, value: str, *, undo: ExitStack
    ) -> tuple[str, bool]:
        """Make one way of an entry, or note that it is used; its directory, and whether it is new."""
        directory = self.disk.make_directories(self.layout.index, place, algorithm)
        path = f"{directory}/{key}"
        try:
            self.disk.symlink(value, path)
        except FileExistsError:
            if target(path) != value:
                raise HashConflictError from None
            if algorithm == "sha1":
                self.use(place, key, coarse=False)
            return directory, False
        undo.callback(self.disk.unlink, path)
        return directory, True

    def _refer(self, place: str, reference: str, blob: Blob, *, taken: _Taken) -> tuple[str, bool]:
        """Make one reference; its directory, and whether it is new."""
        with self._folders:
            directory = self.disk.make_directories(self.layout.references, place, reference)
            try:
                self.disk.symlink(str(blob.size), f"{directory}/{blob.sha1}")
            except FileExistsError:
                return directory, False
            if taken.pop((reference, blob.sha1), None) is None:
                # It was there when accounts were taken, and was let go since.
                self.accounts.take(place, {reference: blob.size})
        return directory, True

    def sync(self, directories: Iterable[str]) -> None:
        """Make the names in directories durable."""
        for directory in directories:
            # Also where a name was there already: whoever made it may not have come to this line. A folder of
            # references that has gone was let go after all.
            with suppress(FileNotFoundError):
                self.disk.sync_directory(directory)

    # ------------------------------------------------------------------------------------------------ removing

    def use(self, namespace: str, sha1: str, *, coarse: bool = True) -> None:
        """Note that an entry is used: at most once a day, unless the day matters."""
        now = self.clock()
        before = self.layout.used(namespace, sha1)
        if before is not None and (now - before > _DAY or not coarse):
            # A time that can't be written is no reason to refuse the use.
            with suppress(OSError):
                self.disk.touch(self.layout.entry(namespace, "sha1", sha1), now)

    def let_go(self, namespace: str, reference: str, sha1: str) -> bool:
        """End one reference, durably with the next sync of its folder; whether there was one."""
        path = self.layout.reference(namespace, reference, sha1)
        with self._folders:
            size = target(path)
            if size is None:
                return False
            self.disk.unlink(path)
            self.accounts.give(namespace, reference, int(size))
        return True

    def drop(self, namespace: str, reference: str) -> int:
        """End a reference to everything, durably; to how much it was."""
        folder = f"{self.layout.references}/{namespace}/{reference}"
        if not os.path.isdir(folder):
            return 0
        count = 0
        # In batches, since a directory that changes while it is read may not show everything.
        while batch := list(islice(self.layout.referred(namespace, reference), _BATCH)):
            for sha1 in batch:
                # The grace of what nobody else refers to starts now.
                self.use(namespace, sha1, coarse=False)
                count += self.let_go(namespace, reference, sha1)
        self.sync([folder])
        self.remove_folder(namespace, reference)
        return count

    def remove_folder(self, namespace: str, reference: str) -> None:
        """Remove the folder of a reference, if it is empty, durably."""
        parent = f"{self.layout.references}/{namespace}"
        with self._folders:
            try:
                self.disk.rmdir(f"{parent}/{reference}")
            except OSError as error:
                # Somebody has referred to something since.
                if error.errno != errno.ENOTEMPTY:
                    raise
                return
        self.disk.sync_directory(parent)

    def set_aside(self, sha256: str) -> None:
        """Move a content that is not what its name says out of the way, durably. Hold its lock."""
        path = self.layout.content(sha256)
        aside = self.disk.make_directories(self.layout.root, "quarantine")
        size = os.stat(path).st_size
        self.disk.rename(path, f"{aside}/{sha256}.{time.time_ns()}")
        self.disk.sync_directory(aside)
        self.disk.sync_directory(os.path.dirname(path))
        self.count(-1, -size)
        log("error", "a stored file has rotted and was moved aside", sha256=sha256, to=aside)

    def count(self, objects: int, size: int) -> None:
        """Keep the totals."""
        with self._totals:
            self.objects += objects
            self.size += size

    def _remove(self, blob: Blob) -> None:
        self.disk.unlink(self.layout.content(blob.sha256))
        self.count(-1, -blob.size)


def _places(keeper: Keeper) -> tuple[str, ...]:
    return (keeper.namespace, PUBLIC) if keeper.public else (keeper.namespace,)

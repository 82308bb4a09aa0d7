"""The `Blobs` of one directory on a file system with hard and symbolic links."""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from gpux.blobs import (
    Blob,
    Content,
    Entry,
    Keeper,
    Retention,
    Scrubbed,
    StorageFullError,
    Swept,
    Upload,
    Usage,
)
from gpux.contents import FileContent
from gpux.files import Disk, is_full
from gpux.filestore.layout import NUMBER, Layout, changed, names, target
from gpux.filestore.scrub import scrub
from gpux.filestore.shelves import Shelves
from gpux.filestore.sweep import forget, sweep
from gpux.filestore.writeback import Writeback
from gpux.hashes import FileHash
from gpux.log import log

#: What refers to everything that was there before there were references.
UPGRADE = "keep:upgrade"


class FileBlobs:
    """See `Blobs`."""

    def __init__(
        self,
        root: str,
        *,
        disk: Disk | None = None,
        reserve: int = 64 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take possession of the directory, and forget uploads that a former process didn't finish.

        `reserve` bytes are left free by uploads, so that calls can still be recorded when files have filled the disk.
        """
        self._disk = disk or Disk()
        self._reserve = reserve
        self._layout = Layout(root)
        self._shelves = Shelves(self._layout, disk=self._disk, clock=clock)
        for folder in ("tmp", "sha256", "index", "refs"):
            self._disk.make_directories(root, folder)
        for name in os.listdir(self._layout.temporary):
            self._disk.unlink(f"{self._layout.temporary}/{name}")
        _upgrade(self._layout, self._disk)
        _count(self._layout, self._shelves)

    def begin(self, *, size: int | None) -> Upload:
        """See `Blobs`."""
        if self.free_bytes() < (size or 0):
            raise StorageFullError
        path = f"{self._layout.temporary}/{secrets.token_hex(16)}"
        return _FileUpload(self._shelves, path, self.free_bytes)

    def open(self, namespace: str, name: FileHash) -> tuple[Blob, Content] | None:
        """See `Blobs`."""
        found = self._layout.find(namespace, name)
        if found is None:
            return None
        sha1, sha256 = found
        try:
            content = FileContent(self._layout.content(sha256))
        except FileNotFoundError:
            return None
        self._shelves.use(namespace, sha1)
        return Blob(sha1, sha256, content.size), content

    def watch(self, namespace: str, name: FileHash) -> tuple[str, Callable[[], bool]] | None:
        """Give the SHA-256 of what `open` would give, and what tells whether it would give that now; or None.

        That takes two looks at names that are in use, which is cheap. Both raise OSError.
        """
        found = self._layout.find(namespace, name)
        if found is None:
            return None
        entry, content = self._layout.entry(namespace, *name), self._layout.content(found[1])
        held = found[1] if name.algorithm == "sha1" else found[0]
        return found[1], lambda: target(entry) == held and os.access(content, os.F_OK)

    def refer(self, keeper: Keeper, blobs: Sequence[Blob]) -> None:
        """See `Blobs`."""
        with _room():
            self._shelves.refer(keeper, blobs)

    def forget(self, namespace: str, blobs: Sequence[Blob]) -> None:
        """See `Blobs`."""
        forget(self._shelves, namespace, blobs)

    def drop(self, reference: str, *, namespace: str | None = None) -> int:
        """See `Blobs`."""
        places = list(names(self._layout.references)) if namespace is None else [namespace]
        return sum(self._shelves.drop(place, reference) for place in places)

    def entries(
        self, namespace: str, *, references: Sequence[str] | None = None, after: str = "", limit: int
    ) -> list[Entry]:
        """See `Blobs`."""
        found: list[Entry] = []
        while len(found) < limit:
            above = (name for name in self._names(namespace, references) if name > after)
            page = heapq.nsmallest(limit - len(found), above)
            if not page:
                break
            found += filter(None, (self._entry(namespace, sha1) for sha1 in page))
            after = page[-1]
        return found

    def _names(self, namespace: str, references: Sequence[str] | None) -> Iterable[str]:
        if references is None:
            return names(f"{self._layout.index}/{namespace}/sha1")
        return {sha1 for reference in references for sha1 in self._layout.referred(namespace, reference)}

    def _entry(self, namespace: str, sha1: str) -> Entry | None:
        """One entry as it is; None if it or its content has gone."""
        found = self._layout.find(namespace, FileHash("sha1", sha1))
        used = self._layout.used(namespace, sha1)
        if found is None or used is None:
            return None
        try:
            size = os.stat(self._layout.content(found[1])).st_size
        except FileNotFoundError:
            return None
        created = changed(self._layout.entry(namespace, "sha256", found[1]))
        references = self._layout.references_to(namespace, sha1)
        return Entry(Blob(sha1, found[1], size), used if created is None else created, used, references)

    def holders(self, kind: str) -> list[tuple[str, str]]:
        """See `Blobs`."""
        prefix = f"{kind}:"
        return [
            (namespace, reference.removeprefix(prefix))
            for namespace, reference in self._layout.referring()
            if reference.startswith(prefix)
        ]

    def sweep(self, retention: Retention) -> Swept:
        """See `Blobs`."""
        return sweep(self._shelves, retention)

    def scrub(self, *, every: float, pause: Callable[[int], bool]) -> Scrubbed:
        """See `Blobs`."""
        return scrub(self._shelves, every=every, pause=pause)

    def usage(self) -> Usage:
        """See `Blobs`."""
        return Usage(self._shelves.objects, self._shelves.size)

    def free_bytes(self) -> int:
        """See `Blobs`: what uploads may still use."""
        state = os.statvfs(self._layout.root)
        return max(0, state.f_bavail * state.f_frsize - self._reserve)


class _FileUpload:
    """See `Upload`."""

    def __init__(self, shelves: Shelves, path: str, free_bytes: Callable[[], int]) -> None:
        self._shelves = shelves
        self._path: str | None = path
        self._free_bytes = free_bytes
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._fd: int | None = None
        with _room():
            self._fd = shelves.disk.create(path)
        self._writeback = Writeback(self._fd)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        if self._fd is None:
            raise ValueError("the upload has ended")
        if self._free_bytes() < len(chunk):
            raise StorageFullError
        with _room():
            self._shelves.disk.write(self._fd, chunk)
        self._size += len(chunk)
        self._writeback.grown(self._size)

    def update_sha1(self, chunk: bytes | bytearray | memoryview) -> None:
        self._sha1.update(chunk)

    def update_sha256(self, chunk: bytes | bytearray | memoryview) -> None:
        self._sha256.update(chunk)

    def commit(self, keeper: Keeper) -> tuple[Blob, bool]:
        if self._fd is None or self._path is None:
            raise ValueError("the upload has ended")
        blob = Blob(self._sha1.hexdigest(), self._sha256.hexdigest(), self._size)
        with _room():
            self._shelves.disk.sync(self._fd)
            new = self._shelves.keep(self._path, blob, keeper)
        self.abort()
        return blob, new

    def abort(self) -> None:
        fd, self._fd = self._fd, None
        path, self._path = self._path, None
        if fd is not None:
            self._shelves.disk.close(fd)
        if path is not None:
            self._shelves.disk.unlink(path)


class _room:  # noqa: N801 used like a function
    """Say of a full disk what `Blobs` says."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if is_full(error):
            raise StorageFullError from error


def _upgrade(layout: Layout, disk: Disk) -> None:
    """Bring an older directory to this layout. Nobody is served before; after a crash it is done once more.

    Raises ValueError for a newer one.
    """
    with suppress(FileNotFoundError), open(layout.number, encoding="ascii") as file:
        found = int(file.read())
        if found > NUMBER:
            raise ValueError(f"{layout.root} has layout {found}; this store knows layouts up to {NUMBER}")
        return
    kept = 0
    for namespace in layout.namespaces():
        for sha1 in names(f"{layout.index}/{namespace}/sha1"):
            sha256 = os.readlink(layout.entry(namespace, "sha1", sha1))
            try:
                size = os.stat(layout.content(sha256)).st_size
            except FileNotFoundError:
                # An upload that a crash ended, and that nobody was told of.
                continue
            folder = disk.make_directories(layout.references, namespace, UPGRADE)
            with suppress(FileExistsError):
                disk.symlink(str(size), f"{folder}/{sha1}")
            kept += 1
        with suppress(FileNotFoundError):
            disk.sync_directory(f"{layout.references}/{namespace}/{UPGRADE}")
    disk.replace(layout.number, f"{NUMBER}\n".encode(), temporary=f"{layout.temporary}/layout")
    if kept:
        log("info", "files from before there were references are kept", reference=UPGRADE, files=kept)


def _count(layout: Layout, shelves: Shelves) -> None:
    """Count what there is, and what each reference keeps."""
    for fan in layout.fans():
        with os.scandir(f"{layout.contents}/{fan}") as found:
            for content in found:
                shelves.count(1, content.stat().st_size)
    for namespace, reference in layout.referring():
        size = sum(
            int(os.readlink(layout.reference(namespace, reference, sha1)))
            for sha1 in layout.referred(namespace, reference)
        )
        shelves.accounts.take(namespace, {reference: size})


class DirectoryLock:
    """One process per directory: a second store on the same volume would not see the first's calls."""

    def __init__(self, path: str) -> None:
        """Open the lock file."""
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def try_acquire(self) -> bool:
        """Take the lock, if it is free. It goes with the process."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

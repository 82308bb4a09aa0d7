"""What is read from a bucket more than once, kept beside the store, where the kernel sends it from.

Whether somebody may read a content, and which one, is asked of the bucket each time. Only the bytes come from here, by
the content's own name, which is used once: what is here can't be out of date. It is bounded, by bytes and in number,
and what wasn't read for longest makes room, unless it is being read: the disk would have it until its reader is done.
What is read once makes none: one read notes the name, and the next one has a thread fetch the content, check it
against its hash, and give it its name when it is whole.

The directory is emptied at the start. What a killed process left could be right in name and size and wrong within,
since nothing here is ever synced, and to hash it all would take longer than to fetch what is still asked for.

Whatever fails, fails here alone: the read goes on from the bucket, and nothing is fetched for a minute.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import NamedTuple

from gpux.contents import FileContent
from gpux.files import Disk
from gpux.log import log

_MOST = 1 << 14
"""So many contents at most, since each one's name is in memory."""
_REMEMBERED = 1 << 12
"""So many contents that were read once are known."""
_WAITING = 16
_PAUSE_SECONDS = 60.0
_QUIET_SECONDS = 3600.0

_NAME = re.compile(r"[0-9a-f]{32}")
_PART = ".part"


class Wanted(NamedTuple):
    """A content of the bucket, and the way to it."""

    name: str
    sha256: str
    size: int
    read: Callable[[], Generator[bytes]]
    """Yields all of it."""


class Figures(NamedTuple):
    """What became of the cache since the start, and its bytes now."""

    hits: int
    misses: int
    failures: int
    size: int


class _WrongError(Exception):
    """What came isn't what the entry says."""


class _NoRoomError(Exception):
    """Too much of what is here is being read."""


class _Held(FileContent):
    """A content that is being read."""

    def __init__(self, path: str, *, closed: Callable[[], None]) -> None:
        super().__init__(path)
        self._closed = closed

    def close(self) -> None:
        """See `Content`."""
        super().close()
        self._closed()


class Cache:
    """One process's cache in a directory. All methods may be called from several threads, and none fails a read."""

    def __init__(
        self,
        directory: str,
        size: int,
        *,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the directory, with all that a former cache left in it. Raises OSError.

        ``size`` is the most bytes in it; a content of more than half of that is never kept.
        """
        self._directory = directory
        self._limit = size
        self._disk = disk or Disk()
        self._clock = clock
        self._lock = threading.Lock()
        # All three in order: of their last use, of the first read, of being wanted.
        self._kept: dict[str, int] = {}
        self._once: dict[str, None] = {}
        self._waiting: dict[str, Wanted] = {}
        self._readers: Counter[str] = Counter()
        self._fetching = False
        self._size = self._hits = self._misses = self._failures = 0
        self._paused = self._quiet = -_QUIET_SECONDS
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name in os.listdir(directory):
            # Nothing else, should somebody have named a directory that has other things.
            if _NAME.fullmatch(name.removesuffix(_PART)):
                self._disk.unlink(f"{directory}/{name}")

    def open(self, name: str, size: int) -> FileContent | None:
        """Open a content, which counts as a use; None if it isn't here."""
        with self._lock:
            kept = self._kept.pop(name, None)
            if kept is not None:
                self._kept[name] = kept
            if kept == size:
                self._readers[name] += 1
        content = self._open(name, size) if kept == size else None
        with self._lock:
            if content is None:
                self._misses += 1
            else:
                self._hits += 1
        return content

    def _open(self, name: str, size: int) -> FileContent | None:
        def closed() -> None:
            with self._lock:
                self._readers[name] -= 1
                if not self._readers[name]:
                    del self._readers[name]

        try:
            content = _Held(self._path(name), closed=closed)
        except OSError as error:
            closed()
            self.drop([name])
            if not isinstance(error, FileNotFoundError):
                self._fail(error)
            return None
        if content.size != size:
            content.close()
            self.drop([name])
            return None
        return content

    def miss(self, wanted: Wanted) -> None:
        """Learn that a content is being read from the bucket; if it is read again soon, fetch it."""
        if not 0 < wanted.size <= self._limit // 2 or not _NAME.fullmatch(wanted.name):
            return
        with self._lock:
            if wanted.name in self._kept or wanted.name in self._waiting:
                return
            if wanted.name not in self._once:
                self._once[wanted.name] = None
                if len(self._once) > _REMEMBERED:
                    del self._once[next(iter(self._once))]
                return
            if len(self._waiting) >= _WAITING or self._clock() < self._paused:
                # Its next read asks again.
                return
            del self._once[wanted.name]
            self._waiting[wanted.name] = wanted
            if self._fetching:
                return
            self._fetching = True
        try:
            # One that the end of the process doesn't wait for.
            threading.Thread(target=self._fetch_all, name="cache", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._fetching = False
            self._fail(error)

    def names(self) -> set[str]:
        """Which contents are here."""
        with self._lock:
            return set(self._kept)

    def drop(self, names: Iterable[str]) -> None:
        """Remove contents, if they are here. Who reads one at the moment reads on."""
        with self._lock:
            dropped = [name for name in names if self._take_out(name)]
        self._remove(dropped)

    def figures(self) -> Figures:
        """Count. Cheap."""
        with self._lock:
            return Figures(self._hits, self._misses, self._failures, self._size)

    # ------------------------------------------------------------------------------------------------ fetching

    def _fetch_all(self) -> None:
        """Fetch what is wanted, one after the other, until nothing is."""
        while True:
            with self._lock:
                wanted = next(iter(self._waiting.values()), None)
                if wanted is None:
                    self._fetching = False
                    return
            try:
                self._fetch(wanted)
            except _NoRoomError:
                # Its next read asks again.
                pass
            except _WrongError as error:
                self._count(error)
            except Exception as error:  # noqa: BLE001 whatever it is, nobody waits for this
                self._fail(error)
            with self._lock:
                self._waiting.pop(wanted.name, None)

    def _fetch(self, wanted: Wanted) -> None:
        """Bring a content here. Raises anything."""
        self._make_room(wanted.size)
        part = self._path(wanted.name) + _PART
        fd = self._disk.create(part)
        try:
            self._copy(wanted, fd)
            self._disk.rename(part, self._path(wanted.name))
        except BaseException:
            self._disk.unlink(part)
            raise
        finally:
            self._disk.close(fd)
        with self._lock:
            self._take_out(wanted.name)
            self._kept[wanted.name] = wanted.size
            self._size += wanted.size

    def _copy(self, wanted: Wanted, fd: int) -> None:
        """Write a content, and see whether it was the right one."""
        hashed = hashlib.sha256()
        size = 0
        with closing(wanted.read()) as pieces:
            for piece in pieces:
                self._disk.write(fd, piece)
                hashed.update(piece)
                size += len(piece)
        if (size, hashed.hexdigest()) != (wanted.size, wanted.sha256):
            raise _WrongError(f"the content {wanted.name} isn't what its entry says")

    def _make_room(self, size: int) -> None:
        """Let go of what was used longest ago, before anything is written: the bound holds all the time."""
        with self._lock:
            left, count = self._size + size, len(self._kept) + 1
            dropped: list[str] = []
            for name, kept in self._kept.items():
                if left <= self._limit and count <= _MOST:
                    break
                if name not in self._readers:
                    dropped.append(name)
                    left, count = left - kept, count - 1
            if left > self._limit or count > _MOST:
                raise _NoRoomError
            for name in dropped:
                self._take_out(name)
        self._remove(dropped)

    def _take_out(self, name: str) -> bool:
        """Forget a content, within the lock; whether it was here."""
        size = self._kept.pop(name, None)
        self._size -= size or 0
        return size is not None

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._disk.unlink(self._path(name))
            except OSError as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Step aside for a while, and say so."""
        with self._lock:
            self._paused = self._clock() + _PAUSE_SECONDS
            self._waiting.clear()
        self._count(error)

    def _count(self, error: Exception) -> None:
        """Count a failure, and say so once in an hour."""
        now = self._clock()
        with self._lock:
            self._failures += 1
            silent = now < self._quiet
            if not silent:
                self._quiet = now + _QUIET_SECONDS
        if not silent:
            log(
                "warning",
                "contents don't get into the cache, and are read from the bucket",
                error=repr(error),
            )

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

"""What a job keeps in its folders, read for people outside: a folder's list, a file, or a folder as tar.

The job is hostile: it may put links anywhere, swap files for links or devices between any two looks, and grow or
shrink what is being read. So a path is walked name by name from the root, no link is followed, ever, and a file is
opened only through the very inode that was looked at. Nothing but regular files is read.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from gpux.agent import tar

_LISTED = 10_000
"""Entries in one list."""
_NAMES = 200_000
"""Names that one walk holds at once, in all folders that it is inside of; they are the agent's memory."""
_DEPTH = 256
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class StorageError(Exception):
    """What was asked for can't be had; the status says why, in HTTP's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class BrokenOffError(OSError):
    """What is being read can't be read to its end; nothing that was sent may be taken for the whole."""


class Found(NamedTuple):
    """Something at a path."""

    fd: int
    """Opened to be looked at (O_PATH); the caller closes it."""
    state: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.state.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, the only kind that is read."""
        return stat.S_ISREG(self.state.st_mode)

    def open(self) -> int:
        """Open a regular file or a folder for reading: this one, whatever has its name by now. Raises OSError."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)


class _Folder(NamedTuple):
    """A folder that the walk is inside of."""

    fd: int
    path: bytes
    names: list[str]
    """What is left of it, the next one last."""


def find(root: str | None, path: str) -> Found:
    """Find what a path below the root names, if the job has that root. Raises StorageError."""
    if root is None:
        raise StorageError(404, "the job has no such storage")
    parts = [part for part in path.split("/") if part]
    if any(part in {".", ".."} or "\0" in part for part in parts):
        raise StorageError(400, "a path has no . or .. in it")
    try:
        found = _look(root, None)
        for part in parts:
            try:
                below = _look(part, found.fd)
            finally:
                os.close(found.fd)
            found = below
    except OSError as error:
        # Also for what lies behind a link, or is too long a name, or may not be entered: there is nothing to be had.
        raise StorageError(404, "there is nothing at this path") from error
    return found


def listing(found: Found) -> dict[str, Any]:
    """Describe what was found; of a folder also what is in it, by name. Raises StorageError."""
    if not found.is_folder:
        return {"entry": _entry("", found, None)}
    fd = _opened(found)
    try:
        names, more = _names(fd, _LISTED)
        entries = []
        for name in names:
            # What has gone since isn't there.
            with suppress(FileNotFoundError):
                member = _look(name, fd)
                try:
                    entries.append(_entry(name, member, fd))
                finally:
                    os.close(member.fd)
        return {"entries": entries, "more": more}
    finally:
        os.close(fd)


def content(found: Found, buffer: memoryview) -> Iterator[memoryview]:
    """Yield a regular file, as long as it was when it was found. Raises StorageError, BrokenOffError."""
    fd = _opened(found)
    left = found.state.st_size
    try:
        while left:
            count = os.readv(fd, [buffer[: min(left, len(buffer))]])
            if not count:
                raise BrokenOffError("the file became shorter while it was read")
            yield buffer[:count]
            left -= count
    finally:
        os.close(fd)


def archive(found: Found, buffer: memoryview) -> Iterator[memoryview | bytes]:
    """Yield a folder as tar, names relative to it: its folders, files and links, which stay links.

    A file is as long as it was when its turn came: what it lost meanwhile is filled with zeros. What the agent may not
    read, and what is neither file, folder nor link, is left out; the list says which. Raises StorageError before the
    first byte, BrokenOffError after it.
    """
    return _archive(_opened(found), buffer)


def _archive(first: int, buffer: memoryview) -> Iterator[memoryview | bytes]:
    inside: list[_Folder] = [_Folder(first, b"", [])]
    try:
        inside[0].names.extend(_all_names(inside))
        while inside:
            folder = inside[-1]
            if not folder.names:
                inside.pop()
                os.close(folder.fd)
                continue
            name = folder.names.pop()
            path = folder.path + os.fsencode(name)
            try:
                member = _look(name, folder.fd)
            except FileNotFoundError:
                continue
            try:
                if member.is_folder:
                    try:
                        inside.append(_Folder(member.open(), path + b"/", []))
                    except OSError:
                        continue
                    inside[-1].names.extend(_all_names(inside))
                    yield _head(path + b"/", tar.FOLDER, member)
                elif member.is_file:
                    yield from _file(path, member, buffer)
                elif stat.S_ISLNK(member.state.st_mode):
                    target = os.fsencode(os.readlink("", dir_fd=member.fd))
                    yield _head(path, tar.LINK, member, target=target)
            finally:
                os.close(member.fd)
        yield tar.END
    finally:
        for folder in inside:
            os.close(folder.fd)


def _file(path: bytes, member: Found, buffer: memoryview) -> Iterator[memoryview | bytes]:
    try:
        fd = member.open()
    except OSError:
        return
    try:
        size = os.fstat(fd).st_size
        yield _head(path, tar.FILE, member, size=size)
        left = size
        while left:
            count = os.readv(fd, [buffer[: min(left, len(buffer))]])
            if not count:
                # Shorter than it was: the archive holds, and says what was promised of it.
                count = min(left, len(buffer))
                buffer[:count] = bytes(count)
            yield buffer[:count]
            left -= count
        yield tar.padding(size)
    finally:
        os.close(fd)


def _head(path: bytes, kind: bytes, member: Found, *, size: int = 0, target: bytes = b"") -> bytes:
    state = member.state
    return tar.header(
        path, kind=kind, mode=state.st_mode, size=size, modified=int(state.st_mtime), target=target
    )


def _look(name: str, folder: int | None) -> Found:
    fd = os.open(name, _LOOK, dir_fd=folder)
    try:
        return Found(fd, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise


def _opened(found: Found) -> int:
    if not (found.is_folder or found.is_file):
        raise StorageError(409, "this is neither a file nor a folder, and links aren't followed")
    try:
        return found.open()
    except PermissionError:
        raise StorageError(403, "its mode lets nobody but its owner read this") from None
    except OSError as error:
        raise StorageError(404, "there is nothing at this path") from error


def _names(fd: int, most: int) -> tuple[list[str], bool]:
    """Return the names in a folder, each once, in order, and whether there are more than so many."""
    found: set[str] = set()
    with os.scandir(fd) as entries:
        for entry in entries:
            if len(found) == most:
                return sorted(found), True
            found.add(entry.name)
    return sorted(found), False


def _all_names(inside: list[_Folder]) -> list[str]:
    """Return the names in the innermost folder, the last one first."""
    if len(inside) > _DEPTH:
        raise BrokenOffError("folders are too deep")
    names, more = _names(inside[-1].fd, _NAMES - sum(len(folder.names) for folder in inside))
    if more:
        raise BrokenOffError("there are too many files in the folders")
    return names[::-1]


def _entry(name: str, found: Found, folder: int | None) -> dict[str, Any]:
    state = found.state
    entry: dict[str, Any] = {
        "name": name,
        "type": "other",
        "size": state.st_size,
        "modified": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(state.st_mtime, 0), 1 << 36))),
    }
    if found.is_file or found.is_folder:
        entry["type"] = "file" if found.is_file else "folder"
        if folder is not None and not os.access(f"/proc/self/fd/{found.fd}", os.R_OK):
            entry["readable"] = False
    elif stat.S_ISLNK(state.st_mode):
        entry["type"] = "link"
        entry["target"] = os.readlink("", dir_fd=found.fd)
    return entry

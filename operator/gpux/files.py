"""The few file operations that durability depends on, in one object.

Everything that must survive a power cut goes through a `Disk`. Tests replace it by one that records the operations
and then builds every state a crash could leave behind.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

_DIRECTORY_MODE = 0o700
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: BaseException | None) -> bool:
    """Whether an error says, in one of the many ways, that there is no room."""
    return isinstance(error, OSError) and error.errno in _FULL


class Disk:
    """The operations as the operating system does them. Paths are text: the agent does without pathlib."""

    def __init__(self) -> None:
        self._durable: set[str] = set()

    def create(self, path: str) -> int:
        """Open a new file for reading and writing; fails if there is one."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        """Append all of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int) -> None:
        """Make the file's content durable (not its name)."""
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """Close the file."""
        os.close(fd)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; fails if that is taken."""
        os.link(source, target)

    def symlink(self, content: str, path: str) -> None:
        """Make a symbolic link, which is a tiny file that is there whole or not at all; fails if the name is taken."""
        os.symlink(content, path)

    def rename(self, source: str, target: str) -> None:
        """Rename, replacing what has the name."""
        os.rename(source, target)

    def touch(self, path: str, when: float) -> None:
        """Set a name's own time, not that of what a link leads to. A crash may undo it."""
        os.utime(path, (when, when), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        """Remove a name, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def mkdir(self, path: str) -> None:
        """Make a directory, if there is none."""
        with suppress(FileExistsError):
            os.mkdir(path, _DIRECTORY_MODE)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory, if it is there."""
        self._durable.discard(path)
        with suppress(FileNotFoundError):
            os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_directories(self, root: str, *parts: str) -> str:
        """Make directories below an existing root, each durable in its parent; the path of the last.

        A directory that is there already may be one whose maker died before making it durable, so each is made
        durable once per process, found or made.
        """
        path = root
        for part in parts:
            parent, path = path, f"{path}/{part}"
            if path not in self._durable:
                self.mkdir(path)
                self.sync_directory(parent)
                self._durable.add(path)
        return path

    def replace(self, path: str, content: bytes, *, temporary: str) -> None:
        """Put a small file in place, whole and durable, over whatever has the name."""
        self.unlink(temporary)
        fd = self.create(temporary)
        try:
            self.write(fd, content)
            self.sync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(os.path.dirname(path))

"""Content-addressed bytes: what is stored is named by its hash, is never changed, and survives a power cut.

The interface is a Protocol, so that another backend can stand behind the same store. `FileBlobs` keeps one file per
content under its SHA-256 and, per namespace, the list of what that namespace has uploaded. A hash is no secret, so
only that list decides what a namespace can read: bytes are kept once, but nobody learns what others have.

Order of a commit, each step durable before the next matters to anyone: content in a temporary file → its name under
SHA-256, never replacing → the namespace's entry SHA-1 → SHA-256, never replacing → the one back. A crash leaves at
worst bytes that no entry names.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from contextlib import suppress
from typing import BinaryIO, NamedTuple, Protocol

from gpux.files import Disk
from gpux.hashes import FileHash, b58encode

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageFullError(Exception):
    """There is no room for these bytes; nothing of them has stayed."""


class HashConflictError(Exception):
    """Another content with this SHA-1 is stored already. It stays; the new one is refused."""


class Blob(NamedTuple):
    """One stored content."""

    sha1: str
    sha256: str
    size: int

    def document(self) -> dict[str, str | int]:
        """As clients see it."""
        base58 = b58encode(bytes.fromhex(self.sha1))
        return {
            "sha1": self.sha1,
            "sha1_b58": base58,
            "sha256": self.sha256,
            "size": self.size,
            "url": f"gpux://{base58}",
        }


class Upload(Protocol):
    """Bytes on their way in. One thread at a time, except that the two hashes may be fed by two."""

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Keep the next bytes. Raises StorageFullError."""

    def update_sha1(self, chunk: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes."""

    def update_sha256(self, chunk: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes."""

    def commit(self, namespace: str) -> tuple[Blob, bool]:
        """Make them durable; the blob, and whether it is new to the namespace.

        Raises StorageFullError, HashConflictError.
        """

    def abort(self) -> None:
        """Forget them. Safe to call at any time, also after commit."""


class Blobs(Protocol):
    """A backend. The methods block; a server calls them in threads."""

    def begin(self, *, size: int | None) -> Upload:
        """Start an upload of that many bytes, if known. Raises StorageFullError."""

    def open(self, namespace: str, name: FileHash) -> tuple[Blob, BinaryIO] | None:
        """A content that the namespace has uploaded, or None."""

    def free_bytes(self) -> int:
        """Room left."""


class FileBlobs:
    """The backend on a file system with hard links."""

    def __init__(self, root: str, *, disk: Disk | None = None, reserve: int = 64 << 20) -> None:
        """Take possession of the directory, and forget uploads that a former process didn't finish.

        `reserve` bytes are left free by uploads, so that calls can still be recorded when files have filled the disk.
        """
        self._disk = disk or Disk()
        self._root = root
        self._reserve = reserve
        self._temporary = self._disk.make_directories(root, "tmp")
        self._content = self._disk.make_directories(root, "sha256")
        self._index = self._disk.make_directories(root, "index")
        for name in os.listdir(self._temporary):
            self._disk.unlink(f"{self._temporary}/{name}")

    def begin(self, *, size: int | None) -> Upload:
        """See `Blobs`."""
        if self.free_bytes() < (size or 0):
            raise StorageFullError
        return _FileUpload(self, f"{self._temporary}/{secrets.token_hex(16)}", self._disk)

    def open(self, namespace: str, name: FileHash) -> tuple[Blob, BinaryIO] | None:
        """See `Blobs`."""
        try:
            other = os.readlink(f"{self._index}/{namespace}/{name.algorithm}/{name.hex}")
            sha1, sha256 = (name.hex, other) if name.algorithm == "sha1" else (other, name.hex)
            content = open(self._path(sha256), "rb", buffering=0)  # noqa: SIM115 the caller closes it
        except FileNotFoundError:
            return None
        return Blob(sha1, sha256, os.fstat(content.fileno()).st_size), content

    def free_bytes(self) -> int:
        """See `Blobs`: what uploads may still use."""
        state = os.statvfs(self._root)
        return max(0, state.f_bavail * state.f_frsize - self._reserve)

    def keep(self, temporary: str, blob: Blob, namespace: str) -> bool:
        """Name a durable temporary file and enter it for the namespace; whether the entry is new."""
        disk = self._disk
        fan = disk.make_directories(self._content, blob.sha256[:2])
        with suppress(FileExistsError):
            disk.link(temporary, self._path(blob.sha256))
        # Also where the name was there already: whoever made it may not have come to this line.
        disk.sync_directory(fan)
        new = self._enter(namespace, "sha1", blob.sha1, blob.sha256)
        self._enter(namespace, "sha256", blob.sha256, blob.sha1)
        return new

    def _enter(self, namespace: str, algorithm: str, key: str, value: str) -> bool:
        entries = self._disk.make_directories(self._index, namespace, algorithm)
        path = f"{entries}/{key}"
        try:
            self._disk.symlink(value, path)
            new = True
        except FileExistsError:
            new = False
            if os.readlink(path) != value:
                raise HashConflictError from None
        self._disk.sync_directory(entries)
        return new

    def _path(self, sha256: str) -> str:
        return f"{self._content}/{sha256[:2]}/{sha256}"


class _FileUpload:
    """See `Upload`."""

    def __init__(self, blobs: FileBlobs, path: str, disk: Disk) -> None:
        self._blobs = blobs
        self._path: str | None = path
        self._disk = disk
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._fd: int | None = None
        with _room():
            self._fd = disk.create(path)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        if self._fd is None:
            raise ValueError("the upload has ended")
        if self._blobs.free_bytes() < len(chunk):
            raise StorageFullError
        with _room():
            self._disk.write(self._fd, chunk)
        self._size += len(chunk)

    def update_sha1(self, chunk: bytes | bytearray | memoryview) -> None:
        self._sha1.update(chunk)

    def update_sha256(self, chunk: bytes | bytearray | memoryview) -> None:
        self._sha256.update(chunk)

    def commit(self, namespace: str) -> tuple[Blob, bool]:
        if self._fd is None or self._path is None:
            raise ValueError("the upload has ended")
        blob = Blob(self._sha1.hexdigest(), self._sha256.hexdigest(), self._size)
        with _room():
            self._disk.sync(self._fd)
            new = self._blobs.keep(self._path, blob, namespace)
        self.abort()
        return blob, new

    def abort(self) -> None:
        fd, self._fd = self._fd, None
        path, self._path = self._path, None
        if fd is not None:
            self._disk.close(fd)
        if path is not None:
            self._disk.unlink(path)


class _room:  # noqa: N801 used like a function
    """Turn the many ways of being full into one."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StorageFullError from error


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

"""A store's directory, a clock that is moved by hand, and the shortest way to put something in and get it out."""

from __future__ import annotations

import errno
import hashlib
import time
from contextlib import closing

from gpux.blobs import Blob, Keeper
from gpux.files import Disk
from gpux.filestore.backend import FileBlobs
from gpux.hashes import FileHash

TASK = {"task:t": None}
DAY = 86_400.0


class Clock:
    """The time of day, moved ahead."""

    ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


class FullDisk(Disk):
    """Has no room left after so many operations that need some."""

    left: int | None = None

    def _need(self):
        if self.left is not None:
            if not self.left:
                raise OSError(errno.ENOSPC, "full")
            self.left -= 1

    def create(self, path):
        self._need()
        return super().create(path)

    def write(self, fd, data):
        self._need()
        super().write(fd, data)

    def sync(self, fd):
        self._need()
        super().sync(fd)

    def link(self, source, target):
        self._need()
        super().link(source, target)

    def symlink(self, content, path):
        self._need()
        super().symlink(content, path)

    def mkdir(self, path):
        self._need()
        super().mkdir(path)

    def sync_directory(self, path):
        self._need()
        super().sync_directory(path)


def store(root, **options) -> FileBlobs:
    return FileBlobs(str(root), **{"reserve": 0, **options})


def put(blobs, content, namespace="a", *, references=TASK, public=False, size=None):
    upload = blobs.begin(size=size)
    try:
        for take in (upload.write, upload.update_sha1, upload.update_sha256):
            take(content)
        return upload.commit(Keeper(namespace, references, public))
    finally:
        upload.abort()


def get(blobs, content, namespace="a"):
    opened = blobs.open(namespace, sha1(content))
    if opened is None:
        return None
    blob, found = opened
    with closing(found):
        return b"".join(found.read(0, blob.size))


def sha1(content) -> FileHash:
    return FileHash("sha1", hashlib.sha1(content).hexdigest())


def sha256(content) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content) -> Blob:
    return Blob(sha1(content).hex, sha256(content), len(content))


def contents(root):
    return sorted(path.name for path in root.glob("sha256/*/*"))


def rot(root, content):
    """Change a byte where it lies."""
    path = root / "sha256" / sha256(content)[:2] / sha256(content)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    return path

from __future__ import annotations

import errno
import hashlib
from contextlib import closing

import pytest

from gpux.blobs import Keeper, StorageFullError
from gpux.files import Disk
from gpux.filestore.backend import DirectoryLock, FileBlobs
from gpux.hashes import FileHash


class FullDisk(Disk):
    """Fails with "no space" at the operation of the given name."""

    def __init__(self, at):
        super().__init__()
        self.at = None
        self.when = at

    def _maybe(self, name):
        if self.at == name:
            raise OSError(errno.ENOSPC, "full")

    def create(self, path):
        self._maybe("create")
        return super().create(path)

    def write(self, fd, data):
        self._maybe("write")
        super().write(fd, data)

    def sync(self, fd):
        self._maybe("sync")
        super().sync(fd)

    def link(self, source, target):
        self._maybe("link")
        super().link(source, target)

    def symlink(self, content, path):
        self._maybe("symlink")
        super().symlink(content, path)

    def mkdir(self, path):
        self._maybe("mkdir")
        super().mkdir(path)


def put(blobs, content, namespace="a"):
    upload = blobs.begin(size=len(content))
    try:
        upload.write(content)
        upload.update_sha1(content)
        upload.update_sha256(content)
        return upload.commit(Keeper(namespace, {"task:t": None}))
    finally:
        upload.abort()


def get(blobs, content, namespace="a"):
    opened = blobs.open(namespace, sha1(content))
    if opened is None:
        return None
    blob, content = opened
    with closing(content):
        return blob, b"".join(content.read(0, blob.size))


def sha1(content):
    return FileHash("sha1", hashlib.sha1(content).hexdigest())


def test_round_trip(tmp_path):
    blobs = FileBlobs(str(tmp_path), reserve=0)
    blob, new = put(blobs, b"content")
    assert new
    assert blob.sha1 == hashlib.sha1(b"content").hexdigest()
    assert blob.sha256 == hashlib.sha256(b"content").hexdigest()
    assert get(blobs, b"content") == (blob, b"content")
    assert blob.document()["url"] == f"gpux://{blob.document()['sha1_b58']}"


def test_the_same_again_is_not_new_and_kept_once(tmp_path):
    blobs = FileBlobs(str(tmp_path), reserve=0)
    put(blobs, b"content")
    _, new = put(blobs, b"content")
    assert not new
    _, new = put(blobs, b"content", "b")
    assert new
    assert len([path for path in (tmp_path / "sha256").rglob("*") if path.is_file()]) == 1


def test_a_namespace_sees_only_what_it_uploaded(tmp_path):
    blobs = FileBlobs(str(tmp_path), reserve=0)
    put(blobs, b"content")
    assert blobs.open("b", sha1(b"content")) is None
    assert blobs.open("b", FileHash("sha256", hashlib.sha256(b"content").hexdigest())) is None


@pytest.mark.parametrize("operation", ["create", "write", "sync", "link", "symlink", "mkdir"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, operation):
    disk = FullDisk(operation)
    blobs = FileBlobs(str(tmp_path), disk=disk, reserve=0)
    disk.at = operation
    with pytest.raises(StorageFullError):
        put(blobs, b"content")
    disk.at = None
    assert not list((tmp_path / "tmp").iterdir())
    assert blobs.open("a", sha1(b"content")) is None
    put(blobs, b"content")
    assert get(blobs, b"content")[1] == b"content"


def test_what_cannot_fit_is_refused_at_once(tmp_path):
    blobs = FileBlobs(str(tmp_path), reserve=0)
    with pytest.raises(StorageFullError):
        blobs.begin(size=1 << 60)


def test_the_reserve_is_not_for_files(tmp_path):
    blobs = FileBlobs(str(tmp_path), reserve=1 << 60)
    upload = blobs.begin(size=None)
    with pytest.raises(StorageFullError):
        upload.write(b"x")
    upload.abort()


def test_what_a_former_process_left_is_swept(tmp_path):
    FileBlobs(str(tmp_path))
    (tmp_path / "tmp" / "left").write_bytes(b"half")
    FileBlobs(str(tmp_path))
    assert not list((tmp_path / "tmp").iterdir())


def test_an_upload_ends_once(tmp_path):
    blobs = FileBlobs(str(tmp_path), reserve=0)
    upload = blobs.begin(size=None)
    upload.abort()
    upload.abort()
    with pytest.raises(ValueError, match="ended"):
        upload.write(b"x")
    with pytest.raises(ValueError, match="ended"):
        upload.commit(Keeper("a", {}))


def test_one_store_per_directory(tmp_path):
    first, second = (DirectoryLock(str(tmp_path / "lock")) for _ in range(2))
    assert first.try_acquire()
    assert not second.try_acquire()

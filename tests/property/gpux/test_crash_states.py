"""A power cut at any moment leaves no wrong byte under a hash, and nothing missing that was acknowledged."""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from gpux.blobs import Blob, HashConflictError, Keeper
from gpux.calls import RANKS, CallBook, CallRequest
from gpux.files import Disk
from gpux.filestore.backend import FileBlobs
from gpux.hashes import FileHash
from tests.property.gpux.crashes import RecordingDisk, crash_states


class LazyDisk(Disk):
    """For the disk after the crash, which has nothing more to prove."""

    def sync(self, fd):
        """Nothing."""

    def sync_directory(self, path):
        """Nothing."""


CONTENTS = [b"", b"one", b"x" * 5000]


def upload(blobs, content, namespace):
    upload = blobs.begin(size=len(content))
    try:
        for start in range(0, len(content), 2048):
            chunk = content[start : start + 2048]
            upload.write(chunk)
            upload.update_sha1(chunk)
            upload.update_sha256(chunk)
        return upload.commit(Keeper(namespace, {"task:t": None}))
    finally:
        upload.abort()


def names_of(content):
    return [
        FileHash("sha1", hashlib.sha1(content).hexdigest()),
        FileHash("sha256", hashlib.sha256(content).hexdigest()),
    ]


def read(blobs, namespace, name):
    opened = blobs.open(namespace, name)
    if opened is None:
        return None
    blob, content = opened
    with closing(content):
        return b"".join(content.read(0, blob.size))


@pytest.mark.parametrize("content", CONTENTS, ids=len)
def test_files(tmp_path, content):
    """Two namespaces upload the same, one of them twice."""
    real = tmp_path / "real"
    real.mkdir()
    disk = RecordingDisk(real)
    blobs = FileBlobs(str(real), disk=disk, reserve=0)
    for namespace in ("a", "b", "a"):
        upload(blobs, content, namespace)
        disk.acknowledge(namespace)
    states = 0
    for number, (acknowledged, state) in enumerate(crash_states(disk.log)):
        root = tmp_path / str(number)
        root.mkdir()
        state.build(root)
        after = FileBlobs(str(root), disk=LazyDisk(), reserve=0)
        for namespace, name in itertools.product(("a", "b"), names_of(content)):
            found = read(after, namespace, name)
            assert found in {None, content}, (namespace, name, state)
            if namespace in acknowledged:
                assert found == content, (namespace, name, state)
        # Whatever was left, the next upload mends it.
        upload(after, content, "a")
        assert {read(after, "a", name) for name in names_of(content)} == {content}
        assert not list((root / "tmp").iterdir())
        states += 1
    assert states > 300


async def test_calls(tmp_path):
    """A call from its PUT to its removal: what was acknowledged is never undone."""
    real = tmp_path / "real"
    real.mkdir()
    disk = RecordingDisk(real)
    with ThreadPoolExecutor(1) as executor:
        book = CallBook(str(real), executor=executor, disk=disk)
        request = CallRequest("ns", "task", 1, "run", "0xabc", None, {"a": "b" * 100})
        await book.put(request)
        disk.acknowledge("queued")
        await book.claim("task", 1, namespace="ns", pod="p")
        disk.acknowledge("claimed")
        await book.report("task", 1, namespace="ns", state="accepted", status=202, detail=None, sent_at=None)
        disk.acknowledge("accepted")
        answer = Blob("1" * 40, "2" * 64, 7)
        await book.answer("task", 1, namespace="ns", answer=answer)
        disk.acknowledge("answered")
        await book.delete("task")
        disk.acknowledge("deleted")
        steps = set()
        for number, (acknowledged, state) in enumerate(crash_states(disk.log)):
            root = tmp_path / str(number)
            root.mkdir()
            state.build(root)
            after = CallBook(str(root), executor=executor, disk=LazyDisk())
            calls = after.all()
            last = acknowledged[-1] if acknowledged else None
            if last == "deleted":
                assert calls == []
            elif last == "answered":
                # Its removal may be under way.
                assert [call.answer for call in calls] in ([], [answer])
            elif last is not None:
                assert RANKS[calls[0].state] >= RANKS[last]
                assert calls[0].claimed_by == ("p" if last != "queued" else calls[0].claimed_by)
            # Nothing that belongs to no call is left lying about.
            assert {path.name for path in (root / "calls").iterdir()} == {call.task for call in calls}
            for call in calls:
                assert await after.data(call) == request.data
                assert call.digest == request.digest()
            steps.add((last, len(calls)))
        assert {("queued", 1), ("claimed", 1), ("accepted", 1), ("answered", 1), ("deleted", 0)} <= steps


def test_a_second_content_with_a_known_sha1_is_refused(tmp_path):
    """A collision of SHA-1 costs a fortune to make, so the hash is bent instead; what it guards is the same."""
    blobs = FileBlobs(str(tmp_path), reserve=0)
    blob, _ = upload(blobs, b"first", "a")
    second = blobs.begin(size=6)
    second.write(b"second")
    second.update_sha1(b"first")
    second.update_sha256(b"second")
    with pytest.raises(HashConflictError):
        second.commit(Keeper("a", {}))
    second.abort()
    assert read(blobs, "a", FileHash("sha1", blob.sha1)) == b"first"
    assert not list((tmp_path / "tmp").iterdir())

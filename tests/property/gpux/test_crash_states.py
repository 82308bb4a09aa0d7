"""A power cut at any moment leaves no wrong byte under a hash, and nothing missing that was acknowledged."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpux.agent.spool import Spool
from gpux.blobs import PUBLIC, Blob, HashConflictError, Keeper, Retention
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
    assert states > 100


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


def test_spool(tmp_path):
    """An agent's attempt from its beginning to the delivery of its answer: what it relied on is never forgotten."""
    steps = ["begun", "sent", "accepted", "answered", "reported", "delivered"]
    answer = b'{"a": "answer"}'
    real = tmp_path / "real"
    real.mkdir()
    disk = RecordingDisk(real)
    spool = Spool(str(real), disk=disk)
    spool.begin(1, "0xabc")
    disk.acknowledge("begun")
    spool.mark_sent(5.0)
    disk.acknowledge("sent")
    spool.mark_state("accepted", status=202)
    disk.acknowledge("accepted")
    temporary = spool.temporary()
    fd = disk.create(temporary)
    disk.write(fd, answer)
    disk.sync(fd)
    disk.close(fd)
    assert spool.take_answer("0xabc", temporary) == "wanted"
    disk.unlink(temporary)
    disk.acknowledge("answered")
    spool.mark_reported(1)
    disk.acknowledge("reported")
    spool.mark_delivered(1)
    disk.acknowledge("delivered")
    os.close(spool._lock_file)
    seen = set()
    for number, (acknowledged, state) in enumerate(crash_states(disk.log)):
        root = tmp_path / str(number)
        root.mkdir()
        state.build(root)
        after = Spool(str(root), disk=LazyDisk())
        os.close(after._lock_file)
        done = steps[: len(acknowledged)]
        entry: Any = after.entry()
        waiting = after.undelivered()
        if done:
            assert (entry.attempt, entry.address) == (1, "0xabc")
        if "sent" in done:
            # Or the call would be sent again.
            assert (entry.step, entry.sent_at) == ("sent", 5.0)
        if "accepted" in done:
            assert (entry.state, entry.status) == ("accepted", 202)
        if "answered" in done:
            # It waits, unless its delivery was being noted already.
            assert waiting is not None or (entry.delivered and "reported" in done)
            assert after.expects("0xabc") == "duplicate"
        if waiting is not None:
            assert Path(waiting[1]).read_bytes() == answer
        if "delivered" in done:
            assert waiting is None
            assert after.settled()
        assert {path.name for path in root.iterdir()} <= {"lock", "call.json", "answer-1.json"}
        seen.add((len(done), waiting is not None))
    # Every step, and the answer also where its being taken, or its delivery, was under way.
    without, with_answer = (
        {count for count, waits in seen if waits is expected} for expected in (False, True)
    )
    assert (without, with_answer) == ({0, 1, 2, 3, 5, 6}, {3, 4, 5})


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


TASK = {"task:t": None}


def keep(blobs, content, *, namespace="a", **keeper):
    upload = blobs.begin(size=None)
    try:
        for take in (upload.write, upload.update_sha1, upload.update_sha256):
            take(content)
        return upload.commit(Keeper(namespace, **{"references": TASK, **keeper}))
    finally:
        upload.abort()


def states_of(tmp_path, live, *, most=256):
    """Let a store live on a recording disk; every state that a crash leaves, with what was acknowledged last."""
    real = tmp_path / "real"
    real.mkdir()
    disk = RecordingDisk(real)
    live(FileBlobs(str(real), disk=disk, reserve=0), disk)
    for number, (acknowledged, state) in enumerate(crash_states(disk.log, most=most)):
        root = tmp_path / str(number)
        root.mkdir()
        state.build(root)
        after = FileBlobs(str(root), disk=LazyDisk(), reserve=0, clock=lambda: time.time() + 1000.0)
        yield acknowledged[-1] if acknowledged else None, after, root
        shutil.rmtree(root)


def assert_sound(after, must, *, contents=(b"one", b"two", b"x" * 5000)):
    """No wrong byte, nothing missing that must be there; what is counted is what is referred to; then it mends."""
    for namespace, content in itertools.product(("a", "b", PUBLIC), contents):
        for name in names_of(content):
            found = read(after, namespace, name)
            assert found in {None, content}
            assert found == content or (namespace, content) not in must
    layout, accounts = after._layout, after._shelves.accounts
    for namespace, reference in layout.referring():
        sizes = [
            int(str(Path(layout.reference(namespace, reference, sha1)).readlink()))
            for sha1 in layout.referred(namespace, reference)
        ]
        assert accounts.used(namespace, reference) == sum(sizes)
    after.sweep(Retention(grace=1.0, unused=None))
    for namespace, content in must:
        assert read(after, namespace, names_of(content)[0]) == content
    stored = {path.name for path in Path(layout.contents).glob("*/*")}
    named = {path.name for path in Path(layout.index).glob("*/sha256/*")}
    assert stored <= named
    assert after.usage().objects == len(stored)


def test_references_and_sweeps(tmp_path):
    """Files come, are shared, published and let go, and swept, and come again."""
    one, two = b"one", b"two"

    def live(blobs, disk):
        must: set[tuple[str, bytes]] = set()

        def step(action, *, removes=(), adds=()):
            must.difference_update(removes)
            disk.acknowledge(frozenset(must))
            action()
            must.update(adds)
            disk.acknowledge(frozenset(must))

        step(lambda: keep(blobs, one), adds=[("a", one)])
        owned = {"task:u": None, "owner:o": None}
        step(
            lambda: keep(blobs, one, namespace="b", references=owned, public=True),
            adds=[("b", one), (PUBLIC, one)],
        )
        step(lambda: keep(blobs, two), adds=[("a", two)])
        step(lambda: blobs.drop("task:t"), removes=[("a", one), ("a", two)])
        blobs._shelves.clock = lambda: time.time() + 1000.0
        step(lambda: blobs.sweep(Retention(grace=1.0, unused=None)))
        assert blobs.usage().objects == 1
        step(lambda: keep(blobs, two), adds=[("a", two)])

    counts: Counter[Any] = Counter()
    for must, after, _ in states_of(tmp_path, live, most=48):
        assert_sound(after, must or frozenset())
        counts[must] += 1
    assert len(counts) == 7
    assert counts.total() > 400


def test_a_reference_that_was_dropped_stays_dropped(tmp_path):
    def live(blobs, disk):
        keep(blobs, b"one")
        blobs.drop("task:t")
        disk.acknowledge("dropped")
        keep(blobs, b"two", references={"task:u": None})

    seen = 0
    for acknowledged, after, _ in states_of(tmp_path, live):
        if acknowledged == "dropped":
            assert not after.entries("a", references=["task:t"], limit=10)
            assert not after._shelves.accounts.used("a", "task:t")
            seen += 1
    assert seen > 20


def test_quarantine(tmp_path):
    """A rotten file is moved aside, and the right bytes come again: from then on they are there."""
    one = b"one"

    def live(blobs, disk):
        keep(blobs, one)
        keep(blobs, one, namespace="b")
        sha256 = names_of(one)[1].hex
        with blobs._shelves.lock(sha256):
            blobs._shelves.set_aside(sha256)
        keep(blobs, one)
        disk.acknowledge(frozenset({("a", one), ("b", one)}))

    seen = set()
    for must, after, root in states_of(tmp_path, live):
        assert_sound(after, must or frozenset())
        seen.add((bool(must), len(list(root.glob("quarantine/*")))))
    assert {(False, 0), (False, 1), (True, 1)} <= seen


def test_folders_references_come_together_or_count_as_they_are(tmp_path):
    def live(blobs, disk):
        members = [keep(blobs, content, references={})[0] for content in (b"one", b"two")]
        blobs.refer(Keeper("a", TASK), members)
        disk.acknowledge(frozenset({("a", b"one"), ("a", b"two")}))

    for must, after, _ in states_of(tmp_path, live):
        assert_sound(after, must or frozenset())


def test_the_upgrade_of_a_store_without_references(tmp_path):
    """Interrupted anywhere, it is done at the next start; nothing is lost to the first sweep."""
    contents = (b"one", b"two")
    old = tmp_path / "old"
    old.mkdir()
    blobs = FileBlobs(str(old), disk=LazyDisk(), reserve=0)
    for content in contents:
        keep(blobs, content, references={})
    (old / "layout").unlink()
    (old / "refs").rmdir()
    shutil.copytree(old, tmp_path / "real", symlinks=True)
    disk = RecordingDisk(tmp_path / "real")
    FileBlobs(str(tmp_path / "real"), disk=disk, reserve=0)
    states = 0
    for number, (_, state) in enumerate(crash_states(disk.log)):
        root = tmp_path / str(number)
        shutil.copytree(old, root, symlinks=True)
        state.build(root)
        after = FileBlobs(str(root), disk=LazyDisk(), reserve=0, clock=lambda: time.time() + 1000.0)
        assert_sound(after, {("a", content) for content in contents})
        states += 1
    assert states > 5

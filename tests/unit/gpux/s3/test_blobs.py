"""Two stores' files in one bucket of a real server."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gpux.blobs import PUBLIC, Blob, HashConflictError, Keeper, QuotaError, Retention, Usage
from gpux.calls import CallRequest
from gpux.errors import UnavailableError
from gpux.hashes import FileHash
from gpux.s3 import parts
from gpux.s3.blobs import S3Blobs
from gpux.s3.calls import S3CallBook
from gpux.s3.shelves import DYING, GONE, LIVE, ROTTEN
from tests.unit.gpux.s3.kit import WarmBlobs

DAY = 86_400.0
TASK = {"task:t": None}
FORGET = Retention(grace=DAY, unused=90 * DAY)


class Clock:
    """Time that moves when it is told to."""

    ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["bucket", "cached"])
def make(request, bucket, clock, tmp_path, tmp_path_factory, monkeypatch):
    # Parts as small as S3 has them.
    monkeypatch.setattr(parts, "_PART", 5 << 20)

    def build(**options):
        options = {"clock": clock, "spool": str(tmp_path), "settle": -5.0, **options}
        if request.param == "bucket":
            return S3Blobs(bucket, **options)
        return WarmBlobs(bucket, folder=tmp_path_factory.mktemp("cache"), **options)

    return build


@pytest.fixture
def blobs(make):
    return make()


def put(blobs, content, namespace="a", references=TASK, *, public=False):
    upload = blobs.begin(size=None)
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
    with closing(opened[1]) as found:
        return b"".join(found.read(0, opened[0].size))


def by_sha256(blobs, content):
    blob, opened = blobs.open("a", sha256(content))
    with closing(opened):
        return b"".join(opened.read(0, blob.size))


def sha1(content):
    return FileHash("sha1", hashlib.sha1(content).hexdigest())


def sha256(content):
    return FileHash("sha256", hashlib.sha256(content).hexdigest())


def blob(content):
    return Blob(sha1(content).hex, sha256(content).hex, len(content))


def keys(bucket, prefix):
    return [found.key for found in bucket.listing(prefix)]


def large(seed=1):
    return bytes([seed]) + bytes(range(256)) * 4096 * 11


def meanwhile(monkeypatch, shelves, moment, action):
    """Let something happen when references have been listed first, an entry was marked, or before it is gone."""
    write, references = shelves.write, shelves.references
    looks = 0

    def marking(namespace, sha1, entry, *, match):
        etag = write(namespace, sha1, entry, match=match)
        if (entry.state, moment) == (DYING, "marked"):
            action()
        return etag

    def looking(namespace, name=None):
        nonlocal looks
        looks += 1
        found = list(references(namespace, name))
        if (looks, moment) in {(1, "listed"), (2, "looked")}:
            action()
        return iter(found)

    monkeypatch.setattr(shelves, "write", marking)
    monkeypatch.setattr(shelves, "references", looking)


def test_what_is_stored_by_one_is_read_by_the_other(make):
    one, other = make(), make()
    assert put(one, b"content") == (blob(b"content"), True)
    assert get(other, b"content") == b"content"
    found, opened = other.open("a", sha256(b"content"))
    assert found == blob(b"content")
    with closing(opened):
        assert b"".join(opened.read(2, 5)) == b"nte"
        assert list(opened.read(3, 3)) == []
    assert put(other, b"content") == (blob(b"content"), False)
    assert other.open("b", sha1(b"content")) is None
    assert other.open("b", sha256(b"content")) is None
    assert put(one, b"") == (blob(b""), True)
    assert get(other, b"") == b""


def test_parts(blobs, bucket, tmp_path):
    content = large()
    assert len(content) > 2 * parts._PART
    assert put(blobs, content) == (blob(content), True)
    assert get(blobs, content) == content
    _, opened = blobs.open("a", sha1(content))
    with closing(opened):
        assert b"".join(opened.read(7, 6_000_000)) == content[7:6_000_000]
        assert max(map(len, opened.read(0, len(content)))) <= 1 << 20
    assert list(bucket.uploads("data/")) == []
    # The same once more doesn't stay, and leaves no part behind.
    assert put(blobs, content) == (blob(content), False)
    assert len(keys(bucket, "data/")) == 1
    assert list(bucket.uploads("data/")) == []
    assert not list(tmp_path.iterdir())


def test_an_upload_that_ends_leaves_nothing(blobs, bucket):
    upload = blobs.begin(size=None)
    upload.write(large())
    assert len(list(bucket.uploads("data/"))) == 1
    upload.abort()
    upload.abort()
    assert list(bucket.uploads("data/")) == []
    assert keys(bucket, "") == []
    with pytest.raises(ValueError, match="has ended"):
        upload.write(b"x")
    with pytest.raises(ValueError, match="has ended"):
        upload.commit(Keeper("a", TASK))


def test_another_content_with_the_same_sha1_is_refused(blobs, bucket):
    put(blobs, b"content")
    upload = blobs.begin(size=None)
    upload.write(b"another")
    upload.update_sha1(b"content")
    upload.update_sha256(b"another")
    with pytest.raises(HashConflictError):
        upload.commit(Keeper("a", {"task:u": None}))
    upload.abort()
    assert get(blobs, b"content") == b"content"
    assert blobs.holders("task") == [("a", "t")]
    assert len(keys(bucket, "data/")) == 1


def test_the_same_at_once_from_many_is_stored_once(make, bucket):
    stores = [make(), make()]
    together = threading.Barrier(6)

    def upload(number):
        together.wait()
        return put(stores[number % 2], large(), references={f"task:{number}": None})[1]

    with ThreadPoolExecutor(6) as pool:
        new = list(pool.map(upload, range(6)))
    assert new.count(True) == 1
    assert get(stores[0], large()) == large()
    assert len(keys(bucket, "data/")) == 1
    assert {task for _, task in stores[1].holders("task")} == set("012345")


def test_public_files_have_a_second_entry_of_the_same_bytes(blobs, bucket):
    put(blobs, b"content", public=True)
    assert get(blobs, b"content", PUBLIC) == b"content"
    assert len(keys(bucket, "data/")) == 1
    blobs.drop("task:t", namespace="a")
    blobs._shelves.clock.ahead = 2 * DAY
    assert blobs.sweep(FORGET).entries == 1
    assert get(blobs, b"content") is None
    assert get(blobs, b"content", PUBLIC) == b"content"
    blobs.drop("task:t")
    blobs._shelves.clock.ahead = 4 * DAY
    assert blobs.sweep(FORGET).objects == 1
    assert keys(bucket, "data/") == []


def test_quotas_count_what_is_referred_to(make, bucket):
    one, other = make(), make()
    limited = {"task:t": 10, "owner:o": 15}
    put(one, b"1234567", references=limited)
    with pytest.raises(QuotaError, match="the task t may keep 10 bytes"):
        put(other, b"7654321", references=limited)
    assert other.open("a", sha1(b"7654321")) is None
    assert [found.references for found in other.entries("a", limit=9)] == [["owner:o", "task:t"]]
    # What is there costs nothing, and what fits is taken to the last byte.
    put(other, b"1234567", references=limited)
    put(other, b"123", references=limited)
    put(other, b"", references=limited)
    with pytest.raises(QuotaError, match="the owner o may keep 15 bytes"):
        one.refer(Keeper("a", {"owner:o": 15}), [put(one, b"another", references=TASK | {"task:u": None})[0]])
    assert [found.blob.size for found in one.entries("a", references=["owner:o"], limit=9)].count(7) == 1
    # Another namespace's task of that name is another.
    put(one, b"1234567890", "b", {"task:t": 10})


def test_two_stores_at_once_cannot_both_have_the_last_bytes(make):
    stores = [make(), make()]
    together = threading.Barrier(4)

    def upload(number):
        together.wait()
        try:
            put(stores[number % 2], b"1234567" + bytes([number]), references={"task:t": 10})
        except QuotaError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(upload, range(4))) <= 1
    left = sum(found.size for found in stores[0]._shelves.references("a", "task:t"))
    assert left <= 10


def test_references_can_be_made_and_ended(make):
    one, other = make(), make()
    put(one, b"content")
    keeper = Keeper("a", {"keep:report": None})
    other.refer(keeper, [blob(b"content"), blob(b"content")])
    with pytest.raises(KeyError):
        other.refer(Keeper("a", {"keep:other": None}), [blob(b"content"), blob(b"nothing")])
    assert other.holders("keep") == [("a", "report")]
    assert one.entries("a", limit=9)[0].references == ["keep:report", "task:t"]
    assert one.drop("task:t") == 1
    assert one.drop("task:t") == 0
    assert other.drop("keep:report", namespace="b") == 0
    assert other.drop("keep:report", namespace="a") == 1


def test_entries_come_in_pages(blobs):
    contents = [str(number).encode() for number in range(7)]
    for number, content in enumerate(contents):
        put(blobs, content, references={f"task:{number % 2}": None})
    names = sorted(sha1(content).hex for content in contents)
    first = blobs.entries("a", limit=4)
    assert [entry.blob.sha1 for entry in first] == names[:4]
    rest = blobs.entries("a", after=names[3], limit=4)
    assert [entry.blob.sha1 for entry in rest] == names[4:]
    even = blobs.entries("a", references=["task:0", "task:9"], limit=9)
    assert [entry.blob.sha1 for entry in even] == sorted(sha1(content).hex for content in contents[::2])
    assert blobs.entries("b", limit=9) == []


# -------------------------------------------------------------------------------------------------------------- sweep


def test_the_sweep_takes_what_nothing_refers_to_after_a_grace(make, bucket, clock):
    bucket.check()
    one, other = make(), make()
    put(one, b"needed", references={"task:u": None})
    put(one, b"content")
    clock.ahead = 5 * DAY
    one.drop("task:t")
    assert one.sweep(FORGET) == (0, 0, 0, 0)
    clock.ahead += 2 * DAY
    assert one.sweep(FORGET) == (0, 1, 1, 7)
    assert other.sweep(FORGET) == (0, 0, 0, 0), "another store's turn"
    assert one.open("a", sha1(b"content")) is None
    assert one.usage() == Usage(1, 6)
    assert one.open("a", sha256(b"content")) is None
    clock.ahead += 8 * DAY
    one.sweep(FORGET)
    assert keys(bucket, "hashes/") == [f"hashes/a/{sha256(b'needed').hex}"]
    assert keys(bucket, "entries/") == [f"entries/a/{sha1(b'needed').hex}"]
    assert get(one, b"needed") == b"needed"
    # And it can come again.
    assert put(other, b"content")[1]
    assert get(one, b"content") == b"content"


def test_on_a_service_that_cannot_remove_on_a_condition_the_entry_stays_as_gone(make, bucket, clock):
    assert not bucket.removes
    blobs = make()
    put(blobs, b"content")
    blobs.drop("task:t")
    clock.ahead = 2 * DAY
    assert blobs.sweep(FORGET).objects == 1
    clock.ahead = 20 * DAY
    blobs.sweep(FORGET)
    assert blobs._shelves.read("a", sha1(b"content").hex).entry.state == GONE
    assert blobs.open("a", sha256(b"content")) is None
    assert blobs.entries("a", limit=9) == []
    assert put(blobs, b"content") == (blob(b"content"), True)
    assert get(blobs, b"content") == b"content"


def test_owners_lose_what_they_do_not_use(make, clock):
    blobs = make()
    put(blobs, b"content", references={"owner:o": None, "keep:k": None})
    put(blobs, b"used", references={"owner:o": None})
    clock.ahead = 80 * DAY
    assert get(blobs, b"used") == b"used"
    clock.ahead = 100 * DAY
    assert blobs.sweep(FORGET).references == 1
    assert blobs.sweep(Retention(grace=DAY, unused=None)) == (0, 0, 0, 0)
    assert {tuple(entry.references) for entry in blobs.entries("a", limit=9)} == {("keep:k",), ("owner:o",)}


@pytest.mark.parametrize("moment", ["listed", "marked", "looked"])
def test_an_upload_that_meets_the_sweep_keeps_its_bytes(make, bucket, clock, monkeypatch, moment):
    """Whether the bytes come again right before the entry is marked, after that, or after the last look."""
    bucket.check()
    # Contents that come while it sweeps are told by their age.
    one, other = make(settle=3600.0), make()
    put(one, b"content")
    one.drop("task:t")
    # So soon after its last use that the upload doesn't have to note another.
    clock.ahead = 600.0
    soon = Retention(grace=60.0, unused=None)
    meanwhile(monkeypatch, one._shelves, moment, lambda: put(other, b"content", references={"task:u": None}))
    one.sweep(soon)
    monkeypatch.undo()
    assert get(other, b"content") == b"content"
    one.sweep(soon)
    assert get(other, b"content") == b"content"
    assert by_sha256(other, b"content") == b"content"
    assert one._shelves.read("a", sha1(b"content").hex).entry.state == LIVE


def test_a_sweep_that_ended_midway_is_taken_up(make, bucket, clock):
    blobs = make()
    for content in (b"kept", b"not kept"):
        put(blobs, content, references={f"task:{content.decode()[:4]}": None})
        seen = blobs._shelves.read("a", sha1(content).hex)
        blobs._shelves.write("a", sha1(content).hex, seen.entry._replace(state=DYING), match=seen.etag)
    blobs.drop("task:not ")
    assert get(blobs, b"kept") == b"kept", "marked is not gone"
    clock.ahead = 2 * DAY
    assert blobs.sweep(FORGET).entries == 1
    assert blobs._shelves.read("a", sha1(b"kept").hex).entry.state == LIVE
    assert blobs.open("a", sha1(b"not kept")) is None


def test_the_sweep_takes_what_crashes_left_and_only_when_it_is_old(make, bucket):
    put(make(), b"content")
    bucket.put("data/" + "1" * 32, b"completed, but entered nowhere")
    bucket.put(f"refs/a/task:x/{'2' * 40}.5", b"")
    bucket.begin("data/" + "3" * 32)
    assert make(settle=3600.0, abandoned=3600.0).sweep(FORGET) == (0, 0, 0, 0)
    bucket.delete("leases/sweep")
    assert len(list(bucket.uploads("data/"))) == 1
    assert make(abandoned=-5.0).sweep(FORGET) == (1, 0, 1, 30)
    assert list(bucket.uploads("data/")) == []
    assert len(keys(bucket, "data/")) == len(keys(bucket, "refs/")) == 1


def test_what_has_rotted_never_comes_to_life_again(make, clock, monkeypatch):
    """Not even if somebody refers to it while the sweep removes it: it has to come again."""
    blobs, other = make(), make()
    shelves = blobs._shelves
    put(blobs, b"content")
    seen = shelves.read("a", sha1(b"content").hex)
    shelves.write("a", sha1(b"content").hex, seen.entry._replace(state=ROTTEN), match=seen.etag)
    blobs.drop("task:t")
    clock.ahead = 2 * DAY
    meanwhile(
        monkeypatch, shelves, "listed", lambda: shelves.refer("a", "task:u", blob(b"content"), limit=None)
    )
    blobs.sweep(FORGET)
    assert blobs.open("a", sha1(b"content")) is None
    put(other, b"content", references={"task:u": None})
    assert get(blobs, b"content") == b"content"


# ------------------------------------------------------------------------------------------------------------- forget


def state(blobs, content):
    return blobs._shelves.read("a", sha1(content).hex).entry.state


def test_what_nothing_refers_to_is_forgotten_at_once_and_nothing_else(make, bucket):
    one, other = make(), make()
    mine, shared, public = b"mine", b"of two", b"public"
    for content in (mine, shared):
        assert put(one, content, references={})[1]
    assert put(one, public, references={}, public=True)[1]
    put(other, shared, references={"task:u": None})
    put(other, mine, "b")
    before = one._shelves.read("a", sha1(shared).hex)
    one.forget("a", [blob(mine), blob(shared), blob(public), blob(b"nothing")])
    for content in (mine, public):
        for store in (one, other):
            assert store.open("a", sha1(content)) is None
            assert store.open("a", sha256(content)) is None
        assert state(one, content) == GONE
    assert one.open(PUBLIC, sha1(public)) is None
    assert get(other, mine, "b") == mine
    assert get(other, shared) == shared
    assert one._shelves.read("a", sha1(shared).hex) == before, "not even marked"
    one.forget("a", [blob(mine), blob(shared), blob(public)])
    # The bytes go with a sweep, whatever its grace.
    assert len(keys(bucket, "data/")) == 4
    assert one.sweep(FORGET) == (0, 0, 2, len(mine + public))
    assert put(one, mine) == (blob(mine), True)
    assert get(other, mine) == mine


def test_another_content_with_the_same_sha1_is_not_forgotten(blobs):
    put(blobs, b"content", references={})
    blobs.forget("a", [blob(b"content")._replace(sha256=sha256(b"another").hex)])
    assert get(blobs, b"content") == b"content"


@pytest.mark.parametrize("moment", ["listed", "marked", "looked"])
def test_an_upload_that_meets_a_forget_keeps_its_bytes(make, monkeypatch, moment):
    one, other = make(settle=3600.0), make()
    put(one, b"content", references={})
    meanwhile(monkeypatch, one._shelves, moment, lambda: put(other, b"content", references={"task:u": None}))
    one.forget("a", [blob(b"content")])
    monkeypatch.undo()
    for _ in range(2):
        assert get(other, b"content") == b"content"
        assert by_sha256(other, b"content") == b"content"
        assert state(one, b"content") == LIVE
        one.sweep(Retention(grace=-60.0, unused=None))


@pytest.mark.parametrize("moment", ["listed", "marked", "looked"])
def test_whoever_refers_to_what_is_being_forgotten_has_it_or_is_told(make, monkeypatch, moment):
    """As another folder does at its end, with the files that it has in common with the one that is refused."""
    one, other = make(), make()
    put(one, b"content", references={})
    told = []

    def refer():
        try:
            other.refer(Keeper("a", {"task:u": None}), [blob(b"content")])
        except KeyError:
            told.append(moment)

    meanwhile(monkeypatch, one._shelves, moment, refer)
    one.forget("a", [blob(b"content")])
    monkeypatch.undo()
    assert told == ([] if moment == "listed" else [moment])
    assert get(other, b"content") == (None if told else b"content")
    assert other.holders("task") == ([] if told else [("a", "u")])


def test_an_entry_that_lived_again_is_not_taken_for_what_was_marked(make, monkeypatch):
    """While one store has marked an entry, others save it, rely on it, and mark it once more."""
    one, other = make(), make()
    shelves = other._shelves
    put(one, b"content", references={})

    def save():
        shelves.refer("a", "task:u", blob(b"content"), limit=None)
        other.sweep(FORGET)
        assert put(other, b"content", references={"task:u": None}) == (blob(b"content"), False)
        seen = shelves.read("a", sha1(b"content").hex)
        assert seen.entry.state == LIVE
        shelves.write("a", sha1(b"content").hex, seen.entry._replace(state=DYING), match=seen.etag)

    meanwhile(monkeypatch, one._shelves, "looked", save)
    one.forget("a", [blob(b"content")])
    monkeypatch.undo()
    other.sweep(FORGET)
    assert state(one, b"content") == LIVE
    assert get(one, b"content") == b"content"


def test_who_stores_what_is_dying_forgets_it_too(make, monkeypatch):
    """Of two folders with the same file that are refused at the same time, the later one removes it."""
    one, other = make(), make()
    put(one, b"content", references={})
    new = []
    meanwhile(
        monkeypatch, one._shelves, "marked", lambda: new.append(put(other, b"content", references={})[1])
    )
    one.forget("a", [blob(b"content")])
    assert (new, get(one, b"content")) == ([True], b"content")
    other.forget("a", [blob(b"content")])
    assert get(one, b"content") is None


def test_uploads_and_forgets_of_the_same_content_at_once(make):
    """Whatever the order, what was acknowledged is there, and what was refused isn't, unless others have it."""
    stores = [make(settle=3600.0), make(settle=3600.0)]
    together = threading.Barrier(4)

    def refused(store, content):
        together.wait()
        # Another one that is refused may take it away at once.
        with suppress(UnavailableError):
            put(store, content, references={})
            store.forget("a", [blob(content)])

    def kept(store, content):
        together.wait()
        put(store, content, references={"task:u": None})

    with ThreadPoolExecutor(4) as pool:
        for number in range(30):
            content = b"content %d" % number
            put(stores[0], content, references={})
            uploads = [kept, kept] if number % 3 else [refused, refused]
            working = [
                pool.submit(work, stores[nth % 2], content)
                for nth, work in enumerate([refused, refused, *uploads])
            ]
            for done in working:
                done.result()
            assert get(stores[1], content) == (content if number % 3 else None)
    stores[0].sweep(Retention(grace=-60.0, unused=None))
    for number in range(30):
        content = b"content %d" % number
        assert get(stores[1], content) == (content if number % 3 else None)


# -------------------------------------------------------------------------------------------------------------- scrub


def test_the_scrub_finds_what_has_rotted_and_an_upload_mends_it(make, bucket, clock):
    blobs = make()
    for content in (b"content", b"sound", b"", b"missing"):
        put(blobs, content)
    broken = f"data/{blobs._shelves.read('a', sha1(b'content').hex).entry.data}"
    bucket.put(broken, b"c0ntent")
    bucket.delete(f"data/{blobs._shelves.read('a', sha1(b'missing').hex).entry.data}")
    read = []

    def pause(size):
        read.append(size)
        return True

    found = blobs.scrub(every=DAY, pause=pause)
    assert (found.objects, found.quarantined, found.unreadable) == (3, 1, 1)
    assert sum(read) == 12
    assert blobs.scrub(every=DAY, pause=lambda _: True) == (0, 0, 0, 0)
    assert blobs._shelves.read("a", sha1(b"content").hex).entry.state == ROTTEN
    assert blobs.open("a", sha1(b"content")) is None
    assert blobs.open("a", sha1(b"missing")) is None
    assert blobs.sweep(FORGET).objects == 0, "what has rotted is kept to be looked at"
    for content in (b"content", b"missing"):
        put(blobs, content)
        assert get(blobs, content) == content
    clock.ahead = 2 * DAY
    assert blobs.scrub(every=DAY, pause=lambda _: True).objects == 4


def test_a_scrub_that_ended_midway_goes_on(make, bucket):
    blobs = make()
    for number in range(5):
        put(blobs, bytes([number]))
    read = []

    def pause(size):
        read.append(size)
        return len(read) < 3

    assert blobs.scrub(every=DAY, pause=pause).objects == 2
    assert blobs.scrub(every=DAY, pause=lambda _: True).objects == 5


# ------------------------------------------------------------------------------------------------------------- backup


def test_a_copy_that_is_made_at_work_in_the_documented_order_is_whole(make, bucket, server, tmp_path):
    text = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
    order = re.findall(r"in this order: (`refs`.*?)\. As above", text, re.DOTALL)[0]
    blobs = make()
    answer = put(blobs, b'{"the": "answer"}', references={"task:called": None})[0]
    asyncio.run(call(bucket, answer))
    stop = threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            put(blobs, f"content {number}".encode(), references={f"task:{number % 5}": None})
            number += 1

    with ThreadPoolExecutor(2) as pool, server.bucket() as backup:
        working = pool.submit(work)
        while len(keys(bucket, "entries/")) < 10:
            assert not working.done()
        for folder in re.findall(r"`(\w+)`", order):
            for key in keys(bucket, f"{folder}/"):
                backup.put(key, bucket.get(key).body)
            before = len(keys(bucket, "entries/"))
            while len(keys(bucket, "entries/")) < before + 3:
                assert not working.done()
        stop.set()
        working.result()
        copied = S3Blobs(backup, spool=str(tmp_path), settle=-5.0)
        copied.sweep(FORGET)
        entries = copied.entries("a", limit=1000)
        assert len(entries) >= 10
        for entry in entries:
            for name in (FileHash("sha1", entry.blob.sha1), FileHash("sha256", entry.blob.sha256)):
                opened = copied.open("a", name)
                assert opened is not None
                assert blob(b"".join(opened[1].read(0, entry.blob.size))) == entry.blob
        referred = {found.sha1 for found in copied._shelves.references("a")}
        assert referred <= {entry.blob.sha1 for entry in entries}
        assert answer in [entry.blob for entry in entries]
        assert asyncio.run(calls_of(backup)) == [("answered", answer, {"n": 1}), ("queued", None, {"n": 2})]


async def call(bucket, answer):
    """One attempt that is answered, and one that waits."""
    with ThreadPoolExecutor(2) as executor:
        book = S3CallBook(bucket, executor=executor)
        await book.put(CallRequest("a", "called", 1, "f", "0x1", None, {"n": 1}))
        await book.claim("called", 1, namespace="a", pod="p")
        await book.answer("called", 1, namespace="a", answer=answer)
        await book.put(CallRequest("a", "called", 2, "f", "0x2", None, {"n": 2}))


async def calls_of(bucket):
    """State, answer and input of all calls, as a store that starts on the bucket has them."""
    with ThreadPoolExecutor(2) as executor:
        book = S3CallBook(bucket, executor=executor)
        calls = sorted(book.all(), key=lambda call: call.attempt)
        return [(call.state, call.answer, await book.data(call)) for call in calls]

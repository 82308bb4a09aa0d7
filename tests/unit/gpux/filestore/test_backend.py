from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from gpux.blobs import PUBLIC, HashConflictError, Keeper, QuotaError, Retention, StorageFullError, Usage
from gpux.filestore.backend import UPGRADE, DirectoryLock
from gpux.hashes import FileHash
from tests.unit.gpux.filestore.kit import (
    DAY,
    TASK,
    Clock,
    FullDisk,
    blob,
    contents,
    get,
    put,
    rot,
    sha1,
    sha256,
    store,
)


def test_round_trip(tmp_path):
    blobs = store(tmp_path)
    stored, new = put(blobs, b"content")
    assert new
    assert stored == blob(b"content")
    assert get(blobs, b"content") == b"content"
    assert stored.document()["url"] == f"gpux://{stored.document()['sha1_b58']}"


def test_any_part_can_be_read(tmp_path):
    blobs = store(tmp_path)
    content = bytes(range(256)) * 5000
    put(blobs, content)
    found = blobs.open("a", sha1(content))
    assert found
    with closing(found[1]) as opened:
        assert b"".join(opened.read(7, 1_100_000)) == content[7:1_100_000]
        assert max(map(len, opened.read(0, len(content)))) <= 1 << 20
        assert list(opened.read(5, 5)) == []
        file = opened.file()
        assert file
        assert file.read() == content


def test_the_same_again_is_not_new_and_kept_once(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"content")
    _, new = put(blobs, b"content")
    assert not new
    _, new = put(blobs, b"content", "b")
    assert new
    assert contents(tmp_path) == [sha256(b"content")]
    assert blobs.usage() == Usage(1, 7)
    assert store(tmp_path).usage() == Usage(1, 7)


def test_a_namespace_sees_only_what_it_uploaded(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"content")
    assert blobs.open("b", sha1(b"content")) is None
    assert blobs.open("b", FileHash("sha256", sha256(b"content"))) is None
    assert blobs.entries("b", limit=9) == []
    assert blobs.open(PUBLIC, sha1(b"content")) is None


def test_a_public_file_is_entered_twice_and_counts_once(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"content", public=True, references={"task:t": 7})
    assert get(blobs, b"content", PUBLIC) == b"content"
    assert blobs.holders("task") == [("a", "t"), (PUBLIC, "t")] or blobs.holders("task") == [
        (PUBLIC, "t"),
        ("a", "t"),
    ]
    blobs.drop("task:t")
    assert blobs.holders("task") == []


@pytest.mark.parametrize("public", [False, True])
def test_a_full_disk_leaves_nothing_behind_wherever_it_is_full(tmp_path, public):
    disk = FullDisk()
    blobs = store(tmp_path, disk=disk)
    put(blobs, b"other", "b")
    room = 0
    while True:
        disk.left = room
        try:
            put(blobs, b"content", public=public)
        except StorageFullError:
            pass
        else:
            break
        disk.left = None
        assert not list((tmp_path / "tmp").iterdir())
        assert get(blobs, b"content") is get(blobs, b"content", PUBLIC) is None
        assert blobs.usage() == Usage(1, 5)
        assert blobs._shelves.accounts.used("a", "task:t") == 0
        room += 1
    assert room > (12 if public else 8)
    disk.left = None
    assert get(blobs, b"content") == b"content"
    assert blobs._shelves.accounts.used("a", "task:t") == 7


def test_what_cannot_fit_is_refused_at_once(tmp_path):
    with pytest.raises(StorageFullError):
        store(tmp_path).begin(size=1 << 60)


def test_the_reserve_is_not_for_files(tmp_path):
    upload = store(tmp_path, reserve=1 << 60).begin(size=None)
    with pytest.raises(StorageFullError):
        upload.write(b"x")
    upload.abort()


def test_what_a_former_process_left_is_swept(tmp_path):
    store(tmp_path)
    (tmp_path / "tmp" / "left").write_bytes(b"half")
    store(tmp_path)
    assert not list((tmp_path / "tmp").iterdir())


def test_an_upload_ends_once(tmp_path):
    upload = store(tmp_path).begin(size=None)
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


# ------------------------------------------------------------------------------------------------------------- quotas


def test_a_quota_is_the_last_byte(tmp_path):
    blobs = store(tmp_path)
    quota = {"task:t": 10}
    put(blobs, b"1234567", references=quota)
    with pytest.raises(QuotaError, match="task t may keep 10 bytes"):
        put(blobs, b"4 of", references=quota)
    assert get(blobs, b"4 of") is None
    assert contents(tmp_path) == [sha256(b"1234567")]
    assert not list((tmp_path / "tmp").iterdir())
    put(blobs, b"3of", references=quota)
    # What is there already costs nothing, also when it is brought again.
    put(blobs, b"1234567", references=quota)
    put(blobs, b"", references=quota)
    assert blobs._shelves.accounts.used("a", "task:t") == 10


def test_bytes_count_for_each_reference_also_when_they_are_there(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"content")
    with pytest.raises(QuotaError, match="owner o"):
        put(blobs, b"content", references={"task:u": None, "owner:o": 6})
    assert blobs._shelves.accounts.used("a", "task:u") == 0
    put(blobs, b"content", references={"task:u": 7, "owner:o": 7})
    # Another namespace's owner of that name is another owner.
    put(blobs, b"content", "b", references={"owner:o": 7})
    again = store(tmp_path)
    assert [
        again._shelves.accounts.used(*key) for key in (("a", "task:u"), ("a", "owner:o"), ("b", "owner:o"))
    ] == [
        7,
        7,
        7,
    ]
    with pytest.raises(QuotaError):
        put(again, b"x", references={"owner:o": 7})


def test_two_at_once_cannot_both_have_the_last_bytes(tmp_path):
    blobs = store(tmp_path)
    barrier = threading.Barrier(4)

    def upload(number):
        barrier.wait()
        try:
            put(blobs, bytes([number]) * 60, references={"task:t": 100})
        except QuotaError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(upload, range(4)))
    assert done.count(True) == 1
    assert blobs._shelves.accounts.used("a", "task:t") == 60
    assert len(contents(tmp_path)) == 1


def test_room_comes_back_when_something_is_let_go(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"1234567", references={"task:t": None, "owner:o": 7})
    assert blobs.drop("owner:o", namespace="b") == 0
    assert blobs.drop("owner:o") == 1
    assert blobs.drop("owner:o") == 0
    put(blobs, b"7654321", references={"owner:o": 7})


# -------------------------------------------------------------------------------------------------------- references


def test_references_to_what_is_there(tmp_path):
    blobs = store(tmp_path)
    for content in (b"one", b"two", b"three"):
        put(blobs, content, references={})
    with pytest.raises(QuotaError):
        blobs.refer(Keeper("a", {"task:t": 10}), [blob(b"one"), blob(b"two"), blob(b"three")])
    assert blobs.holders("task") == []
    # Twice the same counts once.
    blobs.refer(Keeper("a", {"task:t": 11}), [blob(b"one"), blob(b"two"), blob(b"three"), blob(b"one")])
    assert [entry.references for entry in blobs.entries("a", limit=9)] == [["task:t"]] * 3
    with pytest.raises(KeyError):
        blobs.refer(Keeper("a", {"task:u": None}), [blob(b"four")])
    with pytest.raises(KeyError):
        blobs.refer(Keeper("b", TASK), [blob(b"one")])
    assert blobs._shelves.accounts.used("a", "task:u") == 0


def test_lists(tmp_path):
    clock = Clock()
    blobs = store(tmp_path, clock=clock)
    names = sorted(
        put(blobs, bytes([number]), references={f"task:{number % 2}": None})[0].sha1 for number in range(9)
    )
    listed = [entry.blob.sha1 for entry in blobs.entries("a", limit=100)]
    assert listed == names
    first = blobs.entries("a", limit=4)
    rest = blobs.entries("a", after=first[-1].blob.sha1, limit=100)
    assert [entry.blob.sha1 for entry in (*first, *rest)] == names
    even = blobs.entries("a", references=["task:0"], limit=100)
    assert len(even) == 5
    assert {tuple(entry.references) for entry in even} == {("task:0",)}
    assert len(blobs.entries("a", references=["task:0", "task:1"], limit=100)) == 9
    assert set(blobs.holders("task")) == {("a", "0"), ("a", "1")}
    clock.ahead = 2 * DAY
    get(blobs, b"\0")
    entry = next(entry for entry in blobs.entries("a", limit=9) if entry.blob == blob(b"\0"))
    assert entry.used - entry.created > DAY
    assert entry.document()["references"] == ["task:0"]


def test_a_use_is_noted_once_a_day(tmp_path):
    clock = Clock()
    blobs = store(tmp_path, clock=clock)
    put(blobs, b"content")
    entry = tmp_path / "index" / "a" / "sha1" / sha1(b"content").hex
    before = entry.lstat().st_mtime_ns
    clock.ahead = DAY / 2
    get(blobs, b"content")
    assert entry.lstat().st_mtime_ns == before
    clock.ahead = 1.5 * DAY
    get(blobs, b"content")
    assert entry.lstat().st_mtime_ns > before


# ----------------------------------------------------------------------------------------------------------- upgrades


def test_a_store_without_references_keeps_everything(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"content", references={})
    (tmp_path / "layout").unlink()
    clock = Clock()
    clock.ahead = 1000 * DAY
    after = store(tmp_path, clock=clock)
    after.sweep(Retention(grace=0.0, unused=1.0))
    assert get(after, b"content") == b"content"
    # And lets go of it when it is told.
    after.drop(UPGRADE)
    clock.ahead += DAY
    after.sweep(Retention(grace=0.0, unused=1.0))
    assert get(after, b"content") is None


def test_a_newer_layout_is_left_alone(tmp_path):
    store(tmp_path)
    (tmp_path / "layout").write_text("3\n")
    with pytest.raises(ValueError, match="layout 3"):
        store(tmp_path)


# --------------------------------------------------------------------------------------------------------- conflicts


def test_what_lies_there_with_another_size_is_replaced(tmp_path, capfd):
    put(store(tmp_path), b"content")
    rot(tmp_path, b"content").write_bytes(b"cut")
    blobs = store(tmp_path)
    put(blobs, b"content", "b")
    assert get(blobs, b"content") == get(blobs, b"content", "b") == b"content"
    assert [path.read_bytes() for path in (tmp_path / "quarantine").iterdir()] == [b"cut"]
    assert "rotted" in capfd.readouterr().err
    assert blobs.usage() == Usage(1, 7)


def test_a_second_content_with_a_known_sha1_is_refused_and_leaves_nothing(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"first")
    second = blobs.begin(size=6)
    second.write(b"second")
    second.update_sha1(b"first")
    second.update_sha256(b"second")
    with pytest.raises(HashConflictError):
        second.commit(Keeper("a", {"task:u": None}))
    second.abort()
    assert contents(tmp_path) == [sha256(b"first")]
    assert blobs._shelves.accounts.used("a", "task:u") == 0
    assert not list((tmp_path / "tmp").iterdir())

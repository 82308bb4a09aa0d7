"""The cache beside a store over a bucket: alone, and with contents of a real server."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from contextlib import closing

import pytest

from gpux.blobs import Keeper, Retention
from gpux.errors import UnavailableError
from gpux.hashes import FileHash
from gpux.s3 import cache as caches
from gpux.s3.blobs import S3Blobs
from gpux.s3.cache import Cache, Wanted
from gpux.splice import Pipe
from tests.support.patience import PATIENCE
from tests.unit.gpux.filestore.kit import FullDisk
from tests.unit.gpux.s3.kit import idle, until

NEVER = Retention(grace=1e9, unused=None)
NOW = Retention(grace=-1.0, unused=None)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Source:
    """What a bucket has: one content, and how often it was read."""

    def __init__(self, content, *, number=1, yields=None):
        self.content = content
        self.name = f"{number:032x}"
        self.reads = 0
        self.may = threading.Event()
        self.may.set()
        self._yields = [content] if yields is None else yields

    def wanted(self):
        return Wanted(self.name, hashlib.sha256(self.content).hexdigest(), len(self.content), self._read)

    def _read(self):
        self.reads += 1
        for piece in self._yields:
            assert self.may.wait(60 * PATIENCE)
            if isinstance(piece, Exception):
                raise piece
            yield piece


def read(cache, source):
    """Read as a store does: what came from the cache, or None."""
    opened = cache.open(source.name, len(source.content))
    if opened is None:
        cache.miss(source.wanted())
        return None
    with closing(opened):
        return b"".join(opened.read(0, opened.size))


def fill(cache, *sources):
    for source in sources:
        assert read(cache, source) is None
        assert read(cache, source) is None
        idle(cache)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def disk():
    return FullDisk()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(folder, disk, clock):
    return Cache(str(folder), 100, disk=disk, clock=clock)


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_second_read_fetches_and_the_third_is_from_the_disk(cache, folder):
    source = Source(b"content")
    assert read(cache, source) is None
    idle(cache)
    assert (source.reads, there(folder)) == (0, [])
    assert read(cache, source) is None
    idle(cache)
    assert (source.reads, there(folder)) == (1, [source.name])
    assert read(cache, source) == b"content"
    assert source.reads == 1
    assert cache.figures() == (1, 2, 0, 7)
    assert (folder.stat().st_mode & 0o777, (folder / source.name).stat().st_mode & 0o777) == (0o700, 0o600)


def test_what_is_read_while_it_is_fetched_is_fetched_once(cache):
    source, other = Source(b"content"), Source(b"other", number=2)
    source.may.clear()
    for wanted in (source, other) * 5:
        assert read(cache, wanted) is None
    assert other.reads == 0
    source.may.set()
    idle(cache)
    assert (source.reads, other.reads) == (1, 1)
    assert (read(cache, source), read(cache, other)) == (b"content", b"other")


def test_what_was_used_longest_ago_makes_room(cache, folder):
    first, second, third = (Source(bytes([number]) * 40, number=number) for number in (1, 2, 3))
    fill(cache, first, second)
    assert read(cache, first) == first.content
    fill(cache, third)
    assert there(folder) == [first.name, third.name]
    assert cache.figures().size == 80
    assert read(cache, second) is None


def test_what_is_being_read_makes_no_room(cache, folder):
    """Its bytes would be on the disk until its reader has them, however slow that is."""
    first, second, third = (Source(bytes([number]) * 40, number=number) for number in (1, 2, 3))
    fill(cache, first, second)
    with closing(cache.open(first.name, 40)) as opened, closing(cache.open(first.name, 40)):
        fill(cache, third)
        assert there(folder) == [first.name, third.name]
        with closing(cache.open(third.name, 40)):
            fill(cache, second)
            assert (there(folder), second.reads) == ([first.name, third.name], 1)
            # What was removed is removed all the same; who reads it reads on.
            cache.drop([first.name])
            assert there(folder) == [third.name]
            assert b"".join(opened.read(0, 40)) == first.content
    fill(cache, first, second)
    assert there(folder) == [first.name, second.name]
    assert cache.figures().failures == 0


def test_there_is_room_before_anything_is_written(cache, folder):
    first, second, third = (Source(bytes([number]) * 50, number=number) for number in (1, 2, 3))
    fill(cache, first, second)
    third.may.clear()
    for _ in range(2):
        assert read(cache, third) is None
    until(lambda: third.reads)
    assert there(folder) == [second.name, f"{third.name}.part"]
    third.may.set()
    idle(cache)
    assert there(folder) == [second.name, third.name]


def test_so_many_and_no_more(cache, folder, monkeypatch):
    monkeypatch.setattr(caches, "_MOST", 3)
    sources = [Source(b"small", number=number) for number in range(5)]
    fill(cache, *sources)
    assert there(folder) == [source.name for source in sources[2:]]


@pytest.mark.parametrize(("size", "kept"), [(0, False), (1, True), (50, True), (51, False)])
def test_more_than_half_of_it_is_for_no_content(cache, folder, size, kept):
    source = Source(b"x" * size)
    for _ in range(3):
        read(cache, source)
        idle(cache)
    assert (source.reads, there(folder)) == ((1, [source.name]) if kept else (0, []))


def test_what_is_read_once_is_forgotten(cache, monkeypatch):
    monkeypatch.setattr(caches, "_REMEMBERED", 3)
    sources = [Source(b"content", number=number) for number in range(4)]
    for source in sources:
        assert read(cache, source) is None
    assert read(cache, sources[0]) is None
    assert read(cache, sources[3]) is None
    idle(cache)
    assert [source.reads for source in sources] == [0, 0, 0, 1]


def test_more_than_can_wait_is_left_to_its_next_read(cache, monkeypatch):
    monkeypatch.setattr(caches, "_WAITING", 2)
    sources = [Source(b"content", number=number) for number in range(3)]
    sources[0].may.clear()
    for source in sources * 2:
        assert read(cache, source) is None
    sources[0].may.set()
    idle(cache)
    assert [source.reads for source in sources] == [1, 1, 0]
    assert read(cache, sources[2]) is None
    idle(cache)
    assert read(cache, sources[2]) == b"content"


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 32, "0" * 33, f"{'0' * 32}.part"])
def test_a_name_that_no_store_gave_is_none_of_a_file(cache, folder, name):
    source = Source(b"content")
    source.name = name
    fill(cache, source)
    assert (source.reads, there(folder)) == (0, [])


@pytest.mark.parametrize(
    "yields", [[b"contenT"], [b"conten"], [b"content", b"!"], []], ids=["other", "short", "long", "none"]
)
def test_what_is_not_what_its_entry_says_is_not_kept(cache, folder, yields, capfd):
    source, other = Source(b"content", yields=yields), Source(b"other", number=2)
    for failures in (1, 2):
        fill(cache, source)
        assert (source.reads, there(folder), cache.figures().failures) == (failures, [], failures)
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["level"] == "warning"
    # It is its own matter alone.
    fill(cache, other)
    assert read(cache, other) == b"other"


@pytest.mark.parametrize(
    "yields",
    [[b"con", UnavailableError("the service is away")], [b"con", OSError(errno.EIO, "broken")]],
    ids=["away", "broken"],
)
def test_what_does_not_come_right_is_not_kept(cache, folder, clock, yields, capfd):
    source = Source(b"content", yields=yields)
    fill(cache, source)
    assert (source.reads, there(folder), cache.figures().failures) == (1, [], 1)
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["level"] == "warning"
    # For a while nothing is fetched.
    other = Source(b"other", number=2)
    fill(cache, other)
    assert other.reads == 0
    clock.now += 61
    assert read(cache, other) is None
    idle(cache)
    assert read(cache, other) == b"other"
    # Said once in an hour, counted each time.
    for later in (61, 61, 3600):
        clock.now += later
        fill(cache, source)
    assert cache.figures().failures == 4
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("left", [0, 1])
def test_a_full_disk_steps_aside(cache, folder, disk, clock, left):
    kept, source = Source(b"kept"), Source(b"content", number=2, yields=[b"con", b"tent"])
    fill(cache, kept)
    disk.left = left
    fill(cache, source)
    assert (there(folder), cache.figures().failures) == ([kept.name], 1)
    assert read(cache, kept) == b"kept"
    disk.left = None
    clock.now += 61
    fill(cache, source)
    assert read(cache, source) == b"content"


def test_no_thread_no_cache(cache, clock, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    source = Source(b"content")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        fill(cache, source)
    assert cache.figures().failures == 1
    clock.now += 61
    fill(cache, source)
    assert read(cache, source) == b"content"


@pytest.mark.parametrize("damage", ["gone", "cut", "a folder"])
def test_what_somebody_took_away_is_read_from_the_bucket(cache, folder, clock, damage):
    source = Source(b"content")
    fill(cache, source)
    path = folder / source.name
    if damage == "cut":
        path.write_bytes(b"conten")
    else:
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    assert read(cache, source) is None
    assert cache.figures().size == 0
    if damage == "a folder":
        path.rmdir()
        clock.now += 61
    assert read(cache, source) is None
    idle(cache)
    assert read(cache, source) == b"content"


def test_a_restart_begins_with_nothing(cache, folder):
    source = Source(b"content")
    fill(cache, source)
    (folder / f"{'f' * 32}.part").write_bytes(b"half")
    (folder / "holiday.jpg").write_bytes(b"somebody's")
    again = Cache(str(folder), 100)
    assert there(folder) == ["holiday.jpg"]
    assert again.names() == set()
    assert read(again, source) is None
    # The former process, should it still be there, reads the bucket.
    assert read(cache, source) is None


# -------------------------------------------------------------------------------------------- over a real server


@pytest.fixture
def large(folder):
    return Cache(str(folder), 64 << 20)


@pytest.fixture
def blobs(bucket, tmp_path, large):
    return S3Blobs(bucket, spool=str(tmp_path), cache=large, settle=-5.0)


CONTENT = bytes(range(256)) * 4096


def put(blobs, content):
    upload = blobs.begin(size=None)
    try:
        for take in (upload.write, upload.update_sha1, upload.update_sha256):
            take(content)
        return upload.commit(Keeper("a", {"task:t": None}))[0]
    finally:
        upload.abort()


def opened(blobs, content):
    found = blobs.open("a", FileHash("sha1", hashlib.sha1(content).hexdigest()))
    assert found is not None
    return found[1]


def get(blobs, content):
    with closing(opened(blobs, content)) as found:
        return b"".join(found.read(0, len(content)))


def warm(blobs, content):
    for _ in range(2):
        assert get(blobs, content) == content
    idle(blobs._cache)


@pytest.fixture
def asked(bucket, monkeypatch):
    """The requests for contents themselves, as they come."""
    requests = []
    ask = bucket._ask

    def record(method, key, **options):
        if key.startswith("data/"):
            requests.append(method)
        return ask(method, key, **options)

    monkeypatch.setattr(bucket, "_ask", record)
    return requests


@pytest.mark.parametrize("content", [b"small", CONTENT], ids=["small", "large"])
def test_the_third_read_has_a_file_and_asks_for_no_content(blobs, asked, content):
    blob = put(blobs, content)
    asked.clear()
    warm(blobs, content)
    assert asked.count("GET") == 3
    asked.clear()
    found = blobs.open("a", FileHash("sha256", blob.sha256))
    assert found is not None
    assert found[0] == blob
    with closing(found[1]) as third:
        file = third.file()
        assert file is not None
        assert file.read() == content
        assert b"".join(third.read(2, 5)) == content[2:5]
        assert b"".join(third.stream(1, len(content), Pipe())) == content[1:]
    assert asked == []


def test_neither_sizes_nor_ends_of_a_file_are_reads_of_it(blobs, asked):
    put(blobs, CONTENT)
    asked.clear()
    for _ in range(3):
        with closing(opened(blobs, CONTENT)) as found:
            assert b"".join(found.read(1, 9)) == CONTENT[1:9]
        opened(blobs, CONTENT).close()
    idle(blobs._cache)
    assert blobs._cache.names() == set()


def test_what_is_removed_is_not_found_and_soon_not_here(blobs, bucket, folder):
    blob = put(blobs, CONTENT)
    put(blobs, b"another")
    warm(blobs, CONTENT)
    warm(blobs, b"another")
    assert len(there(folder)) == 2
    blobs.drop("task:t", namespace="a")
    put(blobs, b"another")
    blobs.forget("a", [blob])
    assert blobs.open("a", FileHash("sha1", blob.sha1)) is None
    assert blobs.sweep(NEVER).objects == 1
    (left,) = bucket.listing("data/")
    assert there(folder) == [left.key.removeprefix("data/")]
    assert get(blobs, b"another") == b"another"


def test_another_stores_sweep_is_seen_by_the_own(blobs, bucket, folder, tmp_path):
    put(blobs, CONTENT)
    warm(blobs, CONTENT)
    blobs.drop("task:t")
    other = S3Blobs(bucket, spool=str(tmp_path), settle=-5.0)
    assert other.sweep(NOW).objects == 1
    assert blobs.sweep(NOW).objects == 0
    assert there(folder) == []


def test_a_listing_that_breaks_off_drops_nothing(blobs, bucket, folder, monkeypatch):
    put(blobs, CONTENT)
    warm(blobs, CONTENT)
    listing = bucket.listing

    def breaking(prefix, **options):
        if prefix == "data/":
            raise UnavailableError("away")
        return listing(prefix, **options)

    monkeypatch.setattr(bucket, "listing", breaking)
    with pytest.raises(UnavailableError):
        blobs.sweep(NEVER)
    with pytest.raises(UnavailableError):
        blobs._count()
    assert len(there(folder)) == 1


def test_what_comes_while_contents_are_listed_stays(blobs, bucket, folder, monkeypatch):
    contents = blobs._shelves.contents

    def listed():
        yield from contents()
        put(blobs, CONTENT)
        warm(blobs, CONTENT)

    monkeypatch.setattr(blobs._shelves, "contents", listed)
    blobs._count()
    assert len(there(folder)) == 1


def test_the_scrub_reads_the_bucket(blobs, bucket):
    put(blobs, CONTENT)
    warm(blobs, CONTENT)
    (stored,) = bucket.listing("data/")
    bucket.put(stored.key, b"?" + CONTENT[1:])
    assert get(blobs, CONTENT) == CONTENT
    assert blobs.scrub(every=0, pause=lambda _: True).quarantined == 1
    assert blobs.open("a", FileHash("sha1", hashlib.sha1(CONTENT).hexdigest())) is None


def test_wrong_bytes_of_the_bucket_are_never_kept(blobs, bucket, folder):
    put(blobs, CONTENT)
    (stored,) = bucket.listing("data/")
    wrong = b"?" + CONTENT[1:]
    bucket.put(stored.key, wrong)
    for _ in range(3):
        assert get(blobs, CONTENT) == wrong
        idle(blobs._cache)
    assert (there(folder), blobs._cache.figures().failures) == ([], 1)


def test_a_service_that_is_away_is_away(blobs, bucket, large, monkeypatch):
    put(blobs, CONTENT)
    warm(blobs, CONTENT)
    files = []

    def remember(name, size):
        held = Cache.open(large, name, size)
        assert held is not None
        files.append(held)
        return held

    def fail(*_):
        raise UnavailableError("away")

    monkeypatch.setattr(large, "open", remember)
    monkeypatch.setattr(blobs._shelves, "use", fail)
    with pytest.raises(UnavailableError):
        get(blobs, CONTENT)
    assert [file.file().closed for file in files] == [True]

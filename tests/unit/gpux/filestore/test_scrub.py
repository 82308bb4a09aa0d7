from __future__ import annotations

import errno
import json

from gpux.blobs import Scrubbed, Usage
from gpux.store.tools import main
from tests.unit.gpux.filestore.kit import DAY, Clock, contents, get, put, rot, sha256, store

MONTH = 30 * DAY


def gladly(size):
    return True


def test_a_rotten_file_is_moved_aside_and_heals(tmp_path, capfd):
    blobs = store(tmp_path)
    for content in (b"one", b"two"):
        put(blobs, content)
    put(blobs, b"one", "b", references={"task:u": None})
    rot(tmp_path, b"one")
    assert blobs.scrub(every=MONTH, pause=gladly) == Scrubbed(objects=2, size=6, quarantined=1)
    assert get(blobs, b"one") is None
    assert get(blobs, b"two") == b"two"
    assert sha256(b"one") in capfd.readouterr().err
    assert blobs.usage() == Usage(1, 3)
    put(blobs, b"one")
    # Whoever else has it gets it back, too.
    assert get(blobs, b"one") == get(blobs, b"one", "b") == b"one"
    assert blobs._shelves.accounts.used("a", "task:t") == 6


def test_it_goes_on_where_it_was(tmp_path):
    clock = Clock()
    blobs = store(tmp_path, clock=clock)
    for number in range(20):
        put(blobs, bytes([number]))
    left = iter([True] * 7)
    found = blobs.scrub(every=MONTH, pause=lambda size: next(left, False))
    assert found.objects == 7
    rest = store(tmp_path, clock=clock).scrub(every=MONTH, pause=gladly)
    assert rest.objects >= 13
    assert blobs.scrub(every=MONTH, pause=gladly) == Scrubbed()
    clock.ahead = 31 * DAY
    assert blobs.scrub(every=MONTH, pause=gladly).objects == 20


def test_a_damaged_note_means_anew(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"one")
    (tmp_path / "scrubbed").write_text("{")
    assert blobs.scrub(every=MONTH, pause=gladly).objects == 1


def test_what_cannot_be_read_stays(tmp_path, monkeypatch, capfd):
    blobs = store(tmp_path)
    put(blobs, b"one")

    def broken(*_, **__):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("os.posix_fadvise", broken)
    assert blobs.scrub(every=MONTH, pause=gladly).unreadable == 1
    assert contents(tmp_path) == [sha256(b"one")]
    assert "can't be read" in capfd.readouterr().err


def test_right_bytes_that_came_meanwhile_stay(tmp_path):
    """The rotten file was replaced while it was read."""
    blobs = store(tmp_path)
    put(blobs, b"one")
    rotten = rot(tmp_path, b"one")

    def replace(size):
        rotten.rename(tmp_path / "elsewhere")
        put(blobs, b"one")
        return True

    assert blobs.scrub(every=MONTH, pause=replace).quarantined == 0
    assert get(blobs, b"one") == b"one"


def test_on_demand(tmp_path, capsys):
    blobs = store(tmp_path)
    put(blobs, b"one")
    upload = blobs.begin(size=None)
    assert main(["scrub", "--root", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 1
    rot(tmp_path, b"one")
    assert main(["scrub", "--root", str(tmp_path), "--bytes-per-second", "1e9"]) == 1
    assert json.loads(capsys.readouterr().out)["quarantined"] == 1
    # It leaves alone what the server has under way.
    upload.write(b"x")
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    upload.abort()


def test_on_demand_in_the_wrong_place(tmp_path, capsys):
    assert main(["check", "--root", str(tmp_path)]) == 2
    assert "no directory of a store" in capsys.readouterr().err

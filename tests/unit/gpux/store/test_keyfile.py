from __future__ import annotations

import os

import pytest

from gpux.store.keyfile import KeyFile

FIRST, SECOND = b"a key of sixteen", b"another sixteen."


def test_the_key_is_the_one_in_the_file_now(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(FIRST + b"\n")
    key = KeyFile(path)
    assert key() == FIRST
    # As the kubelet does it: another file under the same name, though of the same size and time.
    (tmp_path / "new").write_bytes(SECOND + b"\n")
    found = path.stat()
    os.utime(tmp_path / "new", ns=(found.st_atime_ns, found.st_mtime_ns))
    (tmp_path / "new").replace(path)
    assert key() == SECOND


def test_a_file_that_is_not_another_is_not_read_again(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_bytes(FIRST)
    key = KeyFile(path)
    monkeypatch.setattr("gpux.tokens.load_key", lambda _: pytest.fail("read again"))
    assert key() == FIRST


def test_one_that_is_no_key_counts_for_nothing_and_neither_does_the_former(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(FIRST)
    key = KeyFile(path)
    path.write_bytes(b"short")
    for _ in range(2):
        with pytest.raises(ValueError, match="shorter"):
            key()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        key()
    path.write_bytes(SECOND)
    assert key() == SECOND


def test_a_key_that_is_no_good_is_seen_at_the_start(tmp_path):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ValueError, match="shorter"):
        KeyFile(tmp_path / "key")

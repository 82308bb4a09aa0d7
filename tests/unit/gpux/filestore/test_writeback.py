from __future__ import annotations

import os

import pytest

from gpux.filestore import writeback
from gpux.filestore.writeback import Writeback

MIB = 1 << 20


@pytest.fixture
def begun(monkeypatch):
    """What the kernel was asked to write, as (offset, length)."""
    calls = []

    def note(fd, offset, length, flags):
        assert (fd, flags) == (7, 2)
        calls.append((offset, length))

    monkeypatch.setattr(writeback, "_sync_file_range", note)
    return calls


def test_what_has_come_is_begun_once_in_large_pieces(begun):
    follows = Writeback(7)
    for size in range(MIB, 20 * MIB, MIB):
        follows.grown(size)
    assert begun == [(0, 8 * MIB), (8 * MIB, 8 * MIB)]


def test_a_small_file_is_left_to_the_sync(begun):
    Writeback(7).grown(8 * MIB - 1)
    assert begun == []


def test_the_c_library_knows_the_call_and_its_arguments(tmp_path):
    assert writeback._sync_file_range is not None
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    try:
        os.write(fd, bytes(MIB))
        assert writeback._sync_file_range(fd, 0, MIB, 2) == 0
    finally:
        os.close(fd)


def test_without_it_nothing_is_begun(monkeypatch):
    monkeypatch.setattr(writeback, "_sync_file_range", None)
    Writeback(7).grown(100 * MIB)

"""The agent's tar, read back by Python's tarfile and by the tar of the system."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest

from gpux.agent import tar


def read(content: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return archive.getmembers()


@pytest.mark.parametrize("length", [1, 99, 100, 101, 155, 255, 4000])
def test_names_and_targets_of_any_length(length: int) -> None:
    name, target = "n" * length, "t" * length
    content = tar.header(name.encode(), kind=tar.LINK, target=target.encode()) + tar.END
    (member,) = read(content)
    assert (member.name, member.linkname, member.issym()) == (name, target, True)


def test_names_that_are_no_text() -> None:
    (member,) = read(tar.header(b"a\xff\n", kind=tar.FOLDER) + tar.END)
    assert member.name.encode(errors="surrogateescape") == b"a\xff\n"


@pytest.mark.parametrize("size", [0, 1, 8**11 - 1, 8**11, 1 << 50])
def test_sizes(size: int) -> None:
    head = tarfile.TarInfo.frombuf(tar.header(b"a", kind=tar.FILE, size=size), "utf-8", "strict")
    assert head.size == size


@pytest.mark.parametrize(
    ("modified", "kept"), [(-5, 0), (1_700_000_000, 1_700_000_000), (1 << 60, 8**11 - 1)]
)
def test_times_that_no_header_can_hold_are_cut(modified: int, kept: int) -> None:
    (member,) = read(tar.header(b"a", kind=tar.FILE, modified=modified) + tar.END)
    assert member.mtime == kept


def test_the_systems_tar_reads_it(tmp_path) -> None:
    content = b"x" * 700
    archive = (
        tar.header(b"a" * 120 + b"/", kind=tar.FOLDER, mode=0o755)
        + tar.header(b"a" * 120 + b"/b", kind=tar.FILE, mode=0o600, size=len(content))
        + content
        + tar.padding(len(content))
        + tar.END
    )
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive, check=True)
    made = tmp_path / ("a" * 120) / "b"
    assert made.read_bytes() == content
    assert made.stat().st_mode & 0o777 == 0o600

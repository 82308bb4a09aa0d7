from __future__ import annotations

import io
import subprocess
import tarfile

import pytest

from gpux import folders
from gpux.folders import (
    File,
    Folder,
    FolderError,
    Paths,
    read_extended,
    read_header,
    read_manifest,
    safe_path,
)

HASH = "0" * 40
FOLDER = Folder([File("b/ü.txt", HASH, 5, False), File("a", "1" * 40, 0, True)], ["empty"])


@pytest.mark.parametrize(
    ("written", "path"),
    [("a", "a"), ("./a/b", "a/b"), ("././a", "a"), ("a/", "a"), (".", ""), ("./", ""), ("a b/ü", "a b/ü")],
)
def test_paths(written, path):
    assert safe_path(written) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/a", "//a", "a//b", "..", "../a", "a/../b", "a/..", "a/./b", "./../a", "a//"),
        *("a\\b", "..\\a", "C:\\a", "a\0b", "a\nb", "a\x7f", "\x1b[2J", "./.", "/./a", ".//a"),
        *("a" * 256, "ü" * 128, "a/" * 65 + "b", "/".join(["a" * 250] * 5)),
        *("\udc80",),
    ],
)
def test_paths_that_are_none(path):
    with pytest.raises(FolderError):
        safe_path(path)


@pytest.mark.parametrize(
    "members",
    [
        [("a", False), ("a", False)],
        [("a", False), ("a/b", False)],
        [("a/b", False), ("a", False)],
        [("a", True), ("a", False)],
        [("a", True), ("a", True)],
        [("a", False), ("a", True)],
        [("a/b/c", False), ("a/b", False)],
    ],
)
def test_paths_that_clash(members):
    paths = Paths()
    *others, (last, directory) = members
    for path, kind in others:
        paths.add(path, directory=kind)
    with pytest.raises(FolderError):
        paths.add(last, directory=directory)


def test_paths_that_do_not():
    paths = Paths()
    for path, directory in (("a/b", False), ("a", True), ("a/c", False), ("ab", False)):
        paths.add(path, directory=directory)


@pytest.mark.parametrize("name", ["{:05}".format, lambda number: f"{number:04}" + "/x" * 60])
def test_paths_are_bounded(name):
    def add():
        paths = Paths()
        for number in range(20_000):
            paths.add(name(number), directory=False)

    with pytest.raises(FolderError, match="more than"):
        add()


def test_a_manifest_is_read_back():
    found = read_manifest(FOLDER.manifest())
    assert sorted(found.files) == sorted(FOLDER.files)
    assert found.directories == FOLDER.directories
    assert found.manifest() == FOLDER.manifest()
    assert read_manifest(Folder([], []).manifest()) == ([], [])


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"x", b"gpux-folder 2\n", b"gpux-folder 1", b"gpux-folder 1\n\n", b"{}", b"\xff\n"),
        b"gpux-folder 1\ndirectory b\ndirectory a\n",
        b"gpux-folder 1\ndirectory a\ndirectory a\n",
        b"gpux-folder 1\ndirectory ../a\n",
        b"gpux-folder 1\ndirectory a/\n",
        b"gpux-folder 1\ndirectory .\n",
        *(
            b"gpux-folder 1\n" + line
            for line in (
                b"file %b 5 a" % HASH.encode(),
                b"file %b 05 a\n" % HASH.encode(),
                b"file %b 5 /a\n" % HASH.encode(),
                b"file %b -5 a\n" % HASH.encode(),
                b"file %b 5 a\nfile %b 5 a\n" % (HASH.encode(), HASH.encode()),
                b"file %b 5 a\nfile %b 5 a/b\n" % (HASH.encode(), HASH.encode()),
                b"file %b 5 a\nextra\n" % HASH.encode(),
                b"file %b 5 a\r\n" % HASH.encode(),
                b"file %b 5 a\n" % HASH.upper().replace("0", "A").encode(),
                b"link %b 5 a\n" % HASH.encode(),
            )
        ),
        b"gpux-folder 1\n" + b"\n" * 20_000,
    ],
)
def test_manifests_that_are_none(content):
    with pytest.raises(FolderError):
        read_manifest(content)


def test_the_archive_is_sorted_and_has_no_time_or_user():
    contents = {HASH: b"hello", "1" * 40: b""}
    archived = io.BytesIO()
    for header, file in folders.archive(FOLDER):
        archived.write(header)
        if file is not None:
            archived.write(contents[file.sha1] + bytes(folders.padding(file.size)))
    archived.seek(0)
    with tarfile.open(fileobj=archived) as found:
        members = found.getmembers()
    assert [member.name for member in members] == ["a", "b/ü.txt", "empty"]
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
    assert [oct(member.mode) for member in members] == ["0o755", "0o644", "0o755"]
    assert [member.isdir() for member in members] == [False, False, True]
    listed = subprocess.run(["tar", "tf", "-"], input=archived.getvalue(), capture_output=True, check=True)
    assert len(listed.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"x",
            b"11 path=ab\n\0",
            b"10 path=ab\n",
            b"12 path=ab\n",
            b"0 path=a\n",
            b"-1 path=a\n",
            b"9 path=\xc3\n",
        ),
        *(b"11 path=ab\n11 path=cd\n", b"22 GNU.sparse.major=1\n", b"14 linkpath=a\n", b"10 path=\xff\n"),
        b"999999 path=a\n",
    ],
)
def test_extended_headers_that_are_none(content):
    with pytest.raises(FolderError):
        read_extended(content)


def test_extended_headers():
    assert read_extended(b"11 path=ab\n11 size=12\n16 mtime=123.45\n") == {"path": "ab", "size": "12"}


def test_a_header_with_a_wrong_sum():
    block = bytearray(tarfile.TarInfo("a").tobuf())
    header = read_header(bytes(block))
    assert header
    assert header.name == b"a"
    assert read_header(bytes(512)) is None
    block[0] ^= 1
    with pytest.raises(FolderError, match="sum"):
        read_header(bytes(block))

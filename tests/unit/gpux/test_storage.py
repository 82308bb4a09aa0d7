"""What the agent reads of a job's folders, and what a hostile job can't make it read."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpux.agent import storage
from tests.support.environment import unavailable

SECRET = b"the agent's token"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A job's folder, with a secret beside it."""
    (tmp_path / "token").write_bytes(SECRET)
    job = tmp_path / "job"
    (job / "out" / "deep").mkdir(parents=True)
    (job / "out" / "a.txt").write_bytes(b"one")
    (job / "out" / "deep" / "b.bin").write_bytes(bytes(300_000))
    return job


def buffer() -> memoryview:
    return memoryview(bytearray(1 << 16))


def get(root: Path, path: str) -> bytes:
    found = storage.find(str(root), path)
    try:
        return b"".join(bytes(piece) for piece in storage.content(found, buffer()))
    finally:
        os.close(found.fd)


def members(root: Path, path: str = "") -> dict[str, tarfile.TarInfo]:
    found = storage.find(str(root), path)
    try:
        content = b"".join(bytes(piece) for piece in storage.archive(found, buffer()))
    finally:
        os.close(found.fd)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                assert len(file.read()) == member.size
        return {member.name: member for member in archive.getmembers()}


def listed(root: Path, path: str = "") -> dict[str, dict[str, object]]:
    found = storage.find(str(root), path)
    try:
        return {entry["name"]: entry for entry in storage.listing(found)["entries"]}
    finally:
        os.close(found.fd)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = list(Path("/proc/self/fd").iterdir())
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_files_folders_and_lists(root: Path) -> None:
    assert get(root, "out/a.txt") == get(root, "/out//a.txt") == b"one"
    assert set(members(root)) == {"out", "out/a.txt", "out/deep", "out/deep/b.bin"}
    assert set(members(root, "out")) == {"a.txt", "deep", "deep/b.bin"}
    entries = listed(root, "out")
    assert {name: entry["type"] for name, entry in entries.items()} == {"a.txt": "file", "deep": "folder"}
    assert entries["a.txt"]["size"] == 3


@pytest.mark.parametrize("path", ["..", "../token", "out/../../token", ".", "out/./a.txt", "a\0b"])
def test_paths_that_are_none(root: Path, path: str) -> None:
    with pytest.raises(storage.StorageError) as refused:
        storage.find(str(root), path)
    assert refused.value.status == 400


@pytest.mark.parametrize("path", ["nothing", "out/a.txt/x", "out/" + "n" * 300])
def test_what_is_not_there(root: Path, path: str) -> None:
    with pytest.raises(storage.StorageError) as refused:
        storage.find(str(root), path)
    assert refused.value.status == 404


def test_a_root_that_the_job_does_not_have() -> None:
    with pytest.raises(storage.StorageError) as refused:
        storage.find(None, "")
    assert refused.value.status == 404


@pytest.mark.parametrize("target", ["../token", "/etc/passwd", "out"])
def test_links_are_listed_and_never_followed(root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    assert listed(root)["link"]["target"] == target
    member = members(root)["link"]
    assert (member.issym(), member.linkname) == (True, target)
    with pytest.raises(storage.StorageError) as refused:
        get(root, "link")
    assert refused.value.status == 409
    with pytest.raises(storage.StorageError) as refused:
        storage.find(str(root), "link/a.txt")
    assert refused.value.status == 404


def test_a_folder_of_the_way_that_is_a_link(root: Path) -> None:
    (root / "way").symlink_to(root.parent)
    with pytest.raises(storage.StorageError):
        get(root, "way/token")


def test_a_file_that_is_swapped_for_a_link_after_it_was_found(root: Path) -> None:
    found = storage.find(str(root), "out/a.txt")
    (root / "out" / "a.txt").unlink()
    (root / "out" / "a.txt").symlink_to(root.parent / "token")
    assert b"".join(bytes(piece) for piece in storage.content(found, buffer())) == b"one"
    os.close(found.fd)


def test_a_folder_that_is_swapped_for_a_link_while_it_is_packed(root: Path) -> None:
    """The walk goes on in the folder that it has opened, wherever that is by now."""
    found = storage.find(str(root), "")
    pieces = storage.archive(found, buffer())
    seen = [bytes(next(pieces))]
    (root / "out").rename(root.parent / "moved")
    (root / "out").symlink_to(root.parent)
    seen += [bytes(piece) for piece in pieces]
    os.close(found.fd)
    assert SECRET not in b"".join(seen)
    with tarfile.open(fileobj=io.BytesIO(b"".join(seen))) as archive:
        assert "out/a.txt" in archive.getnames()


def test_what_is_neither_file_nor_folder_nor_link_is_not_opened(root: Path) -> None:
    """A pipe would hold the agent up for ever."""
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        assert {listed(root)[name]["type"] for name in ("pipe", "socket")} == {"other"}
        assert not {"pipe", "socket"} & set(members(root))
    with pytest.raises(storage.StorageError) as refused:
        get(root, "pipe")
    assert refused.value.status == 409


@pytest.mark.parametrize("change", [0, 10, 1_000_000])
def test_a_file_that_changes_its_length_while_it_is_packed(root: Path, change: int) -> None:
    """The archive stays one: what was promised comes, filled with zeros where the file has lost it."""
    file = root / "out" / "deep" / "b.bin"
    file.write_bytes(b"1" * 300_000)
    found = storage.find(str(root), "out/deep")
    pieces = storage.archive(found, buffer())
    seen = [bytes(next(pieces)), bytes(next(pieces))]
    os.truncate(file, change)
    seen += [bytes(piece) for piece in pieces]
    os.close(found.fd)
    with tarfile.open(fileobj=io.BytesIO(b"".join(seen))) as archive:
        (member,) = archive.getmembers()
        content = archive.extractfile(member)
        assert content is not None
        assert len(content.read()) == member.size == 300_000


def test_a_file_that_is_cut_while_it_is_sent_is_not_taken_for_whole(root: Path) -> None:
    found = storage.find(str(root), "out/deep/b.bin")
    pieces = storage.content(found, buffer())
    next(pieces)
    os.truncate(root / "out" / "deep" / "b.bin", 10)
    with pytest.raises(storage.BrokenOffError):
        list(pieces)
    os.close(found.fd)


def test_names_that_are_no_text(root: Path) -> None:
    (root / os.fsdecode(b"\xff\n")).write_bytes(b"odd")
    assert os.fsdecode(b"\xff\n") in listed(root)
    assert get(root, os.fsdecode(b"\xff\n")) == b"odd"


def test_what_the_agent_may_not_read_is_listed_so_and_left_out(root: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        unavailable("only root can make files that another user may not read")
    secret = root / "out" / "secret"
    secret.write_bytes(b"root's")
    secret.chmod(0o600)
    for folder in (*tmp_path.parents, tmp_path, root, root / "out"):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.setgroups([])
        os.setresgid(65532, 65532, 65532)
        os.setresuid(65532, 65532, 65532)
        try:
            unreadable = [
                name for name, entry in listed(root, "out").items() if entry.get("readable") is False
            ]
            packed = sorted(members(root, "out"))
            os.write(writing, repr((unreadable, packed)).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    said = os.read(reading, 4096)
    os.close(reading)
    assert said == repr((["secret"], ["a.txt", "deep", "deep/b.bin"])).encode()


def test_too_much_to_hold_is_broken_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_NAMES", 2)
    for number in range(3):
        (root / f"n{number}").touch()
    with pytest.raises(storage.BrokenOffError):
        members(root)
    monkeypatch.setattr(storage, "_LISTED", 2)
    found = storage.find(str(root), "")
    document = storage.listing(found)
    os.close(found.fd)
    assert (len(document["entries"]), document["more"]) == (2, True)


def test_folders_that_are_too_deep_are_broken_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_DEPTH", 2)
    with pytest.raises(storage.BrokenOffError):
        members(root)

"""Images that are written without any image tool."""

import tarfile
from pathlib import Path

import pytest

from localcluster.archive import Archive, write
from localcluster.errors import Failure
from localcluster.images import _full


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF")
    return path


def test_the_same_content_is_the_same_image(tmp_path: Path, program: Path) -> None:
    first = write(tmp_path / "a.tar", "localhost/x:1", {"bin/x": program}, ["/bin/x"])
    program.touch()
    second = write(tmp_path / "b.tar", "localhost/x:1", {"bin/x": program}, ["/bin/x"])
    assert first.image_id == second.image_id
    assert first.path.read_bytes() == second.path.read_bytes()


def test_an_archive_is_read_as_it_was_written(tmp_path: Path, program: Path) -> None:
    written = write(tmp_path / "a.tar", "localhost/x:1", {"usr/bin/x": program}, ["/usr/bin/x"])
    assert Archive.open(written.path) == written
    with tarfile.open(written.path) as outer:
        layer = outer.extractfile("layer.tar")
        assert layer
        with tarfile.open(fileobj=layer) as inner:
            assert inner.getnames() == ["tmp", "usr", "usr/bin", "usr/bin/x"]


@pytest.mark.parametrize("content", [b"", b"no tar"])
def test_what_is_no_archive_is_refused_with_advice(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(Failure, match="docker-archive"):
        Archive.open(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox:stable", "docker.io/library/busybox:stable"),
        ("org/name:1", "docker.io/org/name:1"),
        ("localhost/name:1", "localhost/name:1"),
        ("ghcr.io/org/name:1", "ghcr.io/org/name:1"),
        ("host:5000/name:1", "host:5000/name:1"),
    ],
)
def test_short_names_mean_what_they_mean_to_containerd(short: str, full: str) -> None:
    assert _full(short) == full

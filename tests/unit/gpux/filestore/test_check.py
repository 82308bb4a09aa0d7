from __future__ import annotations

import json
import shutil

import pytest

from gpux.store.tools import main
from tests.unit.gpux.filestore.kit import put, rot, sha1, sha256, store

ONE, TWO = sha1(b"one").hex, sha256(b"one")


def check(root, capsys):
    status = main(["check", "--root", str(root)])
    *problems, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert summary["problems"] == len(problems)
    assert status == bool(problems)
    return summary, [problem["problem"] for problem in problems]


@pytest.fixture
def root(tmp_path):
    blobs = store(tmp_path)
    put(blobs, b"one")
    put(blobs, b"one", "b", public=True)
    put(blobs, b"two", references={"task:t": None, "owner:o": None})
    call = tmp_path / "calls" / "t"
    call.mkdir(parents=True)
    answer = {"sha1": ONE, "sha256": TWO, "size": 3}
    (call / "1.json").write_text(json.dumps({"namespace": "a", "answer": answer}))
    (call / "1.data").write_text("{}")
    return tmp_path


def test_a_sound_store(root, capsys):
    summary, problems = check(root, capsys)
    assert not problems
    assert summary == {"contents": 2, "bytes": 6, "entries": 4, "references": 5, "calls": 1, "problems": 0}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: rot(root, b"one"), ["has other bytes than its name says"]),
        (lambda root: (root / "sha256" / TWO[:2] / TWO).unlink(), ["its content is missing"] * 3),
        (lambda root: (root / "index/a/sha256" / TWO).unlink(), ["the way back is missing"]),
        (
            lambda root: (root / "index/a/sha1" / ONE).unlink(),
            ["refers to no entry", "its answer is missing"],
        ),
        (lambda root: (root / "calls/t/1.data").unlink(), ["its input is missing"]),
        (lambda root: (root / "calls/t/1.json").write_text("{"), ["is damaged"]),
        (lambda root: (root / "layout").write_text("9"), ["a newer layout"]),
        (lambda root: resize(root / "refs/a/task:t" / ONE), ["counts another size"]),
        (
            lambda root: rename(root / "index/a/sha256" / TWO),
            ["names another SHA-1", "the way back is missing"],
        ),
    ],
)
def test_damage(root, capsys, damage, expected):
    damage(root)
    _, problems = check(root, capsys)
    assert len(problems) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(problems, expected, strict=True))


def resize(path):
    path.unlink()
    path.symlink_to("4")


def rename(path):
    path.unlink()
    path.symlink_to("0" * 40)


def test_it_changes_nothing(root, tmp_path_factory, capsys):
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(root, copy, symlinks=True)
    for path in (*copy.glob("**/"), copy):
        path.chmod(0o500)
    try:
        assert not check(copy, capsys)[1]
    finally:
        for path in (copy, *copy.glob("**/")):
            path.chmod(0o700)

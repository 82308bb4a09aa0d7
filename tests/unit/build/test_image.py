"""The Dockerfile: what it copies is in its context, what it ships runs without root and with its licences."""

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def stages() -> dict[str, str]:
    parts = re.split(r"^(FROM .*)$", DOCKERFILE, flags=re.MULTILINE)
    named = {}
    for line, body in zip(parts[1::2], parts[2::2], strict=True):
        named[line.rpartition(" AS ")[2]] = body
    return named


def test_images_run_without_root() -> None:
    for target in ("operator", "agent"):
        assert re.findall(r"^USER (.*)$", stages()[target], re.MULTILINE) == ["65532:65532"], target


def test_what_is_copied_is_in_the_context() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            name = source.rstrip("/")
            assert any(fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in allowed), name
            assert name == "build/kompose" or (ROOT / name).exists(), name


def test_nothing_of_the_building_machine_is_kept() -> None:
    """A certificate authority or an index in the image would be trusted wherever it runs."""
    for target in ("operator", "agent"):
        body = stages()[target]
        assert "PIP_" not in body
        assert "ca.crt" not in body
        assert "pip install" not in body
    assert "://" not in DOCKERFILE


def test_versions_are_those_of_the_constraints() -> None:
    assert "install --quiet -r constraints/runtime.txt" in DOCKERFILE
    assert "--no-deps" in DOCKERFILE


def test_komposes_licences_are_those_of_its_version() -> None:
    """`make licenses` writes them; the version is pinned in kompose/go.mod."""
    pinned = re.search(r"github\.com/kubernetes/kompose (v\S+)", (ROOT / "kompose" / "go.mod").read_text())
    assert pinned
    text = (ROOT / "kompose" / "third-party-licenses.txt").read_text()
    assert f"github.com/kubernetes/kompose {pinned[1]}\n" in text
    # Every other module, in the version that is linked.
    sums = (ROOT / "kompose" / "go.sum").read_text()
    named = re.findall(r"^(\S+\.\S+/\S+) (v\S+)$", text, re.MULTILINE)
    assert len(named) > 50
    assert [name for name in named if f"{name[0]} {name[1]} h1:" not in sums] == []
    assert "kompose" in (ROOT / "NOTICE").read_text()

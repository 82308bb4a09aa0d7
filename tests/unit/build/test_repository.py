"""What must stay true of the repository itself."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def files() -> Iterator[tuple[str, str]]:
    """Every text file that is, or could be, committed."""
    git = shutil.which("git")
    assert git, "git isn't there"
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".jpg", ".onnx"}:
            yield name, path.read_text(errors="replace")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "constraints" / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def requirements(group: str) -> list[Requirement]:
    found: list[Requirement] = []
    for entry in PROJECT["dependency-groups"][group]:
        found += requirements(entry["include-group"]) if isinstance(entry, dict) else [Requirement(entry)]
    return found


RUNTIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]


def test_operator_is_no_package() -> None:
    """With it, `python -m anything` at the root would import this folder instead of the standard library's operator."""
    assert (ROOT / "operator" / "opengpu_operator" / "__init__.py").is_file()
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("module", ["gpux.agent.__main__", "gpux.agent.serving", "gpux.probe", "gpux.tokens"])
def test_the_agent_needs_the_standard_library_only(module: str) -> None:
    """Its image holds Python and gpux; -S -I hides everything that is installed here."""
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'operator')!r}); import {module}"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["build.txt", "dev.txt", "runtime.txt"])
def test_constraints_are_versions_only(name: str) -> None:
    """An address in them would bind everyone to one package index."""
    for line in (ROOT / "constraints" / name).read_text().splitlines():
        assert re.fullmatch(r"# .*|[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("dev.txt", [*RUNTIME, *requirements("dev"), *requirements("fuzz")]),
        ("runtime.txt", RUNTIME),
        ("build.txt", [Requirement("hatchling")]),
    ],
    ids=["dev", "runtime", "build"],
)
def test_constraints_pin_what_is_asked_for(file: str, wanted: list[Requirement]) -> None:
    pinned = {canonicalize_name(name): version for name, version in pins(file).items()}
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"run make constraints: {requirement} isn't pinned"
        assert requirement.specifier.contains(pinned[name]), f"run make constraints: {requirement}"


def test_images_hold_what_was_tested() -> None:
    assert pins("runtime.txt").items() <= pins("dev.txt").items()


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in [*RUNTIME, *requirements("dev"), *requirements("fuzz")]:
        (line,) = re.findall(rf'^ +"{re.escape(requirement.name)}[^a-zA-Z-].*$', text, re.MULTILINE)
        assert "# " in line, line


def test_every_lint_rule_left_out_has_its_reason() -> None:
    block = re.search(
        r"^ignore = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL
    )
    assert block
    for line in block[1].splitlines():
        assert re.fullmatch(r'  "[A-Z]+[0-9]*", +# .+', line), line


def test_every_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for name in line.split()}
    explained = set(re.findall(r"^([a-z][a-z0-9-]*):.*## ", text, re.MULTILINE))
    assert targets - explained == {"programs"}
    assert {"setup", "demo", "demo-down", "test", "lint", "bench"} <= explained


def test_help_lists_every_target_that_is_explained() -> None:
    make = shutil.which("make")
    assert make, "make isn't there"
    done = subprocess.run([make, "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    explained = re.findall(r"^([a-z][a-z0-9-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  (\S+) ", done.stdout, re.MULTILINE) == explained


def test_ci_does_what_the_readme_says() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert blocks[0].split("\n")[:2] == ["make demo", "make test"]


def test_test_runs_every_folder_of_tests() -> None:
    text = (ROOT / "Makefile").read_text()
    run = set(re.findall(r"^\t@pytest .*?tests/([a-z0-9]+)$", text, re.MULTILINE))
    folders = {
        path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert folders - {"bench"} <= run


def test_no_paths_of_a_machine() -> None:
    """What is in the repository works wherever it is cloned."""
    # Taken apart, so that this file isn't found.
    pattern = re.compile("/" + "work/")
    found = [name for name, text in files() if pattern.search(text)]
    assert found == []


def test_scripts_can_be_run() -> None:
    for name, text in files():
        if text.startswith("#!"):
            assert (ROOT / name).stat().st_mode & 0o111, name


def test_every_shell_script_is_checked() -> None:
    (checked,) = re.findall(r"^\t@shellcheck (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    scripts = {name for name, text in files() if re.match(r"#!.*[/ ](ba|da)?sh\b", text)}
    assert scripts == set(checked.split())

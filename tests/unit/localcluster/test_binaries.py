"""What is built is named after everything it is made of, so that a change is never missed nor a build repeated."""

from pathlib import Path

import pytest

from localcluster import binaries
from localcluster.binaries import Module
from localcluster.cli import main
from localcluster.errors import Failure


@pytest.fixture
def module(tmp_path: Path) -> Module:
    for name, content in {"go.mod": "module x", "go.sum": "sums", "own/main.go": "package main"}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return Module("x", tmp_path, {"own": "./own", "other": "example.org/other"})


@pytest.mark.parametrize("changed", ["go.mod", "go.sum", "own/main.go"])
def test_a_change_of_an_input_is_a_new_build(module: Module, changed: str) -> None:
    before = module.digest("own")
    (module.directory / changed).write_text("changed")
    assert module.digest("own") != before


def test_a_change_of_our_own_program_rebuilds_nothing_else(module: Module) -> None:
    before = module.digest("other")
    (module.directory / "own/main.go").write_text("changed")
    assert module.digest("other") == before


def test_flags_are_part_of_the_build(module: Module) -> None:
    other = Module(module.name, module.directory, module.programs, link_flags="-s")
    assert other.digest("own") != module.digest("own")


def test_files_that_are_not_built_do_not_count(module: Module) -> None:
    before = module.digest("own")
    (module.directory / "README.md").write_text("words")
    assert module.digest("own") == before


def test_the_modules_are_pinned_completely() -> None:
    for module in binaries.MODULES:
        assert (module.directory / "go.mod").is_file()
        assert (module.directory / "go.sum").is_file()


def test_kompose_comes_first_since_others_wait_for_it() -> None:
    assert binaries.ALL[0] == "kompose"


def test_kubernetes_is_built_in_the_version_that_it_will_claim() -> None:
    pinned = (binaries.module_of("kubelet").directory / "go.mod").read_text()
    assert f"k8s.io/kubernetes {binaries.KUBERNETES_VERSION}\n" in pinned
    assert f"gitVersion={binaries.KUBERNETES_VERSION}" in binaries.module_of("kubelet").link_flags


def test_an_unknown_program_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failure, match="kube-apiserver"):
        binaries.module_of("traefik")
    assert main(["binaries", "traefik"]) == 1
    assert "no program 'traefik'" in capsys.readouterr().err


def test_links_show_what_is_built_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = binaries.path("kompose")
    built.parent.mkdir(parents=True)
    built.write_text("")
    directory = binaries.ensure(["kompose"])
    assert [path.name for path in directory.iterdir()] == ["kompose"]
    assert (directory / "kompose").resolve() == built

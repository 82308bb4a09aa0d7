"""The command line: what is understood, what is refused, and with which exit code."""

from pathlib import Path

import pytest

from localcluster import providers
from localcluster.cli import main, parser
from localcluster.cluster import Wish
from localcluster.errors import Failure
from localcluster.paths import Layout
from localcluster.providers import Current, Kind, provider
from localcluster.topology import INGRESS_PORT

COMMANDS = ("up", "down", "status", "load", "kubeconfig", "env", "node", "binaries", "build")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLUSTER_HOME", str(tmp_path))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"localcluster {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [[], ["fly"], ["up", "--nodes", "two"], ["load"], ["build", "."], ["--provider", "x", "up"]]
)
def test_wrong_usage_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["kubeconfig"], ["env"], ["load", "x"], ["node", "reboot", "node-a"], ["up", "--nodes", "0"]]
)
def test_a_failure_is_exit_code_1_and_one_paragraph(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("localcluster: ")
    assert said.err.count("\n") == 1


def test_status_without_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == 1
    assert '"running": false' in capsys.readouterr().out


def test_down_without_a_cluster_is_done() -> None:
    assert main(["down"]) == 0


def test_a_build_is_parsed_whole() -> None:
    argv = [
        "build",
        "-t",
        "x:1",
        "-f",
        "D",
        "--target",
        "final",
        "--build-arg",
        "A=1",
        "--build-arg",
        "B=2",
        "ctx",
    ]
    parsed = parser().parse_args(argv)
    assert (parsed.tag, parsed.file, parsed.target) == ("x:1", Path("D"), "final")
    assert (parsed.build_arg, parsed.context) == (["A=1", "B=2"], Path("ctx"))


class TestProviders:
    def test_the_wrong_context_is_never_touched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Current, "_context", lambda _: "production")
        with pytest.raises(Failure, match="production"):
            Current("staging").up(Wish())
        with pytest.raises(Failure, match="--confirm production"):
            Current(None).up(Wish())
        Current("production").up(Wish())

    def test_what_is_typed_counts_at_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Current, "_context", lambda _: "mine")
        monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)})())
        Current(None, ask=lambda _: "mine").up(Wish())
        with pytest.raises(Failure):
            Current(None, ask=lambda _: "yes").up(Wish())

    def test_a_cluster_that_is_not_ours_is_not_removed(self) -> None:
        with pytest.raises(Failure, match="will not remove"):
            Current("x").down()

    def test_kind_says_what_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(providers, "find", lambda _: None)
        with pytest.raises(Failure, match="docker and kind"):
            provider("kind", Layout("local"), None).up(Wish())

    def test_kind_has_the_ingress_where_its_configuration_puts_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run(argv: list[str]) -> str:
            return "local\nother\n" if argv[1:] == ["get", "clusters"] else "a kubeconfig"

        monkeypatch.setattr(Kind, "_require", lambda _: None)
        monkeypatch.setattr(providers, "run", run)
        assert Kind(Layout("local")).status()["ingressPort"] == INGRESS_PORT
        assert Kind(Layout("absent")).status()["ingressPort"] is None

"""How `opengpu files` finds the store: from a task's Secret with the user's rights, or as it is told."""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any, Self

import pytest

from opengpu_operator.cli import outside
from opengpu_operator.cli.main import main
from opengpu_operator.cli.outside import Outside, Unreachable
from opengpu_operator.kube.gateway import HttpGateway
from opengpu_operator.kube.kinds import SECRET, TASK

JOB = "061i6uku7ie62tg1"
URL = "https://files.example.org"


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    outside.add(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--server", URL), ("--task", "a", "--server", URL), ("--token-file", "x")],
)
def test_the_store_is_named_in_one_way(arguments: tuple[str, ...]) -> None:
    with pytest.raises(Unreachable, match=r"--task|--token-file"):
        outside.connect(options(*arguments))


@pytest.mark.parametrize(
    "url",
    [
        "files.example.org",
        "ftp://files.example.org",
        "https://",
        "",
        f"{URL}:99999",
        f"{URL}:0",
        f"{URL}:http",
        "https://[::1",
        "https://files example.org",
        f"{URL}/\x01",
    ],
)
def test_urls_of_no_store(url: str) -> None:
    with pytest.raises(Unreachable, match="not the URL"):
        Outside(outside.Access(url, "t", ""))


def test_a_token_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "token")
    assert main(["files", "ls", "--server", URL, "--token-file", missing]) == 2
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize("token", ["", "\n", "one\ntwo", "one\r\nHost: two", "one two", "one\0"])
def test_a_token_that_is_none_is_not_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    assert main(["files", "ls", "--server", "http://127.0.0.1:9", "--token-file", str(file)]) == 2
    said = capsys.readouterr().err
    assert "is none" in said
    assert "two" not in said


class Cluster:
    """The part of the gateway that is asked."""

    def __init__(self, task: dict[str, Any] | None, secret: dict[str, Any] | None) -> None:
        self.objects = {
            (TASK, "team", "render"): task,
            (SECRET, "team", f"j-{JOB}-files"): secret,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        return self.objects.get((kind, namespace, name))


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "mine",
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "mine", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(document))
    return str(path)


def having(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    async def connect(*_: object, **__: object) -> Cluster:
        return cluster

    monkeypatch.setattr(HttpGateway, "connect", connect)


def task(*conditions: dict[str, str], job: str | None = JOB) -> dict[str, Any]:
    return {"metadata": {"uid": "u-1"}, "status": {"jobId": job, "conditions": list(conditions)}}


def secret() -> dict[str, Any]:
    data = {"url": URL, "token": "v1.a.b"}
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


def test_a_tasks_secret_says_where_and_with_what(monkeypatch: pytest.MonkeyPatch, kubeconfig: str) -> None:
    having(monkeypatch, Cluster(task(), secret()))
    store = outside.connect(options("--task", "render", "--kubeconfig", kubeconfig))
    assert store.task == "u-1"
    assert store._access == (URL, "v1.a.b", "u-1")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "there is no OpenGPUTask render in team"),
        (task(), "spec.storage.external"),
        (task(job=None), "hasn't started"),
        (task({"type": "External", "reason": "Capped", "message": "this cluster allows Off"}), "allows Off"),
    ],
)
def test_a_task_that_is_not_open_says_why(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: str, found: dict[str, Any] | None, said: str
) -> None:
    having(monkeypatch, Cluster(found, None))
    with pytest.raises(Unreachable) as refused:
        outside.connect(options("--task", "render", "-n", "team", "--kubeconfig", kubeconfig))
    assert said in str(refused.value)


def test_a_cluster_that_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="can't be asked"):
        outside.connect(options("--task", "render", "--kubeconfig", str(tmp_path / "absent")))

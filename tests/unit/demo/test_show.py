"""The demo judges its answers: it must not take a wrong device for a right one."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import yaml

from demo.shell import ROOT
from demo.show import (
    ENVIRONMENTS,
    WORKER_IMAGE,
    Demo,
    file_server,
    gpus,
    main,
    right_devices,
    source_object,
    task_object,
)
from opengpu_operator.api.source import Source
from opengpu_operator.api.task import Task

VOID = {"NVIDIA_VISIBLE_DEVICES": "void"}
NVIDIA = {"NVIDIA_VISIBLE_DEVICES": "GPU-fake-1"}
AMD = {"NVIDIA_VISIBLE_DEVICES": "void", "AMD_VISIBLE_DEVICES": "GPU-fake-2"}


@pytest.mark.parametrize(
    ("environment", "model", "worker", "right"),
    [
        ("cpu", VOID, VOID, True),
        ("cpu", {}, {}, True),
        ("cpu", NVIDIA, NVIDIA, False),
        ("nvidia", NVIDIA, VOID, True),
        ("nvidia", NVIDIA, NVIDIA, False),
        ("nvidia", VOID, VOID, False),
        ("nvidia", {"AMD_VISIBLE_DEVICES": "GPU-fake-2"}, VOID, False),
        ("amd", AMD, AMD, True),
        ("amd", VOID, VOID, False),
        ("amd", NVIDIA, NVIDIA, False),
    ],
)
def test_devices(environment: str, model: dict[str, str], worker: dict[str, str], right: bool) -> None:
    assert right_devices(environment, {"devices": model, "worker_devices": worker}) is right


def test_the_table_names_the_gpu() -> None:
    assert [gpus(devices) for devices in ({}, VOID, NVIDIA, AMD)] == [
        "none",
        "none",
        "GPU-fake-1",
        "GPU-fake-2",
    ]


def _stored(obj: dict[str, Any]) -> dict[str, Any]:
    known = {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {**obj, "metadata": {**obj["metadata"], **known}}


def test_what_it_applies_is_what_the_models_know() -> None:
    source = Source.model_validate(_stored(source_object()))
    assert source.spec.image_envs is not None
    assert [str(name) for name in source.spec.image_envs.offered()] == list(ENVIRONMENTS)
    call = Task.model_validate(_stored(task_object("t", environment="amd", call={"sha1": "0" * 40})))
    assert call.spec.is_call
    assert not Task.model_validate(_stored(task_object("t", environment="cpu"))).spec.is_call


def test_each_environment_has_a_file_with_a_worker_and_a_page() -> None:
    for environment in ENVIRONMENTS:
        services = yaml.safe_load((ROOT / f"demo/compose/{environment}.yaml").read_text())["services"]
        targets = [port.rpartition(":")[2] for service in services.values() for port in service["ports"]]
        assert sorted(targets) == ["5555", "8080"], environment
        assert {service["image"] for service in services.values()} == {WORKER_IMAGE}


def test_a_changed_file_changes_the_pod_that_serves_it() -> None:
    def template(text: str) -> str:
        (deployment,) = (
            obj for obj in file_server({"cpu.yaml": text}, WORKER_IMAGE) if obj["kind"] == "Deployment"
        )
        return json.dumps(deployment["spec"]["template"])

    assert template("a") != template("b")


class TestCurrentCluster:
    """A registry is needed to bring images into a cluster of the user's own, and not to leave it."""

    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []
        for action in ("up", "down"):
            monkeypatch.setattr(Demo, action, lambda _, action=action: calls.append(action))
        return calls

    def run(self, monkeypatch: pytest.MonkeyPatch, action: str, *options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["demo", action, "--cluster", "current", *options])
        return main()

    def test_up_without_a_registry_is_wrong_usage(
        self, done: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            self.run(monkeypatch, "up")
        assert end.value.code == 2
        assert "REGISTRY=HOST/PATH" in capsys.readouterr().err
        assert done == []

    def test_down_needs_none(self, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.run(monkeypatch, "up", "--registry", "registry.example/me") == 0
        assert self.run(monkeypatch, "down") == 0
        assert done == ["up", "down"]

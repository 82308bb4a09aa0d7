"""`opengpu translate`: its output, its findings, its exit status."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from opengpu_operator.cli.main import main
from tests.support.compose import NO_KOMPOSE, real_kompose
from tests.support.environment import unavailable

SIDECAR = """
services:
  my_model:
    image: ollama/ollama:latest
    ports: ["12436:11434"]
    volumes: ["models:/root/.ollama"]
    healthcheck: {test: [CMD, ollama, list]}
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}
  worker:
    image: example.org/worker@sha256:0000000000000000000000000000000000000000000000000000000000000000
    ports: ["${PORT}:5555"]
    environment:
      - CALLBACK_URL=${CALLBACK_URL}
      - OLLAMA_HOST=http://host.docker.internal:12436
      - TOKEN=${TOKEN}
    depends_on: {my_model: {condition: service_healthy}}
  debug: {image: example.org/debug, profiles: [debug]}
volumes: {models: }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Chat File.yaml"
    path.write_text(SIDECAR)
    return path


@pytest.fixture(autouse=True)
def needs_kompose() -> None:
    if real_kompose() is None:
        unavailable(NO_KOMPOSE)


def workloads(manifest: str) -> dict[str, dict[str, Any]]:
    objects = [entry for entry in yaml.safe_load_all(manifest) if entry["kind"] in ("Deployment", "Job")]
    return {entry["metadata"]["labels"]["app.kubernetes.io/component"]: entry for entry in objects}


def test_a_manifest(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(file)]) == 0
    out, err = capsys.readouterr()
    found = workloads(out)
    assert list(found) == ["my-model", "worker"]
    model, worker = (found[name]["spec"]["template"]["spec"] for name in ("my-model", "worker"))
    assert model["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] in (1, "1")
    assert "schedulingGates" in worker
    env = {entry["name"]: entry.get("value") for entry in worker["containers"][0]["env"]}
    assert env["CALLBACK_URL"] == "http://127.0.0.1:20000"
    assert env["OLLAMA_HOST"] == "http://my-model:11434"
    assert env["TOKEN"] == ""
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "\x1b[" not in err
    for reason in ("NameChanged", "VariableUnset", "HostReferenceRewritten", "ProfileInactive", "ModelCache"):
        assert reason in err
    for entry in yaml.safe_load_all(out):
        assert entry["metadata"]["namespace"] == "default"
        for value in entry["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)


def test_the_same_file_gives_the_same_bytes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        assert main(["translate", str(file)]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert main(["translate", str(file), "--name", "other"]) == 0
    assert capsys.readouterr().out != outputs[0]


def test_options(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--environment",
        "nvidia",
        "--var",
        "TOKEN=a=b",
        "--profile",
        "*",
        "--name",
        "t",
        "--namespace",
        "n",
    ]
    assert main(["translate", str(file), *arguments, "--nameserver", "192.0.2.53"]) == 0
    out, err = capsys.readouterr()
    found = workloads(out)
    assert "debug" in found
    assert "VariableUnset" not in err
    worker = found["worker"]["spec"]["template"]["spec"]
    assert {"name": "TOKEN", "value": "a=b"} in worker["containers"][0]["env"]
    assert worker["dnsConfig"]["nameservers"] == ["192.0.2.53"]
    assert all(entry["metadata"]["namespace"] == "n" for entry in yaml.safe_load_all(out))


def test_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SIDECAR.encode())))
    assert main(["translate", "-"]) == 0
    assert workloads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services: {app: {image: x, privileged: true}}", "Privileged"),
        ("<html>", "NotAComposeFile"),
        ("", "NotAComposeFile"),
        ("services: {app: {image: x, typo: 1}}", "UnknownKey"),
    ],
)
def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    assert main(["translate", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            [],
            ["translate"],
            ["nothing"],
            ["translate", "x", "--var", "A"],
            ["translate", "x", "--var", "1=2"],
        ),
        *(
            ["translate", "x", "--environment", "tpu"],
            ["translate", "x", "--name", "A B"],
            ["translate", "x", "--more"],
        ),
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage" in err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(tmp_path / "none")]) == 2
    assert "can't be read" in capsys.readouterr().err


def test_kompose_is_not_there(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENGPU_KOMPOSE", "/nonexistent")
    assert main(["translate", str(file)]) == 2
    assert "kompose" in capsys.readouterr().err


def test_a_nameserver_that_is_none(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(file), "--nameserver", "x"]) == 2
    assert capsys.readouterr().out == ""


def test_as_a_program(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "opengpu_operator.cli.main", "translate", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3] / "operator",
    )
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) >= 5

"""The parts of the end-to-end tests that could be wrong without a cluster noticing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.fixtures import corpus_files, full_name, stand_in_names
from tests.e2e.kit import Audit
from tests.e2e.test_operator_kill import COMMAND

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("ollama/ollama:rocm", "docker.io/ollama/ollama:rocm"),
        (f"ollama/ollama:latest@{DIGEST}", f"docker.io/ollama/ollama@{DIGEST}"),
        (f"ollama/ollama@{DIGEST}", f"docker.io/ollama/ollama@{DIGEST}"),
        (f"localhost:5000/a/b:1@{DIGEST}", f"localhost:5000/a/b@{DIGEST}"),
        (f"localhost:5000/a/b@{DIGEST}", f"localhost:5000/a/b@{DIGEST}"),
        ("localhost/a:1", "localhost/a:1"),
    ],
)
def test_names_are_those_that_containerd_looks_up(image: str, name: str) -> None:
    assert full_name(image) == name


def test_every_image_of_the_files_has_a_stand_in() -> None:
    assert set(corpus_files()) == {"01", "02", "03", "48", "61"}
    assert all(stand_in_names().values())


def _request(verb: str, code: int, *, name: str = "a", user: str = "operator", **target: str) -> str:
    event = {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": "services", "namespace": "n", "name": name, **target},
        "responseStatus": {"code": code},
    }
    return json.dumps(event) + "\n"


def test_the_audit_counts_only_what_was_really_created(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(_request("create", 201))
    audit = Audit.now(log)
    with log.open("a") as file:
        file.write(_request("create", 201))
        file.write(_request("create", 409))
        file.write(_request("create", 201, name="b"))
        file.write(_request("create", 201, name="b"))
        file.write(_request("create", 201, user="somebody"))
        file.write(_request("create", 201, namespace="elsewhere"))
        file.write(_request("create", 201, subresource="token"))
        file.write(_request("get", 200))
        file.write(_request("create", 201)[:-20])
    counted = audit.creations(user="operator", namespaces=["n"])
    assert counted == {("services", "n", "a"): 1, ("services", "n", "b"): 2}


@pytest.mark.parametrize(
    ("command", "matches"),
    [
        (["/opt/opengpu/bin/python3", "/opt/opengpu-app/bin/opengpu-operator", "run", "--config", "x"], True),
        (
            [
                "/opt/opengpu/bin/python3",
                "/opt/opengpu-app/bin/opengpu-operator",
                "translator",
                "--config",
                "x",
            ],
            False,
        ),
        (["kubectl", "exec", "opengpu-operator", "run"], False),
        (["bash", "-c", "python3 /opt/opengpu-app/bin/opengpu-operator run"], False),
    ],
)
def test_only_the_operator_itself_is_killed(command: list[str], matches: bool) -> None:
    line = b"\0".join(part.encode() for part in command) + b"\0"
    assert bool(COMMAND.match(line)) is matches

"""``opengpu storage ls``: what is shown of claims."""

from __future__ import annotations

from typing import Any

import pytest

from opengpu_operator.api.labels import (
    ENVIRONMENT,
    EXPIRES_AT,
    KEEP,
    LAST_USED_AT,
    OWNER,
    OWNER_NAME,
    SOURCE,
    TASK_UID,
)
from opengpu_operator.cli.claims import rows, table
from opengpu_operator.cli.main import main
from opengpu_operator.desired.names import owner_value, user_volume
from tests.unit.reconcile.builders import at


def claim(
    name: str,
    *,
    labels: dict[str, str],
    mode: str = "ReadWriteOnce",
    capacity: str | None = None,
    **annotations: str,
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "labels": labels,
            "annotations": annotations,
            "creationTimestamp": at(0),
        },
        "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "20Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": capacity} if capacity else {}},
    }


def owned(owner: str, environment: str | None, **options: Any) -> dict[str, Any]:
    labels = {OWNER: owner_value(owner)} | ({ENVIRONMENT: environment} if environment else {})
    mode = "ReadWriteOnce" if environment else "ReadWriteMany"
    name = user_volume("team", owner, environment)
    return claim(name, labels=labels, mode=mode, **{OWNER_NAME: owner, **options})


def task(
    name: str, *, owner: str | None = None, environment: str = "cpu", done: bool = False
) -> dict[str, Any]:
    conditions = [{"type": "Complete", "status": "True"}] if done else []
    return {
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}"},
        "spec": {"sourceRef": {"name": "ocr"}, **({"owner": owner} if owner else {})},
        "status": {"environment": environment, "conditions": conditions},
    }


NODE = {"volume.kubernetes.io/selected-node": "node-a"}
TASKS = [
    task("one", owner="alice"),
    task("two", owner="alice"),
    task("gpu", owner="alice", environment="nvidia"),
    task("over", owner="alice", done=True),
    task("bobs", owner="bob", environment="nvidia"),
    task("alone"),
]


def test_owners_claims_say_whose_they_are_and_who_uses_them():
    claims = [
        owned("bob", None, **NODE, **{EXPIRES_AT: at(60)}),
        owned("alice", "cpu", capacity="25Gi", **NODE, **{LAST_USED_AT: at(30)}),
        claim("j-x-job", labels={TASK_UID: "uid-one"}),
    ]
    alice, bob = rows(claims, TASKS, everything=False)
    assert alice == {
        "namespace": "team",
        "claim": user_volume("team", "alice", "cpu"),
        "kind": "user",
        "owner": "alice",
        "mode": "NodeLocal",
        "environment": "cpu",
        "size": "25Gi",
        "phase": "Bound",
        "node": "node-a",
        "lastUsed": at(30),
        "expires": None,
        "kept": False,
        "usedBy": ["one", "two"],
    }
    shared = {
        key: bob[key] for key in ("mode", "environment", "size", "node", "lastUsed", "expires", "usedBy")
    }
    assert shared == {
        "mode": "Shared",
        "environment": None,
        "size": "20Gi",
        "node": None,
        "lastUsed": at(0),
        "expires": at(60),
        "usedBy": ["bobs"],
    }


def test_claims_of_jobs_and_sources_come_after_them():
    claims = [
        claim("s-ocr-cpu-v-models", labels={SOURCE: "ocr", ENVIRONMENT: "cpu"}),
        claim("j-x-job", labels={TASK_UID: "uid-alone", SOURCE: "ocr", ENVIRONMENT: "cpu"}),
        owned("alice", "cpu"),
    ]
    found = rows(claims, TASKS, everything=True)
    assert [(row["kind"], row["usedBy"]) for row in found] == [
        ("user", ["one", "two"]),
        ("job", ["alone"]),
        ("source", ["alone", "one", "two"]),
    ]


def test_the_table_is_aligned_and_nothing_in_it_steers_a_terminal():
    found = rows(
        [owned("alice", "cpu", **{KEEP: "true", LAST_USED_AT: "\x1b[2Jnow"})], TASKS, everything=False
    )
    heading, line = table(found, everything=False)
    assert heading.split() == [
        "NAMESPACE",
        "OWNER",
        "MODE",
        "ENVIRONMENT",
        "SIZE",
        "NODE",
        "LAST-USED",
        "EXPIRES",
        "USED-BY",
    ]
    assert line.split() == [
        "team",
        "alice",
        "NodeLocal",
        "cpu",
        "20Gi",
        "-",
        "\ufffd[2Jnow",
        "never",
        "one,two",
    ]
    assert line.index("never") == heading.index("EXPIRES")


def test_without_claims_there_is_the_heading():
    assert len(table([], everything=True)) == 1


def test_a_kubeconfig_that_isnt_there_is_named(capsys, tmp_path):
    missing = tmp_path / "config"
    assert main(["storage", "ls", "-A", "--kubeconfig", str(missing)]) == 2
    assert main(["storage", "ls", "--kubeconfig", str(missing)]) == 2
    assert "opengpu: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"", b"a: [", b"a: b", b"\xff", b"contexts: [{name: a}]\ncurrent-context: a"]
)
@pytest.mark.parametrize(
    "command", [["storage", "ls"], ["storage", "ls", "-A"], ["files", "ls", "--task", "render"]], ids=" ".join
)
def test_a_kubeconfig_that_is_none_is_named(capsys, tmp_path, command, content):
    file = tmp_path / "config"
    file.write_bytes(content)
    assert main([*command, "--kubeconfig", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("opengpu: ")
    assert "config" in said


@pytest.mark.parametrize("arguments", [["-A", "-n", "team"], ["-o", "yaml"]])
def test_what_contradicts_itself_or_isnt_there_is_refused(arguments):
    with pytest.raises(SystemExit):
        main(["storage", "ls", *arguments])

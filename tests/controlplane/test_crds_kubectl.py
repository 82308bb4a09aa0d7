"""What people and their tools see: kubectl's columns, explanations and waiting, and a status that is stored in full."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from opengpu_operator.api.meta import Model
from opengpu_operator.api.source import SourceStatus
from opengpu_operator.api.task import TaskStatus
from tests.support.models import instances

pytestmark = pytest.mark.controlplane

API = "/apis/opengpu.network/v1alpha1"
MERGE = "application/merge-patch+json"
TIME = "2026-01-02T03:04:05Z"

SOURCE = {
    "imageEnvs": {"cpu": {"composeUrl": "https://example.com/compose.yaml"}},
    "deliveryMethod": "FirstResponse",
}
TASK = {"sourceRef": {"name": "source"}}
OBJECTS: dict[str, tuple[str, dict[str, Any], type[Model]]] = {
    "opengpusources": ("OpenGPUSource", SOURCE, SourceStatus),
    "opengputasks": ("OpenGPUTask", TASK, TaskStatus),
}


def condition(type_, status, reason, generation=1):
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": "a sentence",
        "observedGeneration": generation,
        "lastTransitionTime": TIME,
    }


@pytest.fixture
def objects(api, namespace):
    """One object of each kind, without a status, by its plural."""
    paths = {}
    for plural, (kind, spec, _) in OBJECTS.items():
        path = f"{API}/namespaces/{namespace}/{plural}"
        document = {
            "apiVersion": "opengpu.network/v1alpha1",
            "kind": kind,
            "metadata": {"name": "a"},
            "spec": spec,
        }
        status, body = api.request("POST", path, document)
        assert status == 201, body
        paths[plural] = f"{path}/a"
    return paths


def write(api, path, status):
    code, body = api.request(
        "PATCH", f"{path}/status", {"status": status}, content=MERGE, fieldValidation="Strict"
    )
    assert code == 200, body
    return body


def rows(api, namespace, *what):
    """Return kubectl's table as a list of rows by column."""
    result = api.kubectl("get", "--namespace", namespace, *what)
    assert result.returncode == 0, result.stderr
    head, *lines = result.stdout.strip().splitlines()
    starts = [head.index(name) for name in head.split()]
    columns = list(zip(head.split(), starts, [*starts[1:], None], strict=True))
    return [{name: line[start:end].strip() for name, start, end in columns} for line in lines]


def test_columns_of_a_source(api, namespace, objects):
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Stalled", "False", "Fetched"), condition("Ready", "True", "Translated")],
        "offered": "cpu,nvidia",
        "activeTasks": 3,
    }
    write(api, objects["opengpusources"], status)
    (row,) = rows(api, namespace, "ogs")
    assert row.pop("AGE")
    assert row == {"NAME": "a", "READY": "True", "OFFERED": "cpu,nvidia", "TASKS": "3"}
    (row,) = rows(api, namespace, "ogs", "-o", "wide")
    assert row["REASON"] == "Translated"
    assert row["DELIVERY"] == "FirstResponse"


def test_columns_of_a_task(api, namespace, objects):
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Ready", "False", "WaitingForGPUs")],
        "environment": "nvidia",
        "taskStatus": "Attempted",
        "gpus": 2,
        "attempts": 1,
        "urls": [
            {"service": "web", "port": 80, "url": "http://one.example.com/"},
            {"service": "web", "port": 81, "url": "http://two.example.com/"},
        ],
        "cftunnel": "https://a-b.trycloudflare.com",
    }
    write(api, objects["opengputasks"], status)
    (row,) = rows(api, namespace, "ogt")
    assert row.pop("AGE")
    assert row == {
        "NAME": "a",
        "SOURCE": "source",
        "ENV": "nvidia",
        "STATUS": "Attempted",
        "REASON": "WaitingForGPUs",
        "GPUS": "2",
        "URL": "http://one.example.com/",
    }
    (row,) = rows(api, namespace, "ogt", "-o", "wide")
    assert row["ATTEMPTS"] == "1"
    assert row["CFTUNNEL"] == "https://a-b.trycloudflare.com"


def test_columns_before_the_first_reconcile(api, namespace, objects):
    (row,) = rows(api, namespace, "ogt")
    assert row["STATUS"] == ""
    assert row["SOURCE"] == "source"


def test_both_kinds_at_once(api, namespace, objects):
    """The category names everything of ours, and `kubectl get all` none of it."""
    result = api.kubectl("get", "--namespace", namespace, "opengpu", "-o", "name")
    assert sorted(result.stdout.split()) == [
        "opengpusource.opengpu.network/a",
        "opengputask.opengpu.network/a",
    ]
    result = api.kubectl("get", "--namespace", namespace, "ogs,ogt", "-o", "name")
    assert len(result.stdout.split()) == 2
    assert api.kubectl("get", "--namespace", namespace, "all", "-o", "name").stdout == ""


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("ogt.spec.functionName", "functionName is the worker's function"),
        ("ogt.status.cftunnel", "Cloudflare tunnel"),
        ("ogs.spec.imageEnvs.nvidia.sha256", "pins the file's content"),
        ("ogs", "says where Compose files are"),
    ],
)
def test_explain(api, field, said):
    result = api.kubectl("explain", field)
    assert result.returncode == 0, result.stderr
    assert said in " ".join(result.stdout.split())


@pytest.mark.parametrize("plural", OBJECTS)
def test_waiting(api, namespace, objects, plural):
    """`kubectl wait` and kstatus go by the conditions, and only if they are about the current generation."""

    def waits(name, seconds=1):
        limit = f"--timeout={seconds}s"
        asked = ("wait", "--namespace", namespace, f"--for=condition={name}", f"{plural}/a", limit)
        return api.kubectl(*asked).returncode == 0

    assert not waits("Ready")
    write(
        api,
        objects[plural],
        {"observedGeneration": 1, "conditions": [condition("Ready", "False", "Fetching")]},
    )
    assert not waits("Ready")
    write(
        api, objects[plural], {"observedGeneration": 1, "conditions": [condition("Ready", "True", "Running")]}
    )
    assert waits("Ready", 60)
    code, body = api.request("PATCH", objects[plural], {"spec": {"suspend": True}}, content=MERGE)
    assert code == 200, body
    assert body["metadata"]["generation"] == 2
    assert not waits("Ready")
    write(
        api,
        objects[plural],
        {"observedGeneration": 2, "conditions": [condition("Ready", "True", "Running", 2)]},
    )
    assert waits("Ready", 60)


@pytest.mark.parametrize("plural", OBJECTS)
def test_one_condition_of_each_type(api, objects, plural):
    twice = [condition("Ready", "True", "Running"), condition("Ready", "False", "Running")]
    code, body = api.request(
        "PATCH", f"{objects[plural]}/status", {"status": {"conditions": twice}}, content=MERGE
    )
    assert code == 422
    assert "status.conditions[1]: Duplicate value" in body["message"]


@pytest.mark.parametrize("plural", OBJECTS)
def test_any_status_is_stored_in_full(api, objects, plural):
    """What is pruned would make the operator write again and again."""

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(instances(OBJECTS[plural][2]))
    def check(status):
        written = status.dump()
        current = api.request("GET", objects[plural])[1]
        code, body = api.request("PUT", f"{objects[plural]}/status", {**current, "status": written})
        assert code == 200, body
        assert body["status"] == written

    check()


@pytest.mark.parametrize("way", ["replace", "json patch"])
def test_an_answer_keeps_its_nulls(api, objects, way):
    """An answer is repeated as it was. (A merge patch isn't used for it: it drops every null inside a list.)"""
    answer = {"a": None, "b": [None, {"c": None}], "d": 1.5}
    status = TaskStatus(responses=[{"id": "1", "inline": answer}]).dump()
    path = objects["opengputasks"]
    if way == "replace":
        code, body = api.request("PUT", f"{path}/status", {**api.request("GET", path)[1], "status": status})
    else:
        patch = [{"op": "add", "path": "/status", "value": status}]
        code, body = api.request("PATCH", f"{path}/status", patch, content="application/json-patch+json")
    assert code == 200, body
    assert body["status"]["responses"][0]["inline"] == answer


def test_the_largest_status_can_be_stored(api, objects):
    """The bounds leave room: an object that etcd refuses for its size would hide the whole status."""
    finding = {"severity": "error", "reason": "R" * 128, "path": "p" * 512, "line": 1, "message": "m" * 512}
    service = {"name": "s" * 128, "kind": "Deployment", "gpus": 1, "ports": list(range(1, 65))}
    environments = [
        {"name": name, "message": "m" * 1024, "services": [service] * 128, "findings": [finding] * 64}
        for name in ("cpu", "nvidia", "amd")
    ]
    body = write(
        api, objects["opengpusources"], SourceStatus.model_validate({"environments": environments}).dump()
    )
    assert len(json.dumps(body)) > 400_000

"""What may change after creation, what may not, and that applying twice changes nothing."""

import json
from typing import Any

import pytest

from opengpu_operator.api.task import TaskSpec

pytestmark = pytest.mark.controlplane

API = "/apis/opengpu.network/v1alpha1"
MERGE = "application/merge-patch+json"

CALL = {"sourceRef": {"name": "source"}, "functionName": "run", "data": {"a": [1, {"b": None}]}}
BY_HASH = {"sourceRef": {"name": "source"}, "functionName": "run", "dataFrom": {"sha1": "a" * 40}}
JOB = {"sourceRef": {"name": "source"}}
ACCOUNT = {"accountRef": {"name": "account"}}

#: Another one may be given until the task starts; it is only looked at then.
PROOF = {
    "signature": "A" * 86 + "==",
    "notAfter": "2030-01-01T00:00:00Z",
    "digests": [f"sha256:{'0' * 64}"],
}

REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sourceRef", CALL, {"sourceRef": {"name": "other"}}),
    ("functionName", CALL, {"functionName": "stop"}),
    ("functionName", CALL, {"functionName": None, "data": None}),
    ("functionName", JOB, {"functionName": "run", "data": {}}),
    ("data", CALL, {"data": {"a": 2}}),
    ("data", CALL, {"data": {"a": [1, {"b": 1}]}}),
    ("data", CALL, {"data": {"c": 1, "d": 2}}),
    ("data", CALL, {"data": None, "dataFrom": {"sha1": "a" * 40}}),
    ("data", BY_HASH, {"data": {}, "dataFrom": None}),
    ("dataFrom", BY_HASH, {"dataFrom": {"sha1": "b" * 40}}),
    ("payment", CALL, {"payment": "1"}),
    ("payment", {**CALL, "payment": "1"}, {"payment": "2"}),
    ("payment", {**CALL, "payment": "1"}, {"payment": None}),
    ("owner", JOB, {"owner": "alice"}),
    ("owner", {**JOB, "owner": "alice"}, {"owner": "bob"}),
    ("owner", {**JOB, "owner": "alice"}, {"owner": None}),
    ("publish", CALL, {"publish": ACCOUNT}),
    ("publish", {**CALL, "publish": ACCOUNT}, {"publish": {"accountRef": {"name": "other"}}}),
    ("publish", {**CALL, "publish": ACCOUNT}, {"publish": None}),
    ("confirm", {**CALL, "confirm": {"responseId": "1"}}, {"confirm": {"responseId": "2"}}),
    ("confirm", {**CALL, "confirm": {"responseId": "1"}}, {"confirm": None}),
    ("storage", JOB, {"storage": {"external": "Links"}}),
    ("storage", {**JOB, "storage": {"external": "Links"}}, {"storage": {"external": "Public"}}),
    ("storage", {**JOB, "storage": {"external": "Links"}}, {"storage": None}),
]

ALLOWED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (JOB, {"environment": "cpu"}),
    (JOB, {"expirySeconds": 60}),
    ({**JOB, "expirySeconds": 60}, {"expirySeconds": None}),
    (JOB, {"ports": [80]}),
    (JOB, {"portOptions": [{"port": 80, "requestTimeoutSeconds": 60}]}),
    (JOB, {"access": {"allowedCidrs": ["192.0.2.0/24"]}}),
    ({**JOB, "access": {"tokenSha256": "a" * 64}}, {"access": None}),
    ({**JOB, "owner": "alice"}, {"ownerProof": PROOF}),
    (JOB, {"env": [{"name": "A", "value": "a"}]}),
    (JOB, {"resources": {"memory": "1Gi"}}),
    (JOB, {"services": {"web": {"resources": {"cpu": "1"}}}}),
    (JOB, {"storage": {"jobSize": "1Gi"}}),
    ({**JOB, "storage": {"external": "Links"}}, {"storage": {"external": "Links", "jobSize": "1Gi"}}),
    (JOB, {"mainService": "web"}),
    (JOB, {"suspend": True}),
    ({**JOB, "suspend": True}, {"suspend": None}),
    (JOB, {"maxAttempts": 1}),
    (CALL, {"ttlSecondsAfterFinished": 0}),
    (CALL, {"confirm": {"responseId": "1"}}),
    ({**CALL, "owner": "alice", "payment": "1", "publish": ACCOUNT}, {"suspend": True}),
]


def names(cases):
    return [f"{len(case)}-{number}-{json.dumps(case[-1])}" for number, case in enumerate(cases)]


@pytest.fixture
def stored(api, namespace):
    """Make an object and return its path."""

    def make(spec, *, plural="opengputasks", kind="OpenGPUTask"):
        status, body = api.request(
            "POST",
            f"{API}/namespaces/{namespace}/{plural}",
            {"apiVersion": "opengpu.network/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec},
            fieldValidation="Strict",
        )
        assert status == 201, body
        return f"{API}/namespaces/{namespace}/{plural}/a"

    return make


@pytest.mark.parametrize(("field", "spec", "change"), REFUSED, ids=names(REFUSED))
def test_immutable(api, stored, field, spec, change):
    """Neither a change, nor adding, nor removing; by a patch or by a whole object."""
    path = stored(spec)
    status, body = api.request("PATCH", path, {"spec": change}, content=MERGE)
    assert status == 422, body
    causes = [cause for cause in body["details"]["causes"] if cause["field"] == f"spec.{field}"]
    assert any("can't be changed" in cause["message"] for cause in causes), body["details"]["causes"]

    current = api.request("GET", path)[1]
    for key, value in change.items():
        if value is None:
            del current["spec"][key]
        else:
            current["spec"][key] = value
    assert api.request("PUT", path, current)[0] == 422


@pytest.mark.parametrize(("spec", "change"), ALLOWED, ids=names(ALLOWED))
def test_mutable(api, stored, spec, change):
    path = stored(spec)
    status, body = api.request("PATCH", path, {"spec": change}, content=MERGE, fieldValidation="Strict")
    assert status == 200, body
    wanted = {**spec, **change}
    assert body["spec"] == {key: value for key, value in wanted.items() if value is not None}
    assert body["metadata"]["generation"] == 2


def test_every_field_of_a_task_is_decided():
    """Whoever adds a field says in the tables above whether it may change."""
    refused = {field for field, _, _ in REFUSED}
    allowed = {field for _, change in ALLOWED for field in change}
    fields = {field.alias for field in TaskSpec.model_fields.values()}
    assert refused | allowed == fields
    assert refused & allowed == {"confirm", "storage"}  # set once; a part of it


def test_everything_of_a_source_may_change(api, stored):
    file = {"composeUrl": "https://example.com/compose.yaml"}
    path = stored(
        {"imageEnvs": {"cpu": file}, "minPayment": "1"}, plural="opengpusources", kind="OpenGPUSource"
    )
    change = {"imageEnvs": None, "template": {"name": "ollama"}, "minPayment": None, "suspend": True}
    status, body = api.request("PATCH", path, {"spec": change}, content=MERGE)
    assert status == 200, body
    assert body["spec"] == {"template": {"name": "ollama"}, "suspend": True}


def test_status_and_spec_are_apart(api, stored):
    """Writing the spec can't change the status, nor the other way round; the status makes no generation."""
    path = stored(JOB)
    forged = {"status": {"taskStatus": "Finalized"}, "spec": {"suspend": True}}
    status, body = api.request("PATCH", path, forged, content=MERGE)
    assert status == 200
    assert "status" not in body
    assert body["metadata"]["generation"] == 2
    status, body = api.request(
        "PATCH", f"{path}/status", {**forged, "spec": {"suspend": False}}, content=MERGE
    )
    assert status == 200
    assert body["status"] == {"taskStatus": "Finalized"}
    assert body["spec"]["suspend"] is True
    assert body["metadata"]["generation"] == 2


@pytest.mark.parametrize("flags", [[], ["--server-side"]], ids=["client", "server"])
def test_applying_twice_changes_nothing(api, namespace, flags):
    """GitOps tools compare what they applied with what is stored."""
    spec = {
        **CALL,
        "data": {"a": [1, {"b": ""}]},  # kubectl itself leaves out a null
        "env": [{"name": "A", "value": ""}, {"name": "B", "value": "b"}],
        "resources": {"cpu": "0.5", "memory": "1024Mi"},
        "services": {"web": {}},
        "storage": {},
    }
    document = {
        "apiVersion": "opengpu.network/v1alpha1",
        "kind": "OpenGPUTask",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": spec,
    }
    seen = []
    for _ in range(2):
        result = api.kubectl("apply", *flags, "-f", "-", "-o", "json", text=json.dumps(document))
        assert result.returncode == 0, result.stderr
        seen.append(json.loads(result.stdout))
    assert seen[0]["spec"] == spec
    assert seen[0]["metadata"]["resourceVersion"] == seen[1]["metadata"]["resourceVersion"]
    assert api.kubectl("diff", *flags, "-f", "-", text=json.dumps(document)).returncode == 0


def test_two_appliers_share_a_list(api, namespace):
    """Lists of named entries are merged by name, so that two tools can each own some."""
    path = f"{API}/namespaces/{namespace}/opengputasks/a"
    for owner, name in (("one", "A"), ("two", "B")):
        document = {
            "apiVersion": "opengpu.network/v1alpha1",
            "kind": "OpenGPUTask",
            "metadata": {"name": "a"},
            "spec": {**JOB, "env": [{"name": name, "value": owner}]},
        }
        status, body = api.request(
            "PATCH", path, document, content="application/apply-patch+yaml", fieldManager=owner
        )
        assert status in {200, 201}, body
    assert {entry["name"] for entry in body["spec"]["env"]} == {"A", "B"}

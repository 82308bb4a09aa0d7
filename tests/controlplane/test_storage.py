"""Storage of owners and what the store keeps of tasks, with the API server's own rules and a real store.

Nothing provisions volumes here: the tests play the provisioner too.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from gpux.tokens import sign
from tests.controlplane.conftest import MERGE
from tests.controlplane.test_operator import OGT, Cluster
from tests.support.stack import Stack, decode, eventually, running

pytestmark = pytest.mark.controlplane

CLAIMS = "/api/v1/namespaces/{}/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
#: Only where nothing lasts may days be seconds.
UNUSED = 2
POLICY = {"user": {"size": "1Gi", "storageClass": "disk", "unusedSeconds": UNUSED, "graceSeconds": 3}}


@pytest.fixture(scope="module")
def disk(api):
    """A class that keeps volumes, and lets them grow."""
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "disk"},
        "provisioner": "example.com/nobody",
        "reclaimPolicy": "Retain",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    status, answer = api.request("POST", CLASSES, body)
    assert status == 201, answer
    yield "disk"
    api.request("DELETE", f"{CLASSES}/disk")


@pytest.fixture
def stack(kubeconfig, namespace, disk, tmp_path):
    """An operator that sees this test's namespace alone."""
    settings: dict[str, Any] = {"namespaces": {"watch": [namespace]}}
    size = {"size": "1Gi", "storageClass": disk}
    storage = {"user": size, "job": size, "quota": {"jobBytes": "64Ki", "ownerBytes": "1Mi"}}
    with running(Stack(tmp_path, kubeconfig, **settings, storage=storage)) as started:
        yield started


@pytest.fixture
def cluster(api, stack, namespace):
    return Cluster(api, stack, namespace)


def claims(cluster: Cluster, label: str) -> list[dict[str, Any]]:
    found = cluster.api.request("GET", CLAIMS.format(cluster.namespace), labelSelector=label)[1]
    return list(found["items"])


def claim_of(cluster: Cluster, label: str) -> dict[str, Any]:
    """Return the one claim with a label, once it is there."""
    return dict(
        eventually(lambda: next(iter(claims(cluster, label)), None), within=30, otherwise=cluster.stack.logs)
    )


def provision(cluster: Cluster, claim: dict[str, Any]) -> str:
    """Bind a claim to a volume that is made for it; return the volume's name."""
    metadata, name = claim["metadata"], f"pvc-{claim['metadata']['uid']}"
    reference = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": "example.com/nobody"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **reference},
            "hostPath": {"path": "/nowhere"},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "disk",
        },
    }
    status, answer = cluster.api.request("POST", VOLUMES, volume)
    assert status == 201, answer
    path = f"{CLAIMS.format(cluster.namespace)}/{metadata['name']}"
    patch = {
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": name},
    }
    status, answer = cluster.api.request("PATCH", path, patch, content=MERGE)
    assert status == 200, answer
    bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}
    status, answer = cluster.api.request("PATCH", f"{path}/status", bound, content=MERGE)
    assert status == 200, answer
    return name


def test_storage_of_an_owner_grows_where_its_class_lets_it(cluster):
    cluster.source()
    cluster.call(owner="alice")
    claim = claim_of(cluster, "opengpu.network/owner")
    provision(cluster, claim)
    path = f"{OGT.format(cluster.namespace)}/ask"

    def ask(size: str) -> None:
        status, answer = cluster.api.request(
            "PATCH", path, {"spec": {"storage": {"userSize": size}}}, content=MERGE
        )
        assert status == 200, answer

    def size() -> str:
        return str(claim_of(cluster, "opengpu.network/owner")["spec"]["resources"]["requests"]["storage"])

    ask("3Gi")
    eventually(lambda: size() == "3Gi", within=30, otherwise=cluster.stack.logs)
    patch = {"allowVolumeExpansion": False}
    assert cluster.api.request("PATCH", f"{CLASSES}/disk", patch, content=MERGE)[0] == 200
    try:
        ask("5Gi")
        refused = cluster.until(OGT, "ask", "StorageSized", status="False", reason="StorageTooSmall")
        assert "5Gi" in str(refused["status"]["conditions"])
        assert size() == "3Gi"
    finally:
        patch = {"allowVolumeExpansion": True}
        assert cluster.api.request("PATCH", f"{CLASSES}/disk", patch, content=MERGE)[0] == 200


def test_unused_storage_is_announced_and_goes_unless_it_is_kept(cluster, stack):
    cluster.source()
    cluster.call(owner="alice")
    cluster.call("bobs", owner="bob")
    eventually(lambda: len(claims(cluster, "opengpu.network/owner")) == 2, within=30)
    by_owner = {
        claim["metadata"]["annotations"]["opengpu.network/owner-name"]: claim["metadata"]["name"]
        for claim in claims(cluster, "opengpu.network/owner")
    }
    keep = {"metadata": {"annotations": {"opengpu.network/keep": "true"}}}
    kept = f"{CLAIMS.format(cluster.namespace)}/{by_owner['bob']}"
    assert cluster.api.request("PATCH", kept, keep, content=MERGE)[0] == 200
    stack.restart_operator(storage=POLICY)
    # Both are in use, however old they are by the policy.
    time.sleep(UNUSED + 1)  # nothing tells that a moment has passed in which nothing was to happen
    assert not any(
        "opengpu.network/expires-at" in claim["metadata"]["annotations"]
        for claim in claims(cluster, "opengpu.network/owner")
    )
    # A pod that is there would keep its claim, and the garbage collector is in no hurry with theirs.
    for name in ("ask", "bobs"):
        path, suspended = f"{OGT.format(cluster.namespace)}/{name}", {"spec": {"suspend": True}}
        assert cluster.api.request("PATCH", path, suspended, content=MERGE)[0] == 200
    pods = f"/api/v1/namespaces/{cluster.namespace}/pods"
    eventually(lambda: not cluster.api.request("GET", pods)[1]["items"], within=60, otherwise=stack.logs)
    stack.operator.stop()
    for name in ("ask", "bobs"):
        assert cluster.api.request("DELETE", f"{OGT.format(cluster.namespace)}/{name}")[0] == 200
    stack.operator.start()
    eventually(
        lambda: (
            [claim["metadata"]["name"] for claim in claims(cluster, "opengpu.network/owner")]
            == [by_owner["bob"]]
        ),
        within=60,
        otherwise=stack.logs,
    )
    events = cluster.api.request("GET", f"/api/v1/namespaces/{cluster.namespace}/events")[1]["items"]
    about = {
        event["reason"]: event for event in events if event["involvedObject"]["name"] == by_owner["alice"]
    }
    assert about.keys() >= {"StorageExpires", "StorageRemoved"}
    assert about["StorageExpires"]["type"] == "Warning"
    (left,) = claims(cluster, "opengpu.network/owner")
    assert "opengpu.network/expires-at" not in left["metadata"]["annotations"]


def test_a_volume_goes_with_the_claim_of_its_task_and_an_owners_doesnt(cluster, stack):
    cluster.source()
    uid = cluster.call(owner="alice")["metadata"]["uid"]
    owners = provision(cluster, claim_of(cluster, "opengpu.network/owner"))
    jobs = provision(cluster, claim_of(cluster, f"opengpu.network/task-uid={uid}"))

    def policy(name: str) -> str:
        return str(
            cluster.api.request("GET", f"{VOLUMES}/{name}")[1]["spec"]["persistentVolumeReclaimPolicy"]
        )

    eventually(lambda: policy(jobs) == "Delete", within=30, otherwise=stack.logs)
    assert policy(owners) == "Retain"
    # Somebody takes it back, and the operator misses that and the end of the task.
    stack.operator.stop()
    patch = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    assert cluster.api.request("PATCH", f"{VOLUMES}/{jobs}", patch, content=MERGE)[0] == 200
    cluster.api.request("DELETE", f"{OGT.format(cluster.namespace)}/ask")
    eventually(lambda: cluster.get(OGT, "ask") is None, within=30)
    status, answer = cluster.api.request(
        "PATCH", f"{VOLUMES}/{jobs}/status", {"status": {"phase": "Released"}}, content=MERGE
    )
    assert status == 200, answer
    stack.operator.start()
    eventually(lambda: policy(jobs) == "Delete", within=60, otherwise=stack.logs)
    for name in (owners, jobs):
        cluster.api.request("PATCH", f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}}, content=MERGE)
        cluster.api.request("DELETE", f"{VOLUMES}/{name}")


def test_the_store_has_quotas_and_lets_go_of_tasks_that_were_deleted_while_no_operator_ran(cluster, stack):
    cluster.source()
    tokens = {}
    for name in ("gone", "stays"):
        task = cluster.task(name, owner="alice")
        children = eventually(lambda: cluster.children(task["metadata"]["uid"])["secrets"], within=30)  # noqa: B023 - awaited in the loop
        (secret,) = (item for item in children if "token" in item["data"])
        tokens[task["metadata"]["uid"]] = decode(secret["data"]["token"])
    for token in tokens.values():
        assert stack.ask_store("POST", "/v1/files", token, f"{token} {'x' * 50_000}")[0] in {200, 201}
        status, answer = stack.ask_store("POST", "/v1/files", token, f"{token} {'y' * 20_000}")
        assert (status, "quota" in answer) == (507, True), answer
    key = (stack.directory / "key").read_text().encode()
    operator = sign(key, {"scope": "operator", "namespace": "", "task": "", "exp": int(time.time()) + 600})

    def known() -> set[str]:
        return {entry["task"] for entry in stack.ask_store("GET", "/v1/tasks", operator)[1]}

    assert known() == set(tokens)
    stack.operator.stop()
    gone = cluster.get(OGT, "gone") or {}
    cluster.api.request("DELETE", f"{OGT.format(cluster.namespace)}/gone")
    eventually(lambda: cluster.get(OGT, "gone") is None, within=30)
    stack.operator.start()
    eventually(lambda: known() == set(tokens) - {gone["metadata"]["uid"]}, within=60, otherwise=stack.logs)

"""Everything that reconciling reads is kept, and little else."""

import json
from typing import Any

import pytest

from opengpu_operator.api.labels import OWNER, TASK_UID
from opengpu_operator.kube.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    HTTP_ROUTE,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    PVC,
    SERVICE,
    STORAGE_CLASS,
    TASK,
)
from opengpu_operator.kube.trim import trim

METADATA = {
    "name": "a",
    "namespace": "ns",
    "uid": "u",
    "resourceVersion": "1",
    "generation": 2,
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {
        "opengpu.network/task-uid": "t",
        "app.kubernetes.io/component": "web",
        "app.kubernetes.io/managed-by": "opengpu-operator",
        "team": "x",
    },
    "annotations": {
        "opengpu.network/spec-hash": "h",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    },
    "ownerReferences": [
        {
            "apiVersion": "opengpu.network/v1alpha1",
            "kind": "OpenGPUTask",
            "name": "t",
            "uid": "t",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ],
    "managedFields": [{"manager": "kubectl"}],
    "selfLink": "",
}
KEPT = {
    "name": "a",
    "namespace": "ns",
    "uid": "u",
    "resourceVersion": "1",
    "labels": {
        "opengpu.network/task-uid": "t",
        "app.kubernetes.io/component": "web",
        "app.kubernetes.io/managed-by": "opengpu-operator",
    },
    "annotations": {"opengpu.network/spec-hash": "h"},
    "ownerReferences": [{"kind": "OpenGPUTask", "name": "t", "uid": "t", "controller": True}],
}
CONDITION = {
    "type": "Ready",
    "status": "False",
    "reason": "R",
    "message": "M",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "lastProbeTime": None,
}


@pytest.mark.parametrize("kind", [SERVICE, CONFIG_MAP, DEPLOYMENT, PVC], ids=str)
def test_of_most_kinds_metadata_alone(kind):
    obj = {"metadata": METADATA, "spec": {"a": 1}, "data": {"b": "c"}, "status": {"replicas": 1}}
    assert trim(kind, obj) == {"metadata": KEPT}


def test_ours_are_kept_whole():
    spec, status = {"data": {"x": [1, {"y": None}]}}, {"conditions": [CONDITION]}
    assert trim(TASK, {"metadata": METADATA, "spec": spec, "status": status}) == {
        "metadata": KEPT | {"generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
        "status": status,
    }


def test_a_deletion_is_kept():
    going = {**METADATA, "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x"]}
    kept = trim(TASK, {"metadata": going})["metadata"]
    assert (kept["deletionTimestamp"], kept["finalizers"]) == ("2026-01-01T00:00:00Z", ["x"])


def test_a_pod():
    state = {"running": {"startedAt": "t"}}
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "t", "containerID": "c"}}
    container = {"name": "web", "ready": True, "restartCount": 1, "image": "i", "imageID": "x" * 100}
    pod = {
        "metadata": METADATA,
        "spec": {
            "nodeName": "n",
            "schedulingGates": [{"name": "opengpu.network/healthy.db"}],
            "containers": [
                {
                    "name": "web",
                    "image": "i",
                    "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {}},
                },
                {"name": "side", "env": [{"name": "A", "value": "b"}]},
            ],
            "volumes": [{"name": "x"}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [CONDITION],
            "containerStatuses": [container | {"state": state, "lastState": ended}],
            "initContainerStatuses": [container | {"state": state}],
        },
    }
    short = {"name": "web", "ready": True, "restartCount": 1, "state": state}
    assert trim(POD, pod) == {
        "metadata": KEPT,
        "spec": {
            "nodeName": "n",
            "schedulingGates": [{"name": "opengpu.network/healthy.db"}],
            "containers": [
                {"name": "web", "resources": {"limits": {"nvidia.com/gpu": "1"}}},
                {"name": "side", "resources": {}},
            ],
        },
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{key: value for key, value in CONDITION.items() if value is not None}],
            "containerStatuses": [
                short | {"lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "t"}}}
            ],
            "initContainerStatuses": [short],
        },
    }
    # What is trimmed belongs to somebody else and stays as it is.
    assert ended["terminated"]["containerID"] == "c"


def test_zeros_and_false_say_something():
    status = {"name": "web", "ready": False, "restartCount": 0, "started": False}
    kept = trim(POD, {"metadata": METADATA, "status": {"containerStatuses": [status]}})
    assert kept["status"]["containerStatuses"] == [status]


def test_of_a_deployment_only_why_its_pods_are_refused():
    refused = CONDITION | {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    status = {"replicas": 1, "conditions": [CONDITION, refused]}
    assert trim(DEPLOYMENT, {"metadata": METADATA, "spec": {"replicas": 1}, "status": status}) == {
        "metadata": KEPT,
        "status": {
            "conditions": [
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "M"}
            ]
        },
    }
    assert trim(DEPLOYMENT, {"metadata": METADATA, "status": {"conditions": [CONDITION]}}) == {
        "metadata": KEPT
    }


def test_of_an_httproute_only_why_its_gateway_does_not_take_it():
    taken = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
    refused = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no"}
    other = {"type": "Programmed", "status": "False", "reason": "Pending"}

    def kept(*conditions):
        when = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
        parent = {"parentRef": {"name": "public"}, "conditions": [{**entry, **when} for entry in conditions]}
        return trim(
            HTTP_ROUTE, {"metadata": METADATA, "spec": {"rules": []}, "status": {"parents": [parent]}}
        )

    assert "status" not in kept(taken, other)
    assert kept(refused, other)["status"] == {"refused": [refused]}
    assert trim(HTTP_ROUTE, {"metadata": METADATA}) == kept(taken)


def test_a_job():
    job = trim(
        JOB,
        {
            "metadata": METADATA,
            "spec": {"suspend": True, "template": {}},
            "status": {"succeeded": 1, "conditions": [CONDITION], "uncountedTerminatedPods": {}},
        },
    )
    assert job["spec"] == {"suspend": True}
    assert job["status"]["succeeded"] == 1
    assert job["status"]["conditions"][0]["type"] == "Ready"


def test_a_revision():
    revision = trim(CONTROLLER_REVISION, {"metadata": METADATA, "revision": 3, "data": {"big": "x" * 1000}})
    assert revision == {"metadata": KEPT, "revision": 3}


def test_a_nodes_heartbeat_changes_nothing():
    def node(moment):
        return trim(
            NODE,
            {
                "metadata": {**METADATA, "labels": {"nvidia.com/gpu.product": "H200"}},
                "spec": {"unschedulable": True, "podCIDR": "10.0.0.0/24"},
                "status": {
                    "allocatable": {"nvidia.com/gpu": "8"},
                    "images": [{"names": ["x"]}],
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": moment}],
                },
            },
        )

    assert node("1") == node("2")
    assert node("1")["metadata"]["labels"] == {"nvidia.com/gpu.product": "H200"}
    assert node("1")["spec"] == {"unschedulable": True}
    assert node("1")["status"]["allocatable"] == {"nvidia.com/gpu": "8"}


def test_a_namespace_keeps_its_labels():
    kept = trim(NAMESPACE, {"metadata": METADATA, "status": {"phase": "Terminating"}})
    assert kept["metadata"]["labels"] == METADATA["labels"]
    assert kept["status"] == {"phase": "Terminating"}


def test_what_the_children_of_a_task_have_in_common_is_shared():
    text = json.dumps({"metadata": METADATA | {"namespace": "a-tenant"}, "spec": {"functionName": "f"}})
    first, second = (trim(TASK, json.loads(text)) for _ in range(2))
    assert next(iter(first["spec"])) is next(iter(second["spec"]))
    one, other = first["metadata"], second["metadata"]
    assert one["namespace"] is other["namespace"]
    assert one["labels"]["opengpu.network/task-uid"] is other["labels"]["opengpu.network/task-uid"]
    assert one["ownerReferences"][0]["uid"] is one["labels"]["opengpu.network/task-uid"]


def claim(**labels: str) -> dict[str, Any]:
    spec = {"volumeName": "pv", "storageClassName": "disk", "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "1", "labels": labels}
    metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}}


def test_of_an_owners_claim_its_size_and_age():
    kept = trim(PVC, claim(**{OWNER: "o"}))
    assert kept["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert kept["spec"] == {"storageClassName": "disk", "resources": {"requests": {"storage": "1Gi"}}}
    assert kept["status"] == {"phase": "Bound"}


def test_of_a_tasks_claim_that_it_is_there():
    """Its volume coming doesn't make a task worth another look."""
    assert trim(PVC, claim(**{TASK_UID: "t"})).keys() == {"metadata"}


def test_of_a_storage_class_what_becomes_of_its_volumes():
    metadata = {"name": "disk", "uid": "u", "resourceVersion": "1"}
    found = {
        "metadata": metadata,
        "reclaimPolicy": "Retain",
        "allowVolumeExpansion": True,
        "parameters": {"a": "b"},
    }
    assert trim(STORAGE_CLASS, found) == {
        "metadata": metadata,
        "reclaimPolicy": "Retain",
        "allowVolumeExpansion": True,
    }

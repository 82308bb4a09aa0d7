"""Which pod chooses the node of a shared volume, and how the others follow."""

from typing import Any

import pytest

from opengpu_operator.api.translation import Restart, Until
from opengpu_operator.desired.job import build
from tests.support.jobs import (
    JOB,
    NVIDIA,
    context,
    mount,
    one,
    pod,
    service,
    settings,
    translation,
    waits,
    worker,
)

CALL = {"functionName": "chat"}
SHARED = [mount("shared")]
TAINTED = {
    "gpu": {
        "nvidia": {
            "resourceName": "nvidia.com/gpu",
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "nodeSelector": {"pool": "gpu"},
            "runtimeClassName": "nvidia",
        }
    }
}


def made(*services, spec=CALL, configured=None):
    return build(translation(*services), context(spec=spec), settings(**(configured or {})))


def required(objects, component):
    """Return the component that a pod must be beside."""
    affinity = pod(objects, component).get("affinity", {}).get("podAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    assert all(term["topologyKey"] == "kubernetes.io/hostname" for term in terms)
    return [term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] for term in terms]


def preferred(objects, component):
    affinity = pod(objects, component).get("affinity", {}).get("podAffinity", {})
    return [
        term["podAffinityTerm"]["labelSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])
    ]


def gates(objects, component):
    return [gate.removeprefix("opengpu.network/") for gate in objects.gated.get(component, [])]


def test_the_one_with_gpus_chooses_wherever_it_stands_in_the_file():
    objects = made(service("web", mounts=SHARED), service("llm", gpu=NVIDIA, mounts=SHARED), worker(gpu=None))
    assert gates(objects, "web") == ["placed.llm"]
    assert required(objects, "web") == ["llm"]
    assert gates(objects, "llm") == []
    assert "affinity" not in pod(objects, "llm")
    assert gates(objects, "worker") == []


def test_without_gpus_the_one_with_most_memory_chooses():
    objects = made(
        worker(gpu=None, mounts=SHARED),
        service("db", mounts=SHARED, container={"resources": {"requests": {"memory": "8Gi"}}}),
    )
    assert gates(objects, "worker") == ["placed.db"]


def test_volumes_that_nobody_shares_tie_nobody():
    objects = made(worker(mounts=[mount("one")]), service("db", mounts=[mount("two")]))
    assert objects.gated == {}
    assert "affinity" not in pod(objects, "worker")


def test_sharing_is_transitive():
    objects = made(
        worker(mounts=[mount("a")]),
        service("one", mounts=[mount("a"), mount("b", "/b")]),
        service("two", mounts=[mount("b", "/b")]),
    )
    assert required(objects, "one") == required(objects, "two") == ["worker"]


def test_gpux_storage_ties_the_services_that_have_it():
    objects = made(worker(), service("helper"), spec={**CALL, "storage": {"gpuxServices": ["helper"]}})
    assert gates(objects, "helper") == ["placed.worker"]
    assert required(objects, "helper") == ["worker"]


def test_what_must_run_first_goes_first_and_the_gpu_follows():
    objects = made(worker(mounts=SHARED, depends_on=[waits("db")]), service("db", mounts=SHARED))
    assert gates(objects, "db") == []
    assert gates(objects, "worker") == ["healthy.db"]
    assert required(objects, "worker") == ["db"]
    assert [finding.reason for finding in objects.findings] == ["PlacedBeforeGpu"]


def test_what_must_run_first_is_steered_to_nodes_with_gpus():
    objects = made(
        worker(mounts=SHARED, depends_on=[waits("db")]),
        service("db", mounts=SHARED),
        spec={**CALL, "resources": {"gpu": {"product": "H200"}}},
        configured=TAINTED,
    )
    spec = pod(objects, "db")
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert "runtimeClassName" not in spec
    node = spec["affinity"]["nodeAffinity"]
    product = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["H200"]}
    assert node["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [{"matchExpressions": [product]}]
    }
    assert node["preferredDuringSchedulingIgnoredDuringExecution"] == [
        {
            "weight": 100,
            "preference": {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "Exists"}]},
        }
    ]


def test_nothing_must_be_beside_a_job_which_may_be_over():
    objects = made(
        worker(mounts=SHARED, depends_on=[waits("download", Until.COMPLETED)]),
        service("download", mounts=SHARED),
        service("web", mounts=SHARED),
    )
    assert gates(objects, "download") == []
    assert gates(objects, "worker") == ["completed.download"]
    assert required(objects, "worker") == []
    assert preferred(objects, "worker") == ["download"]
    assert gates(objects, "web") == ["placed.worker"]
    assert required(objects, "web") == ["worker"]


def test_servers_keep_together_where_a_job_chooses():
    train = service("train", gpu=NVIDIA, restart=Restart.NO, mounts=SHARED)
    objects = made(
        train,
        service("board", restart=Restart.ALWAYS, mounts=SHARED),
        service("files", restart=Restart.ALWAYS, mounts=SHARED),
        spec={},
    )
    assert gates(objects, "train") == []
    assert gates(objects, "board") == ["placed.train"]
    assert preferred(objects, "board") == ["train"]
    assert gates(objects, "files") == ["placed.board"]
    assert required(objects, "files") == ["board"]


def test_two_groups_and_depends_on_never_wait_in_a_circle():
    # By demand alone a1 would lead a2 and b1 would lead b2; with the depends_on below that were a circle.
    big = {"resources": {"requests": {"memory": "8Gi"}}}
    objects = made(
        service("a1", mounts=[mount("a")], container=big, depends_on=[waits("b2")]),
        service("a2", mounts=[mount("a")]),
        service("b1", mounts=[mount("b")], container=big, depends_on=[waits("a2")]),
        service("b2", mounts=[mount("b")]),
        worker(),
    )
    edges = {
        name: {gate.partition(".")[2] for gate in gates(objects, name)} for name in ("a1", "a2", "b1", "b2")
    }
    done: set[str] = set()
    while ready := {name for name, before in edges.items() if before <= done} - done:
        done |= ready
    assert done == set(edges)


def test_replicas_that_share_a_volume_keep_together():
    objects = made(worker(), service("web", mounts=SHARED, replicas=3))
    assert required(objects, "web") == ["web"]
    assert gates(objects, "web") == []


def test_a_service_without_replicas_is_not_followed():
    objects = made(worker(mounts=SHARED), service("off", mounts=SHARED, gpu=NVIDIA, replicas=0))
    assert gates(objects, "worker") == []


def test_a_shared_users_volume_ties_nobody():
    spec = {**CALL, "owner": "me", "storage": {"gpuxServices": ["helper"]}}
    objects = made(worker(), service("helper"), spec=spec, configured={"storage": {"userMode": "Shared"}})
    assert required(objects, "helper") == ["worker"], "by /gpux_job"
    claims = [
        volume["name"] for volume in pod(objects, "helper")["volumes"] if "persistentVolumeClaim" in volume
    ]
    assert claims == ["gpux-job", "gpux-usr"]


class TestGpuNodes:
    def test_only_gpu_pods_get_there(self):
        objects = made(worker(), service("web"), configured=TAINTED)
        spec = pod(objects, "worker")
        assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
        assert spec["nodeSelector"] == {"pool": "gpu"}
        assert spec["runtimeClassName"] == "nvidia"
        for key in ("tolerations", "nodeSelector", "runtimeClassName", "affinity"):
            assert key not in pod(objects, "web")

    def test_and_those_that_must_follow_them(self):
        spec = pod(made(worker(mounts=SHARED), service("web", mounts=SHARED), configured=TAINTED), "web")
        assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
        assert "runtimeClassName" not in spec
        assert "nodeSelector" not in spec

    def test_a_file_does_not_override_the_cluster_and_selects_what_that_allows(self):
        wanted = {"pool": "cpu", "disk": "ssd", "owner": "me", "kubernetes.io/arch": "arm64"}
        configured = {**TAINTED, "pods": {"placementLabels": ["pool", "disk"]}}
        objects = made(worker(pod={"nodeSelector": wanted}), configured=configured)
        assert pod(objects, "worker")["nodeSelector"] == {
            "pool": "gpu",
            "disk": "ssd",
            "kubernetes.io/arch": "arm64",
        }


@pytest.mark.parametrize("kind", ["gpu", "volume", "plain"])
def test_a_rollout_never_needs_room_for_one_more(kind):
    mounted: dict[str, Any] = {"gpu": NVIDIA} if kind == "gpu" else {"mounts": SHARED}
    fields = {} if kind == "plain" else mounted
    objects = made(worker(), service("other", **fields))
    strategy = next(obj for obj in objects.objects if obj["metadata"]["name"].endswith("-other"))["spec"][
        "strategy"
    ]
    careful = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert strategy == ({"type": "Recreate"} if kind == "volume" else careful)


@pytest.mark.parametrize(("parallelism", "at_once"), [(3, 3), (0, "100%")])
def test_as_many_are_updated_at_once_as_the_file_says(parallelism, at_once):
    web = service("web", replicas=4, update_parallelism=parallelism, restart=Restart.ALWAYS)
    assert one(made(worker(), web), "Deployment", f"{JOB}-web")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": at_once,
    }

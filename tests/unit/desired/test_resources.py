"""What services need: the task's word, then the file's, then the cluster's."""

from decimal import Decimal

import pytest

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.source import Environment
from opengpu_operator.api.task import Resources
from opengpu_operator.api.translation import GpuRequest, Vendor
from opengpu_operator.desired import resources
from opengpu_operator.desired.problems import Problems
from tests.support.jobs import NVIDIA, service, settings


def needs(file=None, override=None, *, environment=Environment.NVIDIA, gpu=None, configured=None):
    problems = Problems()
    found = resources.needs(
        service("app", container={"resources": file} if file else {}, gpu=gpu),
        Resources.model_validate(override) if override else None,
        environment=environment,
        settings=settings(**(configured or {})),
        problems=problems,
    )
    problems.stop()
    return found


@pytest.mark.parametrize(
    ("file", "override", "request_", "limit"),
    [
        pytest.param({}, {}, "128Mi", "4Gi", id="defaults"),
        pytest.param({"requests": {"memory": "1Gi"}}, {}, "1Gi", "4Gi", id="a reservation"),
        pytest.param(
            {"requests": {"memory": "8Gi"}}, {}, "8Gi", "8Gi", id="a reservation above the default limit"
        ),
        pytest.param({"limits": {"memory": "64Gi"}}, {}, "128Mi", "64Gi", id="a limit reserves nothing"),
        pytest.param(
            {"limits": {"memory": "64Mi"}}, {}, "64Mi", "64Mi", id="a limit below the default request"
        ),
        pytest.param(
            {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}, {}, "1Gi", "1Gi", id="crossed"
        ),
        pytest.param({"limits": {"memory": 0}}, {}, "128Mi", "4Gi", id="zero is none"),
        pytest.param({"limits": {"memory": "1Gi"}}, {"memory": "16Gi"}, "16Gi", "16Gi", id="the task's word"),
    ],
)
def test_memory(file, override, request_, limit):
    found = needs(file, override).resources
    assert found["requests"]["memory"] == request_
    assert found["limits"]["memory"] == limit


@pytest.mark.parametrize(
    ("sizes", "file", "limit"),
    [
        (["1Gi", "1024"], {}, str(5 * 2**30 + 1024)),
        ([None], {}, "4Gi"),
        (["16Gi"], {"limits": {"memory": "1Gi"}}, "1Gi"),
        (["16Gi"], {"requests": {"memory": "8Gi"}}, str(20 * 2**30)),
    ],
)
def test_memory_volumes_are_beside_the_default_limit(sizes, file, limit):
    volumes = [
        {"name": "shm", "emptyDir": {"medium": "Memory", **({"sizeLimit": s} if s else {})}} for s in sizes
    ]
    found = resources.needs(
        service("app", container={"resources": file}, pod={"volumes": volumes}),
        None,
        environment=Environment.CPU,
        settings=settings(),
        problems=Problems(),
    )
    assert found.resources["limits"]["memory"] == limit


def test_processors_have_no_limit_by_default():
    assert needs().resources["requests"]["cpu"] == "100m"
    assert "cpu" not in needs().resources["limits"]
    assert needs({"limits": {"cpu": 0.5}}).resources["limits"]["cpu"] == "0.5"
    assert needs(configured={"pods": {"cpuLimit": "2"}}).resources["limits"]["cpu"] == "2"


def test_only_what_can_be_asked_for_is_taken_over():
    found = needs({"limits": {"nvidia.com/gpu": "8", "hugepages-2Mi": "1Gi"}}).resources
    assert set(found["limits"]) == {"memory", "ephemeral-storage"}


class TestGpus:
    def test_are_a_limit_under_the_clusters_name(self):
        two = GpuRequest(vendor=Vendor.NVIDIA, count=2)
        assert needs(gpu=two).resources["limits"]["nvidia.com/gpu"] == "2"
        mig = {"gpu": {"nvidia": {"resourceName": "nvidia.com/mig-1g.10gb"}}}
        assert needs(gpu=two, configured=mig).resources["limits"]["nvidia.com/mig-1g.10gb"] == "2"

    def test_all_is_what_the_cluster_says(self):
        everything = GpuRequest(vendor=Vendor.AMD, count=None)
        assert needs(gpu=everything).resources["limits"]["amd.com/gpu"] == "1"
        four = {"gpu": {"countAll": 4}}
        assert needs(gpu=everything, configured=four).resources["limits"]["amd.com/gpu"] == "4"

    def test_none_of_zero(self):
        found = needs(gpu=GpuRequest(vendor=Vendor.NVIDIA, count=0))
        assert found.gpu is None
        assert "nvidia.com/gpu" not in found.resources["limits"]

    def test_the_task_counts(self):
        assert needs(override={"gpu": {"count": 3}}, gpu=NVIDIA).resources["limits"]["nvidia.com/gpu"] == "3"

    def test_the_task_may_add_them_to_a_service_without(self):
        found = needs(override={"gpu": {"count": 1}}, environment=Environment.AMD)
        assert found.resources["limits"]["amd.com/gpu"] == "1"

    def test_but_not_where_there_are_none(self):
        with pytest.raises(Invalid, match="app can't have GPUs in the environment cpu") as caught:
            needs(override={"gpu": {"count": 1}}, environment=Environment.CPU)
        assert caught.value.reason == "SpecRefused:resources"

    def test_the_task_may_choose_the_kind(self):
        found = needs(override={"gpu": {"product": "NVIDIA-H200", "memory": "80Gi"}}, gpu=NVIDIA)
        assert resources.node_terms(found.gpu) == [
            {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H200"]},
            {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["81919"]},
        ]


def test_demand_counts_gpus_before_memory_before_processors():
    gpu = needs(gpu=NVIDIA).demand
    memory = needs({"requests": {"memory": "64Gi"}}).demand
    cpu = needs({"requests": {"cpu": "64"}}).demand
    assert gpu > memory > cpu > needs().demand
    assert needs().demand == (0, Decimal(128 * 2**20), Decimal("0.1"))

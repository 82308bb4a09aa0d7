"""Every object that we make of a job is accepted by a real API server, field by field, and by its pod security."""

import copy
import itertools
import os
from pathlib import Path

import pytest
import yaml

from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import Translation
from opengpu_operator.desired.job import build
from tests.support.jobs import context, settings

pytestmark = pytest.mark.controlplane

DATA = Path(__file__).parents[1] / "data" / "desired" / "in"
CASES = sorted(path.stem for path in DATA.glob("*.yaml"))
PATHS = {
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
}
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["baseline", "restricted"])
def profile(request):
    """A Pod Security Standard."""
    return request.param


@pytest.fixture(scope="module")
def enforced(api, profile):
    """A namespace in which the standard is enforced."""
    name = f"desired-{os.getpid()}-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": profile}
    status, answer = api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    assert status == 201, answer
    account = {"metadata": {"name": "default"}}
    status, answer = api.request("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
    assert status in {201, 409}, answer
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}")


def made(case, *, namespace, profile):
    """Return the objects of a case, without classes that this cluster doesn't have."""
    given = yaml.safe_load((DATA / f"{case}.yaml").read_text())
    fields = {**given["context"], "namespace": namespace}
    fields["environment"] = Environment(fields.get("environment", "nvidia"))
    configured = {**given.get("settings", {}), "pods": {"profile": profile}, "network": {}}
    return build(
        Translation.model_validate(given["translation"]), context(**fields), settings(**configured)
    ).everything


@pytest.mark.parametrize("case", CASES)
def test_every_object(api, enforced, profile, case):
    for obj in made(case, namespace=enforced, profile=profile):
        path = PATHS[obj["kind"]].format(enforced)
        status, answer = api.request("POST", path, obj, fieldValidation="Strict", dryRun="All")
        assert status == 201, answer
        check_kept(obj, answer, path=obj["kind"])


@pytest.mark.parametrize("case", CASES)
def test_every_pod(api, enforced, profile, case):
    workloads = [
        obj for obj in made(case, namespace=enforced, profile=profile) if "template" in obj.get("spec", {})
    ]
    assert workloads
    for obj in workloads:
        template = obj["spec"]["template"]
        pod = {
            "metadata": {"name": obj["metadata"]["name"], **template["metadata"]},
            "spec": template["spec"],
        }
        path = f"/api/v1/namespaces/{enforced}/pods"
        status, answer = api.request("POST", path, pod, fieldValidation="Strict", dryRun="All")
        assert status == 201, answer


def test_the_namespace_does_refuse(api, enforced, profile):
    """Without this the tests above would pass where nothing is enforced."""
    workload = next(
        obj for obj in made("call", namespace=enforced, profile="baseline") if obj["kind"] == "Deployment"
    )
    spec = copy.deepcopy(workload["spec"]["template"]["spec"])
    if profile == "baseline":
        spec["hostNetwork"] = True
    pod = {"metadata": {"name": "refused"}, "spec": spec}
    status, answer = api.request("POST", f"/api/v1/namespaces/{enforced}/pods", pod, dryRun="All")
    assert status == 403, answer
    assert f'violates PodSecurity "{profile}' in answer["message"]


def check_kept(sent, answered, *, path):
    """Check that the server only added defaults, and changed nothing that we said."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            if key == "stringData":
                assert set(value) <= set(answered["data"])
                continue
            assert key in answered, f"{path}.{key} is gone"
            check_kept(value, answered[key], path=f"{path}.{key}")
    elif isinstance(sent, list):
        assert len(sent) == len(answered), path
        for index, (one, other) in enumerate(zip(sent, answered, strict=True)):
            check_kept(one, other, path=f"{path}[{index}]")
    else:
        assert sent == answered, path

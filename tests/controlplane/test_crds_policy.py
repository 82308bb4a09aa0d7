"""The admission policy for data of any shape, which the rules inside the CRD can't judge in full."""

import os
from pathlib import Path

import pytest
import yaml

from tests.support.stack import eventually

pytestmark = pytest.mark.controlplane

POLICY = Path(__file__).parents[2] / "policies" / "opengputask-data.yaml"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
LIMIT = 64 * 1024


def task(data):
    return {
        "apiVersion": "opengpu.network/v1alpha1",
        "kind": "OpenGPUTask",
        "metadata": {"name": "a"},
        "spec": {"sourceRef": {"name": "source"}, "functionName": "run", "data": data},
    }


@pytest.fixture
def tasks(api, namespace):
    """The path of the tasks of a namespace in which the policy is enforced, and in no other."""
    policy, binding = yaml.safe_load_all(POLICY.read_text())
    name = f"{policy['metadata']['name']}-{os.getpid()}"
    policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = name
    binding["spec"]["matchResources"] = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    }
    paths = []
    for plural, document in (
        ("validatingadmissionpolicies", policy),
        ("validatingadmissionpolicybindings", binding),
    ):
        status, body = api.request("POST", f"{ADMISSION}/{plural}", document, fieldValidation="Strict")
        assert status == 201, body
        paths.append(f"{ADMISSION}/{plural}/{name}")
    path = f"/apis/opengpu.network/v1alpha1/namespaces/{namespace}/opengputasks"
    large = task({"a": "x" * 200_000})
    eventually(
        lambda: api.request("POST", path, large, dryRun="All")[0] != 201,
        within=30,
        otherwise="the policy is not enforced",
    )
    yield path
    for policy_path in paths:
        api.request("DELETE", policy_path)


@pytest.mark.parametrize(
    "data",
    [
        {"text": "b"},  # the key that is replaced, which the CRD's own rule doesn't see
        {"prompt": "a", "text": "b"},
        {"prompt": "b"},
        {"prompt": ["a"]},
        {},
    ],
)
def test_data_is_immutable(api, tasks, data):
    status, stored = api.request("POST", tasks, task({"prompt": "a"}))
    assert status == 201, stored
    stored["spec"]["data"] = data
    status, body = api.request("PUT", f"{tasks}/a", stored)
    assert status == 422
    assert "data can't be changed" in body["message"]


def test_everything_else_may_change(api, tasks):
    data = {"a": [1, 2.5, None, {"b": True}], "": ""}
    status, stored = api.request("POST", tasks, task(data))
    assert status == 201, stored
    stored["spec"]["suspend"] = True
    status, body = api.request("PUT", f"{tasks}/a", stored)
    assert status == 200, body
    assert body["spec"]["data"] == data


@pytest.mark.parametrize(
    "data",
    [
        {"a": "x" * (LIMIT - 8)},
        {"a": "ü" * (LIMIT // 2 - 4)},
        {"a": [1] * (LIMIT // 2 - 4)},  # rendered with blanks, so half as long again as compact JSON
        {f"{n:03}": {"b": "x" * 40} for n in range(1000)},
    ],
    ids=["text", "two bytes each", "many numbers", "many keys"],
)
def test_data_up_to_the_limit(api, tasks, data):
    status, body = api.request("POST", tasks, task(data), dryRun="All")
    assert status == 201, body


@pytest.mark.parametrize(
    "data",
    [{"a": "x" * 132_000}, {"a": "x" * 1_000_000}, {"a": {"b": [{"c": "x" * 70_000}] * 2}}],
    ids=["text", "a large text", "deep"],
)
def test_data_beyond_it(api, tasks, data):
    status, body = api.request("POST", tasks, task(data), dryRun="All")
    assert status == 422
    assert "spec.data is for at most 64 KiB" in body["message"]

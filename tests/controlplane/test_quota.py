"""Pods that the API server refuses leave nothing but a condition of their Deployment; the task must say so."""

from __future__ import annotations

import pytest

from tests.controlplane.test_operator import OGT, Cluster
from tests.support.stack import Stack, eventually, running

pytestmark = pytest.mark.controlplane


@pytest.fixture
def cluster(api, kubeconfig, namespace, tmp_path):
    with running(Stack(tmp_path, kubeconfig, namespaces={"watch": [namespace]})) as stack:
        yield Cluster(api, stack, namespace)


def _no_pods(cluster: Cluster) -> str:
    """Forbid all pods by a quota that is in force; return its path."""
    quotas = f"/api/v1/namespaces/{cluster.namespace}/resourcequotas"
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    assert cluster.api.request("POST", quotas, quota)[0] == 201
    path = f"{quotas}/none"
    eventually(lambda: cluster.api.request("GET", path)[1].get("status", {}).get("used"), within=20)
    return path


def test_a_quota_is_named_and_once_it_is_raised_the_task_goes_on(cluster):
    path = _no_pods(cluster)
    cluster.source()
    task = cluster.call()
    cluster.until(OGT, "ask", "Ready", status="False", reason="QuotaExceeded")
    ready = cluster.condition(OGT, "ask", "Ready")
    assert ready["message"].startswith("worker: ")
    assert "exceeded quota: none" in ready["message"]
    assert cluster.condition(OGT, "ask", "Scheduled")["reason"] == "QuotaExceeded"
    cluster.api.request("DELETE", path)
    cluster.run_pod(cluster.pod(task["metadata"]["uid"]))
    cluster.until(OGT, "ask", "Available", status="True")


def test_pod_security_is_named(cluster):
    # As the namespace's owner would have it, who knows that the operator keeps "baseline" only.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    path = f"/api/v1/namespaces/{cluster.namespace}"
    patch = {"metadata": {"labels": labels}}
    assert cluster.api.request("PATCH", path, patch, content="application/merge-patch+json")[0] == 200
    cluster.source()
    cluster.call()
    cluster.until(OGT, "ask", "Ready", status="False", reason="Forbidden")
    assert "violates PodSecurity" in cluster.condition(OGT, "ask", "Ready")["message"]

"""A node dies with a worker on it, as by a power cut, while the worker is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.fixtures import CLUSTER, OPERATOR_NAMESPACE, program
from tests.e2e.kit import TASKS, Cluster, Object, condition, is_true, until
from tests.e2e.objects import compose, run, source, worker
from tests.e2e.test_reboot import store_pod

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.slow]

#: What an admin says of a node that won't come back on its own: its pods are given up.
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
#: The first worker that is called never answers; the next one says how many were called.
SCRIPT = """
echo called >> /gpux_job/calls; sync
test $(wc -l < /gpux_job/calls) = 1 && exec sleep 600
cat /gpux_job/calls
"""


def nodes(cluster: Cluster) -> dict[str, Object]:
    status, found = cluster.api.request("GET", "api/v1/nodes")
    assert status == 200, found
    return {node["metadata"]["name"]: node for node in found["items"]}


def settled(cluster: Cluster) -> bool:
    """Return whether every node and every pod of the cluster itself is up."""
    pods = [
        pod for name in ("kube-system", OPERATOR_NAMESPACE) for pod in cluster.objects("api/v1/pods", name)
    ]
    return all(is_true(item, "Ready") for item in (*nodes(cluster).values(), *pods))


@contextmanager
def lost(cluster: Cluster, node: str) -> Iterator[None]:
    """Have a node dead, and given up, for as long as the block lasts."""
    program("localcluster", "node", "stop", node, "--name", CLUSTER)
    try:
        cluster.kubectl("taint", "node", node, OUT_OF_SERVICE)
        yield
    finally:
        program("localcluster", "node", "start", node, "--name", CLUSTER)
        cluster.kubectl("taint", "node", node, f"{OUT_OF_SERVICE}-")


@pytest.fixture
def doomed(operator: Cluster) -> Iterator[str]:
    """The node that will die: one that the store isn't on. New pods go to it alone until the test says otherwise."""
    safe = store_pod(operator)["spec"]["nodeName"]
    operator.kubectl("cordon", safe)
    yield next(name for name in nodes(operator) if name != safe)
    operator.kubectl("uncordon", safe)
    until("the cluster to be whole again", lambda: settled(operator), timeout=120)


def test_a_call_whose_node_is_lost_is_made_again(operator: Cluster, namespace: str, doomed: str) -> None:
    operator.apply(
        namespace,
        *source("probe", cpu=compose(worker=worker())),
        run("survives", "probe", SCRIPT, maxAttempts=3),
    )
    task = operator.wait(
        TASKS,
        namespace,
        "survives",
        what="call",
        met=lambda task: bool((task.get("status", {}).get("times") or {}).get("called")),
    )
    (pod,) = operator.pods(namespace, task, "worker")
    assert pod["spec"]["nodeName"] == doomed
    until("the worker's mark", lambda: _marked(operator, namespace, pod["metadata"]["name"]))
    operator.kubectl("uncordon", *(name for name in nodes(operator) if name != doomed))
    with lost(operator, doomed):
        second = operator.wait(
            TASKS,
            namespace,
            "survives",
            what="second attempt",
            met=lambda task: task["status"]["attempts"] == 2,
            timeout=90,
        )
        assert condition(second, "Failed") == {}
    # Its volume is where it was, and so the next pod is there too.
    answer = operator.answer(namespace, "survives", timeout=90)
    assert answer["stdout"] == "called\ncalled\n"
    assert operator.task(namespace, "survives")["status"]["attempts"] == 2
    assert {"PodLost"} <= {event["reason"] for event in operator.events(namespace, "survives")}


def _marked(operator: Cluster, namespace: str, pod: str) -> bool:
    look = ("-n", namespace, "exec", pod, "-c", "worker", "--", "test", "-e", "/gpux_job/calls")
    return operator.try_kubectl(*look).returncode == 0

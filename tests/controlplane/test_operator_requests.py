"""How many requests a task costs, counted by the operator itself; times are for the benchmarks."""

from __future__ import annotations

import pytest

from tests.controlplane.test_operator import COMPOSE, OGS, Cluster
from tests.support.stack import WRITES, Stack, eventually, running

pytestmark = pytest.mark.controlplane

TASKS = 5


@pytest.fixture
def stack(kubeconfig, namespace, tmp_path):
    """An operator that sees this test's namespace alone."""
    with running(Stack(tmp_path, kubeconfig, namespaces={"watch": [namespace]})) as started:
        yield started


def _sent(stack: Stack) -> dict[tuple[str, str], float]:
    """Return the requests that tasks cost: a source counts its tasks now and then, however many there are."""
    return {key: count for key, count in stack.requests().items() if key[1] != "OpenGPUSource"}


def test_a_task_costs_a_write_per_child_and_one_for_its_status(api, stack, namespace):
    cluster = Cluster(api, stack, namespace)
    cluster.source(files={"cpu": COMPOSE})
    cluster.until(OGS, "ocr", "Ready", status="True")
    stack.settle()
    before = _sent(stack)
    uids = [cluster.call(f"ask-{number}", ports=[8080])["metadata"]["uid"] for number in range(TASKS)]
    children = [kind for uid in uids for kind, found in _children(cluster, uid).items() for _ in found]
    stack.settle()
    after = _sent(stack)
    sent = {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}
    written = {kind: count for (verb, kind), count in sent.items() if verb == "create"}
    assert sum(written.values()) == len(children), (written, children)
    assert {key: count for key, count in sent.items() if key[0] != "create"} == {
        ("patch", "OpenGPUTask"): TASKS
    }

    # Nothing of it is kept in memory only: the next operator has nothing to do.
    eventually(
        lambda: (cluster.get(OGS, "ocr") or {}).get("status", {}).get("activeTasks") == TASKS,
        within=20,
        otherwise=stack.logs,
    )
    stack.operator.stop()
    stack.operator.start()
    eventually(stack.ready, within=60, otherwise=stack.logs)
    stack.settle()
    assert {key: count for key, count in stack.requests().items() if key[0] in WRITES} == {}


def _children(cluster: Cluster, uid: str) -> dict[str, list[dict[str, object]]]:
    """Return a task's children, but the pods, which the controllers of Kubernetes make, once they are there."""
    cluster.pod(uid)
    return {plural: found for plural, found in cluster.children(uid).items() if plural != "pods"}

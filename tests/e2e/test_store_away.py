"""The store is away while two workers answer, and the time of one of their tasks runs out meanwhile.

Judged by others than the operator: each worker leaves a line behind for each call that it got, on a volume that
outlives the tasks.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from tests.e2e.fixtures import OPERATOR_NAMESPACE
from tests.e2e.kit import TASKS, Cluster, Object, condition, describe, until
from tests.e2e.objects import compose, run, source, worker

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

STORE = "deployment/opengpu-store"
#: What each worker does: leave a line for the call, wait for a sign, answer.
ANSWER = "echo {name} >> /gpux_usr/calls; until test -e /gpux_job/go; do sleep 0.1; done; echo {name}"
NAMES = ("patient", "late")


@contextmanager
def away(operator: Cluster) -> Iterator[None]:
    """Have no store for as long as the block lasts."""
    scale = ("-n", OPERATOR_NAMESPACE, "scale", STORE)
    selector = "app.kubernetes.io/component=store"
    operator.kubectl(*scale, "--replicas=0")
    try:
        until(
            "the store to be gone",
            lambda: not operator.objects("api/v1/pods", OPERATOR_NAMESPACE, selector),
            timeout=60,
        )
        yield
    finally:
        operator.kubectl(*scale, "--replicas=1")
        operator.kubectl("-n", OPERATOR_NAMESPACE, "rollout", "status", STORE, "--timeout=300s")


def called(task: Object) -> bool:
    return bool((task.get("status", {}).get("times") or {}).get("called"))


def spooled(operator: Cluster, namespace: str, pod: str) -> bool:
    """Return whether a pod's agent has the answer on its disk, which is when the worker hears 200."""
    return "the worker answered" in operator.kubectl("-n", namespace, "logs", pod, "-c", "gpux-agent")


def test_answers_given_while_the_store_is_away_arrive_once(operator: Cluster, namespace: str) -> None:
    operator.apply(
        namespace,
        *source("probe", cpu=compose(worker=worker())),
        *(run(name, "probe", ANSWER.format(name=name), owner="watcher") for name in NAMES),
    )
    pods = {}
    for name in NAMES:
        task = operator.wait(TASKS, namespace, name, what="call", met=called)
        (pods[name],) = (pod["metadata"]["name"] for pod in operator.pods(namespace, task, "worker"))

    with away(operator):
        for pod in pods.values():
            operator.kubectl("-n", namespace, "exec", pod, "-c", "worker", "--", "touch", "/gpux_job/go")
            until(f"the answer in {pod}", functools.partial(spooled, operator, namespace, pod))
        # Time runs out for one of them, whose answer was in time.
        task = operator.task(namespace, "late")
        created = datetime.fromisoformat(task["metadata"]["creationTimestamp"])
        seconds = int((datetime.now(UTC) - created).total_seconds()) + 2
        patch = json.dumps({"spec": {"expirySeconds": seconds}})
        operator.kubectl("-n", namespace, "patch", "ogt", "late", "--type=merge", "-p", patch)
        waiting = operator.wait_reason(TASKS, namespace, "late", "StoreUnavailable", timeout=30)
        assert waiting["type"] == "Ready", waiting
        assert condition(operator.task(namespace, "patient"), "Failed") == {}

    for name in NAMES:
        status = operator.wait_task(namespace, name, timeout=60)["status"]
        assert status["endReason"] == "Answered"
        (response,) = status["responses"]
        assert response["inline"]["stdout"] == f"{name}\n", response
        assert status["attempts"] == 1
    late = operator.task(namespace, "late")
    received = datetime.fromisoformat(late["status"]["responses"][0]["receivedAt"])
    assert received <= datetime.fromisoformat(late["status"]["expiresAt"]), describe(late)

    operator.apply(namespace, run("counts", "probe", "sort /gpux_usr/calls", owner="watcher"))
    assert operator.answer(namespace, "counts")["stdout"].split() == sorted(NAMES)

"""The operator's process dies again and again while 20 tasks run; nobody may notice.

It is killed as the kernel would do it (SIGKILL to the process, from outside its pod), at moments drawn from a seed.
Judged by others than the operator: the API server's audit log counts creations, and each worker leaves a file behind
for each call that it got, on a volume that outlives the tasks.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.fixtures import OPERATOR_NAMESPACE, OPERATOR_USER
from tests.e2e.kit import Audit, Cluster, Object, condition, describe, is_true, until
from tests.e2e.objects import compose, page, run, source, task, worker

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

TASKS = 20
HELD = 5  # of them work until the last kill, the others end in between
KILLS = 10
SECONDS = 60  # between the first and the last kill
RELEASE = "/gpux_usr/release"
SEED = int(os.environ.get("FAULT_SEED", "20260101"))
# The operator's own command line, and no other process that only mentions it.
COMMAND = re.compile(rb"[^\0]*python[^\0]*\0[^\0]*/opengpu-operator\0run\0")


def process_of(pod: Object, command: re.Pattern[bytes] = COMMAND) -> int | None:
    """Return the process with a command line in a pod, as this machine numbers it: its cgroup names the pod."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (
                command.match((entry / "cmdline").read_bytes())
                and pod["metadata"]["uid"] in (entry / "cgroup").read_text()
            ):
                return int(entry.name)
        except OSError:  # it ended while we looked
            continue
    return None


def kill_operator(operator: Cluster) -> None:
    """Kill the operator's process, and let a new pod come at once.

    The kubelet would restart the container too, but after the second time only with a delay that grows to minutes;
    the pod whose process is dead is removed so that ten kills fit into a test.
    """

    def running() -> tuple[Object, int] | None:
        pods = operator.objects("api/v1/pods", OPERATOR_NAMESPACE, "app.kubernetes.io/component=operator")
        found = ((pod, process_of(pod)) for pod in pods if "deletionTimestamp" not in pod["metadata"])
        return next(((pod, pid) for pod, pid in found if pid is not None), None)

    pod, pid = until("the operator's process", running, timeout=90)
    os.kill(pid, signal.SIGKILL)
    until("the process to be gone", lambda: not Path(f"/proc/{pid}").exists() or None)
    name = pod["metadata"]["name"]
    operator.kubectl("-n", OPERATOR_NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force")


def release(operator: Cluster, namespace: str, name: str) -> None:
    """Let the tasks end that wait for it, from the worker of one of them."""

    def released() -> bool:
        (pod,) = operator.pods(namespace, operator.task(namespace, name), "worker")
        command = ("-n", namespace, "exec", pod["metadata"]["name"], "-c", "worker", "--", "touch", RELEASE)
        return operator.try_kubectl(*command).returncode == 0

    until("the release of the tasks", released, timeout=90)


def test_twenty_tasks_survive_a_dying_operator(
    operator: Cluster, namespace: str, measured: Callable[[str], None]
) -> None:
    draw = random.Random(SEED)
    moments = sorted(draw.uniform(0, SECONDS) for _ in range(KILLS))
    print(f"seed {SEED}, kills at {', '.join(f'{moment:.1f}' for moment in moments)} s")
    names = [f"task-{number:02}" for number in range(TASKS)]
    work: dict[str, Object] = {name: {"seconds": draw.uniform(0, SECONDS)} for name in names}
    work |= {name: {"until": RELEASE} for name in names[:HELD]}
    # With a sidecar and an owner, so that a task has children of every kind.
    side = page()
    operator.apply(namespace, *source("work", cpu=compose(worker=worker(), side=side)))
    operator.kubectl("-n", namespace, "wait", "--for=condition=Ready", "ogs/work", "--timeout=300s")
    audit = Audit.now(operator.audit_log)
    start = time.monotonic()
    operator.apply(
        namespace,
        *(
            task(
                name,
                "work",
                "work",
                {"key": name, "value": name, **work[name]},
                owner="watcher",
                resources={"cpu": "20m"},
                services={"side": {"resources": {"cpu": "10m"}}},
            )
            for name in names
        ),
    )
    unfinished = []
    for moment in moments:
        time.sleep(max(0.0, start + moment - time.monotonic()))
        unfinished.append(sum(not is_true(operator.task(namespace, name), "Complete") for name in names))
        kill_operator(operator)
    assert all(unfinished), unfinished
    measured(
        f"the operator was killed {KILLS} times in {time.monotonic() - start:.0f} s, "
        f"beside {', '.join(map(str, unfinished))} unfinished tasks"
    )
    release(operator, namespace, names[0])

    for name in names:
        found = operator.wait_task(namespace, name, timeout=240)
        status = found["status"]
        (response,) = status["responses"]
        assert response["inline"]["value"] == name, describe(found)
        assert response["inline"]["calls"] == 1, describe(found)
        assert status["attempts"] == 1, describe(found)
        assert is_true(found, "Complete"), condition(found, "Complete")
    measured(f"all tasks were answered after {time.monotonic() - start:.0f} s")

    created = audit.creations(user=OPERATOR_USER, namespaces=[namespace])
    children = {key: count for key, count in created.items() if key[0] != "events"}
    kinds = {resource for resource, _, _ in children}
    assert {"deployments", "services", "persistentvolumeclaims", "secrets", "networkpolicies"} <= kinds, kinds
    twice = {key: count for key, count in children.items() if count > 1}
    assert not twice, f"created more than once: {twice}"
    per_task = [key for key in children if key[0] == "deployments"]
    assert len(per_task) == 2 * TASKS, "a worker and a sidecar per task, no more"

    count = 'cd /gpux_usr/calls && for task in *; do echo "$task $(ls "$task" | wc -l)"; done'
    operator.apply(namespace, run("counts", "work", count, owner="watcher"))
    answer = operator.answer(namespace, "counts")
    assert answer["exit_code"] == 0, answer
    calls = dict(line.split() for line in answer["stdout"].splitlines())
    assert calls == dict.fromkeys(names, "1"), json.dumps(calls)

"""The store's node goes down and comes back, and store and operator are killed, while jobs upload and are called.

Judged by others than the operator: each job notes on its own volume what the store has acknowledged and how often its
worker was called, and in the end a job that did neither fetches every file and compares its bytes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable

import pytest

from tests.e2e.fixtures import CLUSTER, OPERATOR_NAMESPACE, program
from tests.e2e.kit import TASKS, Cluster, Object, describe, is_true, until
from tests.e2e.objects import compose, run, source, worker
from tests.e2e.test_operator_kill import kill_operator, process_of

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

UPLOADERS, UPLOADS = 10, 20
AT_ONCE = 10
STORE = re.compile(rb"[^\0]*python[^\0]*\0-m\0gpux\.store\0")
#: A line per call of the worker, on a volume that outlives the pod.
NOTE = "echo called >> /gpux_job/calls; sync;"
#: What each file is follows from its job and number, so that anybody can make it again.
FILES = """
import hashlib, http.client, json, os, random, socket, sys, time

def content(job, number):
    draw = random.Random(f"{job}-{number}")
    return draw.randbytes(int((1 << 20) ** draw.random()))

def ask(method, path, body=None):
    connection = http.client.HTTPConnection("dontcare")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect("/gpux_api")
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()

def persistently(method, path, body=None):
    while True:
        status, answer = ask(method, path, body)
        if status == 200:
            return answer
        if status not in (0, 503):
            sys.exit(f"{method} {path}: {status} {answer}")
        time.sleep(0.2)
"""
UPLOADING = """
with open("/gpux_job/acknowledged", "a+") as notes:
    for number in range(%(uploads)d):
        told = json.loads(persistently("POST", "/api/file/upload/", content(%(job)r, number)))
        print(number, told["sha1"], file=notes, flush=True)
        os.fsync(notes.fileno())
        time.sleep(1)
    notes.seek(0)
    sys.stdout.write(notes.read())
"""
#: All that is wrong with the files of (job, number, SHA-1).
FETCHING = """
for job, number, sha1 in json.load(sys.stdin):
    found, expected = persistently("GET", f"/api/file/download/{sha1}"), content(job, number)
    if hashlib.sha1(expected).hexdigest() != sha1 or found != expected:
        print(job, number, sha1, len(found), len(expected))
"""


def python(text: str) -> str:
    return f"python3 -c '{(FILES + text).replace(chr(39), chr(34))}'"


def store_pod(operator: Cluster) -> Object:
    """Return the store's pod, and not one that it replaces."""

    def there() -> Object | None:
        pods = operator.objects("api/v1/pods", OPERATOR_NAMESPACE, "app.kubernetes.io/component=store")
        return next((pod for pod in pods if "deletionTimestamp" not in pod["metadata"]), None)

    return until("the store's pod", there)


def kill_store(operator: Cluster) -> None:
    pid = until("the store's process", lambda: process_of(store_pod(operator), STORE), timeout=90)
    os.kill(pid, signal.SIGKILL)


def called(task: Object) -> bool:
    return bool((task.get("status", {}).get("times") or {}).get("called"))


@pytest.mark.parametrize("calls", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_what_was_acknowledged_outlives_reboots_and_kills(
    operator: Cluster, namespace: str, measured: Callable[[str], None], calls: int
) -> None:
    operator.apply(namespace, *source("probe", cpu=compose(worker=worker())))
    light = {"resources": {"cpu": "20m"}, "maxAttempts": 10, "expirySeconds": 1800}
    uploaders = [f"uploads-{calls}-{number}" for number in range(UPLOADERS)]
    waiting = [f"call-{calls}-{number:02}" for number in range(calls)]
    names = uploaders + waiting
    start = time.monotonic()
    operator.apply(
        namespace,
        *(
            run(name, "probe", NOTE + python(UPLOADING % {"job": name, "uploads": UPLOADS}), **light)
            for name in uploaders
        ),
    )

    def proceed() -> int:
        """Apply calls as others end, so that never more than a few run; return how many are left to apply."""
        found = [
            operator.get(TASKS, namespace, name) for name in names[UPLOADERS : len(names) - len(waiting)]
        ]
        room = AT_ONCE - sum(task is not None and not is_true(task, "Complete") for task in found)
        now = [waiting.pop(0) for _ in range(min(room, len(waiting)))]
        if now:
            script = NOTE + "sleep 3; cat /gpux_job/calls"
            operator.apply(namespace, *(run(name, "probe", script, **light) for name in now))
        return len(waiting)

    proceed()

    def at_work() -> list[Object]:
        """Return the uploading tasks that were called and aren't done."""
        found = [operator.task(namespace, name) for name in uploaders]
        return [task for task in found if called(task) and not is_true(task, "Complete")]

    busy = until(
        "uploads to be under way",
        lambda: tasks if len(tasks := at_work()) > UPLOADERS // 2 else None,
        timeout=120,
    )
    nodes = {pod["spec"].get("nodeName") for task in busy for pod in operator.pods(namespace, task)}
    before = store_pod(operator)
    kill_operator(operator)
    program("localcluster", "node", "reboot", before["spec"]["nodeName"], "--name", CLUSTER)
    measured(
        f"{before['spec']['nodeName']} was back {time.monotonic() - start:.0f} s after the first upload's task"
    )
    until("the store to be back", lambda: is_true(store_pod(operator), "Ready"), timeout=90)
    proceed()
    kill_store(operator)
    kill_operator(operator)
    until("all calls to be applied", lambda: proceed() == 0, timeout=600, interval=1)

    files, attempts = [], 0
    for name in names:
        found = operator.wait_task(namespace, name, timeout=300)
        status = found["status"]
        assert (status["taskStatus"], status["endReason"]) == ("Finalized", "Answered"), describe(found)
        (response,) = status["responses"]
        answer = response["inline"]
        assert answer["exit_code"] == 0, describe(found)
        attempts += status["attempts"]
        lines = answer["stdout"].splitlines()
        if name in uploaders:
            files += [(name, *line.split()) for line in lines]
        else:
            assert 1 <= len(lines) <= status["attempts"], "called more than once in an attempt"
    assert {(job, int(number)) for job, number, _ in files} == {
        (job, number) for job in uploaders for number in range(UPLOADS)
    }
    assert store_pod(operator)["spec"]["nodeName"] == before["spec"]["nodeName"]
    measured(
        f"a reboot and kills amid {len(busy)} jobs with {UPLOADS} uploads each on {len(nodes)} nodes: "
        f"{len(files)} acknowledgements, {calls} calls and {attempts} attempts in {time.monotonic() - start:.0f} s"
    )

    wanted = json.dumps([(job, int(number), sha1) for job, number, sha1 in sorted(set(files))])
    operator.apply(
        namespace, run(f"fetches-{calls}", "probe", f"echo '{wanted}' | " + python(FETCHING), **light)
    )
    answer = operator.answer(namespace, f"fetches-{calls}")
    assert (answer["exit_code"], answer["stdout"]) == (0, ""), answer

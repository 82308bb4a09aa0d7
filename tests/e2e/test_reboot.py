"""The store's node goes down and comes back, and store and operator are killed, while jobs upload and are called.

Judged by others than the operator: each job notes on its own volume what the store has acknowledged and how often its
worker was called, and in the end a job that did neither fetches every file and compares its bytes. Jobs are at work
until all is over, however long that takes here: they wait for a file on their volumes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from localcluster.paths import Layout
from tests.e2e.fixtures import CLUSTER, OPERATOR_NAMESPACE, program
from tests.e2e.kit import TASKS, Cluster, Object, describe, is_true, until
from tests.e2e.objects import compose, on, run, source, worker
from tests.e2e.test_operator_kill import kill_operator, process_of

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

#: Each job uploads as many files, and goes on until the last kill.
UPLOADERS, UPLOADS = 10, 20
#: Calls that are made at once; the first of them are answered after the last kill.
AT_ONCE, HELD = 10, 4
STORE = re.compile(rb"[^\0]*python[^\0]*\0-m\0gpux\.store\0")
#: A line per call of the worker, on a volume that outlives the pod.
NOTE = "echo called >> /gpux_job/calls; sync;"
HOLD = "until test -e /gpux_job/go; do sleep 0.2; done;"
#: What each file is follows from its job and number, so that anybody can make it again.
FILES = """
import hashlib, http.client, itertools, json, os, random, socket, sys, time

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
    for number in itertools.count():
        if number >= %(uploads)d and os.path.exists("/gpux_job/go"):
            break
        told = json.loads(persistently("POST", "/api/file/upload/", content(%(job)r, number)))
        print(number, told["sha1"], file=notes, flush=True)
        os.fsync(notes.fileno())
        # Ever slower: what it says in the end has room in an answer, however long the cluster takes.
        time.sleep(number / 10)
    notes.seek(0)
    sys.stdout.writelines(sorted(set(notes)))
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


def volumes(namespace: str) -> list[Path]:
    """Return the directories of the volumes of a namespace's jobs; those of a job that has ended are gone."""
    return sorted((Layout(CLUSTER).root / "nodes").glob(f"*/volumes/*_{namespace}_*"))


def notes(namespace: str, name: str) -> list[Path]:
    """Return the files of a name on those volumes."""
    return [path for volume in volumes(namespace) if (path := volume / name).exists()]


def acknowledged(namespace: str) -> list[int]:
    """Return how many uploads each job that is at work has noted."""
    return [len(path.read_text().splitlines()) for path in notes(namespace, "acknowledged")]


def at_work(operator: Cluster, namespace: str, names: Iterable[str]) -> dict[str, Object]:
    """Return the tasks of these names that were called and have no answer yet."""
    found = {name: operator.get(TASKS, namespace, name) or {} for name in names}
    return {
        name: task
        for name, task in found.items()
        if (task.get("status", {}).get("times") or {}).get("called") and not is_true(task, "Complete")
    }


def places(operator: Cluster, namespace: str, tasks: dict[str, Object]) -> dict[str, str]:
    """Return the node of each task's pod."""
    return {
        name: pod["spec"]["nodeName"]
        for name, task in tasks.items()
        for pod in operator.pods(namespace, task)
    }


@pytest.mark.parametrize("calls", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_what_was_acknowledged_outlives_reboots_and_kills(
    operator: Cluster, namespace: str, measured: Callable[[str], None], calls: int
) -> None:
    nodes = operator.node_names()
    for node in nodes:
        operator.apply(namespace, *source(node, cpu=compose(worker=worker(**on(node)))))
    light = {"resources": {"cpu": "20m"}, "maxAttempts": 10, "expirySeconds": 1800}
    uploaders = [f"uploads-{calls}-{number}" for number in range(UPLOADERS)]
    called = [f"call-{calls}-{number:02}" for number in range(calls)]
    held, waiting = called[:HELD], list(called)
    start = time.monotonic()

    def apply(names: list[str], script: Callable[[str], str]) -> None:
        """Apply tasks, each on another node than the one before."""
        operator.apply(
            namespace,
            *(run(name, nodes[int(name[-1]) % len(nodes)], NOTE + script(name), **light) for name in names),
        )

    def proceed() -> int:
        """Apply calls as others end, so that never more than a few run; return how many are left to apply."""
        found = [operator.get(TASKS, namespace, name) for name in called[: calls - len(waiting)]]
        room = AT_ONCE - sum(task is not None and not is_true(task, "Complete") for task in found)
        now = [waiting.pop(0) for _ in range(min(room, len(waiting)))]
        if now:
            apply(now, lambda name: f"{HOLD if name in held else 'sleep 3;'} cat /gpux_job/calls")
        return len(waiting)

    apply(uploaders, lambda name: python(UPLOADING % {"job": name, "uploads": UPLOADS}))
    proceed()

    def noted() -> int:
        return sum(acknowledged(namespace))

    def all_at_work() -> dict[str, Object] | None:
        busy = at_work(operator, namespace, [*uploaders, *held])
        uploading = [count for count in acknowledged(namespace) if count]
        return busy if len(busy) == UPLOADERS + HELD and len(uploading) == UPLOADERS else None

    where = places(operator, namespace, until("all to be at work", all_at_work, timeout=180))
    for names in (uploaders, held):
        assert {where[name] for name in names} == set(nodes), where
    down = store_pod(operator)["spec"]["nodeName"]
    kill_operator(operator)
    before = noted()
    assert at_work(operator, namespace, where).keys() == where.keys()
    program("localcluster", "node", "reboot", down, "--name", CLUSTER)
    measured(f"{down} was back {time.monotonic() - start:.0f} s after the first upload's task")
    until("the store to be back", lambda: is_true(store_pod(operator), "Ready"), timeout=90)
    proceed()
    back = noted()
    until("uploads to go on", lambda: noted() >= back + UPLOADERS, timeout=90)
    kill_store(operator)
    kill_operator(operator)
    killed = noted()
    assert not [name for name in where if is_true(operator.task(namespace, name), "Complete")]
    until("uploads to go on", lambda: noted() >= killed + UPLOADERS, timeout=90)
    # Also for those who were cut off before they had noted anything, and begin again.
    for volume in volumes(namespace):
        (volume / "go").touch()
    until("all calls to be applied", lambda: proceed() == 0, timeout=600, interval=1)

    files, attempts = [], {}
    for name in [*uploaders, *called]:
        found = operator.wait_task(namespace, name, timeout=300)
        status = found["status"]
        assert (status["taskStatus"], status["endReason"]) == ("Finalized", "Answered"), describe(found)
        (response,) = status["responses"]
        answer = response["inline"]
        assert answer["exit_code"] == 0, describe(found)
        attempts[name] = status["attempts"]
        lines = answer["stdout"].splitlines()
        if name in called:
            assert 1 <= len(lines) <= attempts[name], "called more than once in an attempt"
        else:
            files += [(name, int(number), sha1) for number, sha1 in map(str.split, lines)]
    cut = [name for name, node in where.items() if node == down]
    assert min(attempts[name] for name in cut) > 1, f"the reboot interrupted nothing: {attempts}"
    for uploader in uploaders:
        numbers = {number for job, number, _ in files if job == uploader}
        assert numbers == set(range(max(UPLOADS, len(numbers)))), uploader
    assert store_pod(operator)["spec"]["nodeName"] == down
    measured(
        f"a reboot after {before} uploads of {UPLOADERS} jobs on {len(nodes)} nodes, none of which had ended, and "
        f"amid {HELD} calls; a kill of the store after {killed}: {len(files)} files, {calls} calls and "
        f"{sum(attempts.values())} attempts in {time.monotonic() - start:.0f} s"
    )

    wanted = json.dumps(sorted(files))
    operator.apply(
        namespace, run(f"fetches-{calls}", nodes[0], f"echo '{wanted}' | " + python(FETCHING), **light)
    )
    answer = operator.answer(namespace, f"fetches-{calls}")
    assert (answer["exit_code"], answer["stdout"]) == (0, ""), answer

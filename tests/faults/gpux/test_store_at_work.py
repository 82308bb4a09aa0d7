"""The store as a process at work: copied as the documentation says, killed at any moment, swept all the while."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import threading
from http.client import HTTPException
from urllib.request import urlopen

import pytest

from tests.faults.gpux.processes import OPERATOR, ROOT, SOURCE, TASK, rss_kib, token, wait_for

EAGER = ("--sweep-seconds=0.2", "--grace-seconds=0", "--scrub-days=1")


class Traffic:
    """Threads that store files of tasks of their own, and let go of every other task."""

    def __init__(self, lab):
        self.lab = lab
        self.kept = {}
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(2)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _run(self, number):
        rounds = 0
        while not self.over.is_set():
            rounds += 1
            task = f"task-{number}-{rounds}"
            contents = [random.randbytes(random.choice([0, 10, 5000])) for _ in range(3)] + [b"shared by all"]
            stored = [content for content in contents if self._post("/v1/files", content, task)]
            if rounds % 5 == 0 and self._post("/v1/folders", tar(contents), task):
                stored += contents
            if rounds % 2:
                self.kept |= {
                    hashlib.sha1(content).hexdigest(): (content, task) for content in stored if content
                }
            else:
                self._ask("DELETE", f"/v1/tasks/{task}", bearer=OPERATOR)

    def _post(self, path, body, task):
        return self._ask("POST", path, body=body, bearer=token(task=task)) in {200, 201}

    def _ask(self, *arguments, **options):
        """The status, or None if the store was killed meanwhile: then nothing was acknowledged."""
        try:
            return self.lab.ask(*arguments, **options)[0]
        except (OSError, HTTPException):
            self.over.wait(0.05)
            return None


def tar(contents):
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(str(number))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return output.getvalue()


def check(root):
    command = [sys.executable, "-m", "gpux.store", "check", "--root", str(root)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False
    )
    *problems, summary = map(json.loads, done.stdout.splitlines())
    assert done.returncode == bool(problems), done.stderr
    return summary, {problem["problem"] for problem in problems}


def assert_there(lab, kept):
    for name, (content, _) in kept.items():
        status, _, found = lab.ask("GET", f"/v1/files/{name}", bearer=token())
        assert (status, found) == (200, content), name


def test_a_copy_in_the_documented_order(lab, tmp_path):
    text = (ROOT / "docs" / "operations.md").read_text()
    (script,) = re.findall(r"```sh\n(for part in [^`]*?)python3 -m gpux.store check", text)
    backup = tmp_path / "backup"
    backup.mkdir()
    lab.start_store(*EAGER)
    answers = {1: {"small": 1}, 2: {"large": "x" * 20_000}}
    for attempt, answer in answers.items():
        answered_call(lab, attempt, answer)
    lab.call(3, "waits")
    with Traffic(lab) as traffic:
        wait_for(lambda: len(traffic.kept) > 40, "traffic")
        before = dict(traffic.kept)
        # What a sweep takes away under its hands makes cp complain.
        script = script.replace("/data/", f"{lab.data}/").replace("/backup/", f"{backup}/")
        subprocess.run(["sh", "-c", script], capture_output=True, check=False)
        wait_for(lambda: len(traffic.kept) > len(before) + 10, "more traffic")
    lab.store.stop()
    _, problems = check(backup)
    assert "has other bytes than its name says" not in problems
    lab.data = backup
    lab.start_store(*EAGER)
    wait_for_sweep(lab)
    assert_there(lab, before)
    assert lab.record(1)["answer"]["inline"] == answers[1]
    sha1 = lab.record(2)["answer"]["sha1"]
    assert json.loads(lab.ask("GET", f"/v1/files/{sha1}", bearer=token())[2]) == answers[2]
    status, _, content = lab.ask("GET", f"/v1/calls/{TASK}", bearer=token())
    waiting = json.loads(content)
    assert (status, waiting["attempt"], waiting["data"]["text"]) == (200, 3, "waits")
    lab.store.stop()
    # What was let go while the copy was made may lead nowhere.
    nowhere = {"refers to no entry", "its content is missing: it is no file until it is stored again"}
    assert not check(backup)[1] - nowhere


def answered_call(lab, attempt, answer):
    """A call from its beginning to its answer, as operator and agent have it."""
    lab.call(attempt, "text")
    path = f"/v1/calls/{TASK}/{attempt}"
    for method, step, body in (
        ("POST", "claim", {"pod": "pod-1"}),
        ("POST", "state", {"state": "accepted"}),
        ("PUT", "answer", answer),
    ):
        assert lab.ask(method, f"{path}/{step}", body=body, bearer=token())[0] in {200, 201}


def wait_for_sweep(lab):
    def swept():
        with urlopen(f"http://127.0.0.1:{lab.metrics_port}/metrics") as response:
            return b"gpux_store_sweeps_total 0.0" not in response.read()

    wait_for(swept, "a sweep")


def test_killed_at_any_moment(lab):
    with Traffic(lab) as traffic:
        for _ in range(3):
            lab.start_store(*EAGER)
            already = len(traffic.kept)
            wait_for(lambda: len(traffic.kept) > already + random.randrange(5, 20), "traffic")  # noqa: B023
            lab.store.kill()
    kept = dict(traffic.kept)
    lab.start_store(*EAGER)
    assert_there(lab, kept)
    # What is listed as a task's can be read; every task that was not let go of is listed.
    tasks = {holder["task"] for holder in json.loads(lab.ask("GET", "/v1/tasks")[2])}
    assert {task for _, task in kept.values()} <= tasks
    wait_for_sweep(lab)
    lab.store.stop()
    assert not check(lab.data)[1]


def test_references_are_dropped_by_hand(lab):
    lab.start_store()
    for namespace in ("tenant", "other"):
        lab.ask("POST", f"/v1/files?namespace={namespace}&reference=keep:upgrade", body=b"old")

    def drop(*options):
        command = (sys.executable, "-m", "gpux.store", "drop", "--key-file", str(lab.root / "key"))
        url = f"--url=http://127.0.0.1:{lab.store_port}"
        return subprocess.run(
            [*command, url, *options],
            env={"PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=False,
        )

    def referring(namespace):
        files = json.loads(lab.ask("GET", f"/v1/files?namespace={namespace}")[2])["files"]
        return [file["references"] for file in files]

    assert drop("keep:upgrade", "--namespace=other").returncode == 0
    assert (referring("tenant"), referring("other")) == ([["keep:upgrade"]], [[]])
    assert drop("keep:upgrade").returncode == 0
    assert referring("tenant") == [[]]
    refused = drop("all of it")
    assert (refused.returncode, "HTTP 400" in refused.stderr) == (1, True)
    lab.store.stop()
    away = drop("keep:upgrade")
    assert (away.returncode, "can't be reached" in away.stderr) == (1, True)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_memory_stays_whatever_the_size(lab, kind, measured):
    lab.start_store()
    size = 128 << 20
    block = os.urandom(1 << 20)

    def body():
        if kind == "folder":
            for number in range(16):
                member = tarfile.TarInfo(f"{number:03}/file")
                member.size = size // 16
                yield member.tobuf()
                yield from [block[number:] + block[:number]] * (size // 16 >> 20)
            yield bytes(1024)
        else:
            yield from [block] * (size >> 20)

    status, _, content = lab.ask("POST", f"/v1/{kind}s", body=body(), bearer=token())
    assert status == 201, content
    name = json.loads(content)["sha1"]
    status, _, content = lab.ask("GET", f"/v1/{kind}s/{name}", bearer=token())
    assert status == 200
    assert len(content) >= size
    peak = rss_kib(lab.store.pid, "VmHWM")
    measured(f"store, {kind} of 128 MiB: {peak / 1024:.0f} MiB")
    assert peak < 64 << 10

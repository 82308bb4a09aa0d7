"""``localcluster up`` killed at any moment: the next ``up`` works and ``down`` leaves nothing."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localcluster import binaries, packages
from localcluster.processes import Identity
from tests.support.environment import unavailable
from tests.support.machine import processes, traces

pytestmark = pytest.mark.faults

UP_SECONDS = 600


def _slow(case: object) -> Any:
    return pytest.param(case, marks=pytest.mark.slow)


# Files of the state directory; the moment at which each appears is a moment to be killed at.
CONTROL_PLANE_MOMENTS = (
    "state.json",
    "pki/ca.crt",
    "pids/etcd",
    "pids/kube-apiserver",
    "pids/kube-controller-manager",
    "kubeconfig",
)
# A cluster with nodes takes half a minute, so each test has one case that always runs, and more with SLOW=1.
NODE_MOMENTS = (
    "pids/node-a",
    *map(_slow, ("state.json", "pki/ca.crt", "nodes/node-a/plan.json", "pids/ingress-forward")),
)
VICTIMS = ("node-a", _slow("ingress-forward"))
SEEDS = (0, *map(_slow, (1, 2, 3)))


class Runner:
    """The command line with a state directory of its own."""

    def __init__(self, home: Path, *profile: str) -> None:
        self.name = "crash"
        self.state = home / self.name
        self._profile = profile
        self._env = {**os.environ, "LOCALCLUSTER_HOME": str(home)}

    def start_up(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._argv("up", *self._profile),
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def up(self) -> None:
        self._run("up", *self._profile)

    def down(self) -> None:
        self._run("down")

    def kubectl(self, *arguments: str) -> None:
        kubectl = [str(binaries.path("kubectl")), f"--kubeconfig={self.state / 'kubeconfig'}"]
        subprocess.run([*kubectl, *arguments], check=True, capture_output=True, timeout=180)

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self._run("status", "--json"))
        return found

    def _argv(self, command: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "localcluster", command, "--name", self.name, *options]

    def _run(self, command: str, *options: str) -> str:
        done = subprocess.run(
            self._argv(command, *options),
            env=self._env,
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def traces(self) -> set[str]:
        return traces(self.name, self.state)


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path, "--control-plane-only")
    yield runner
    runner.down()


@pytest.fixture(scope="session")
def node_programs() -> None:
    """What `up` would install and build first: the moments to be killed at come after that."""
    if os.geteuid() != 0:
        unavailable("nodes need root")
    packages.ensure(packages.missing(packages.NODE_PROGRAMS, node=True))
    binaries.ensure(binaries.CLUSTER)


@pytest.fixture
def full(tmp_path: Path, node_programs: None) -> Iterator[Runner]:
    runner = Runner(tmp_path, "--nodes", "1")
    yield runner
    runner.down()


def _kill_when_it_appears(process: subprocess.Popen[bytes], file: Path) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while not file.exists():
        # Between the two looks it may have come, and `up` have gone on to its end.
        assert process.poll() is None or file.exists(), "up ended before the moment came"
        assert time.monotonic() < deadline, f"{file} never appeared"
        time.sleep(0.001)
    process.kill()
    process.wait()


def _kill_after(process: subprocess.Popen[bytes], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()


def _assert_up_works_and_down_leaves_nothing(runner: Runner) -> None:
    runner.up()
    status = runner.status()
    assert status["running"] is True
    running = processes(runner.state)
    for program in ("etcd", "kube-apiserver", "kube-controller-manager"):
        assert sum(line.split()[0].endswith(f"/{program}") for line in running) == 1
    runner.down()
    assert processes(runner.state) == []
    assert not runner.state.exists()


@pytest.mark.parametrize("moment", CONTROL_PLANE_MOMENTS)
def test_killed_at_a_step_of_the_control_plane(control_plane: Runner, moment: str) -> None:
    _kill_when_it_appears(control_plane.start_up(), control_plane.state / moment)
    _assert_up_works_and_down_leaves_nothing(control_plane)


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_a_random_moment_of_the_control_plane(control_plane: Runner, seed: int) -> None:
    _kill_after(control_plane.start_up(), random.Random(seed).uniform(0.05, 4))
    _assert_up_works_and_down_leaves_nothing(control_plane)


def test_killed_again_and_again(control_plane: Runner) -> None:
    """Each run has the former one's remains to deal with."""
    moments = random.Random(7)
    for _ in range(5):
        _kill_after(control_plane.start_up(), moments.uniform(0.05, 3))
    _assert_up_works_and_down_leaves_nothing(control_plane)


def test_two_at_once_end_with_one_cluster(control_plane: Runner) -> None:
    runs = [control_plane.start_up(), control_plane.start_up()]
    assert [run.wait(UP_SECONDS) for run in runs] == [0, 0]
    _assert_up_works_and_down_leaves_nothing(control_plane)


@pytest.mark.parametrize("moment", NODE_MOMENTS)
def test_killed_at_a_step_of_the_nodes(full: Runner, moment: str) -> None:
    before = full.traces()
    _kill_when_it_appears(full.start_up(), full.state / moment)
    _assert_up_works_and_down_leaves_nothing(full)
    assert full.traces() - before == set()


@pytest.mark.parametrize("victim", VICTIMS)
def test_up_mends_what_has_died_and_keeps_the_objects(full: Runner, victim: str) -> None:
    full.up()
    full.kubectl("create", "configmap", "kept")
    dead = Identity.read(full.state / "pids" / victim)
    assert dead
    dead.kill()
    full.up()
    assert full.status()["running"] is True
    full.kubectl("get", "configmap", "kept")


@pytest.mark.parametrize("seed", SEEDS)
def test_down_after_a_kill_at_a_random_moment_leaves_nothing(full: Runner, seed: int) -> None:
    before = full.traces()
    _kill_after(full.start_up(), random.Random(seed).uniform(0.2, 10))
    full.down()
    assert full.traces() - before == set()

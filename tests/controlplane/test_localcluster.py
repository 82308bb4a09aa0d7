"""The control plane alone: quick, and made of what is built already."""

import json
import subprocess
import sys
import time

import pytest

from tests.support.builds import builds

pytestmark = pytest.mark.controlplane


@pytest.fixture
def localcluster(kubeconfig, tmp_path, monkeypatch):
    """The command line, for clusters of this test's own; the programs are built, since the session's cluster runs."""
    monkeypatch.setenv("LOCALCLUSTER_HOME", str(tmp_path))

    def run(command: str, *options: str) -> str:
        argv = [sys.executable, "-m", "localcluster", command, "--name", "quick", *options]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    yield run
    run("down")


def test_it_starts_within_seconds_and_a_second_time_not_at_all(localcluster, measured):
    built = builds()
    start = time.monotonic()
    localcluster("up", "--control-plane-only")
    first = time.monotonic() - start
    processes = json.loads(localcluster("status", "--json"))["processes"]
    assert set(processes) == {"etcd", "kube-apiserver", "kube-controller-manager"}

    start = time.monotonic()
    localcluster("up", "--control-plane-only")
    again = time.monotonic() - start
    measured(f"control plane alone: up after {first:.1f} s, a second time after {again:.1f} s")
    assert json.loads(localcluster("status", "--json"))["processes"] == processes
    assert builds() == built

"""A large file from a job's port, through the ingress, byte for byte."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from tests.e2e.kit import Cluster, until
from tests.e2e.objects import compose, shell, source, task

pytestmark = pytest.mark.e2e

SIZE = 1 << 30
SERVE = f"""
cd /gpux_job; mkdir served
head -c {SIZE} /dev/urandom | tee served/file | sha1sum > served/partial; mv served/partial served/sha1
exec python3 -m http.server 8080 --directory served
"""


def test_a_gib_arrives_as_it_was(operator: Cluster, namespace: str, measured: Callable[[str], None]) -> None:
    file = compose(main=shell(SERVE, ports=["8080:8080"]))
    operator.apply(namespace, *source("large", cpu=file), task("large", "large", storage={"jobSize": "4Gi"}))
    url = operator.url(operator.wait_task(namespace, "large", "Available"), 8080)

    def served() -> str | None:
        status, text = operator.curl(f"{url}/sha1")
        return text if status == 200 else None

    expected = until("the file to be served", served, timeout=120)
    start = time.monotonic()
    command = ["curl", "--silent", "--show-error", "--fail", "--cacert", operator.info["ingressCA"]]
    with subprocess.Popen([*command, f"{url}/file"], stdout=subprocess.PIPE) as curl:
        found = subprocess.run(["sha1sum"], stdin=curl.stdout, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - start
    assert curl.returncode == 0
    assert found.stdout == expected
    measured(f"1 GiB through the ingress: {SIZE / seconds / 1e6:.0f} MB/s")
    operator.kubectl("-n", namespace, "delete", "ogt", "large", "--timeout=300s")

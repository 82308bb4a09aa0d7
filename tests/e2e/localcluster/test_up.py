"""A second ``localcluster up`` finds everything there."""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.fixtures import CLUSTER, program
from tests.e2e.localcluster.cluster_probe import Cluster
from tests.support.builds import builds


def _processes() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(program("localcluster", "status", "--json", "--name", CLUSTER))
    return dict(found["processes"])


def test_a_second_up_starts_no_process_and_builds_nothing(
    cluster: Cluster, measured: Callable[[str], None]
) -> None:
    processes, built = _processes(), builds()
    start = time.monotonic()
    program("localcluster", "up", "--name", CLUSTER)
    seconds = time.monotonic() - start
    measured(f"a second `localcluster up`: {seconds:.1f} s")
    assert _processes() == processes
    assert builds() == built

"""kubectl against the cluster of the end-to-end tests, and a namespace per test."""

from collections.abc import Iterator

import pytest

from localcluster.images import BASE_IMAGE
from tests.e2e import kit
from tests.e2e.fixtures import CLUSTER, program
from tests.e2e.localcluster.cluster_probe import Cluster, eventually


@pytest.fixture(scope="session")
def cluster(cluster: kit.Cluster) -> Cluster:
    """The session's cluster, started if none ran, with the image of these tests' pods in it."""
    program("localcluster", "load", "--name", CLUSTER, BASE_IMAGE)
    return Cluster(cluster.info)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "lc-" + request.node.name.removeprefix("test_").replace("_", "-")[:40].rstrip("-")
    cluster("delete", "namespace", name, "--ignore-not-found", "--wait")
    cluster("create", "namespace", name)
    eventually(
        "the default service account", lambda: cluster.run("get", "sa", "default", "-n", name).returncode == 0
    )
    yield name
    cluster("delete", "namespace", name, "--wait=false")

"""The other names of services: container_name, aliases of networks and links, in the cluster's real DNS."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opengpu_operator.api.labels import MANAGER, SLICE_MANAGED_BY
from tests.e2e.kit import GROUP, Cluster, Object, until
from tests.e2e.objects import compose, page, shell, source, task

pytestmark = pytest.mark.e2e

SLICES = "apis/discovery.k8s.io/v1/endpointslices"


def named(name: str, *aliases: str, **extra: Any) -> Object:
    """Return a service that says its name, with aliases in the default network."""
    return page(
        ports=[],
        restart="always",
        environment=[f"NAME={name}"],
        networks={"default": {"aliases": list(aliases)}},
        **extra,
    )


@pytest.fixture(scope="module")
def job(operator: Cluster, namespace: str) -> Object:
    """A job of two services with further names, and one that calls them."""
    file = compose(
        main=shell("exec sleep 900", restart="always", links=["one:linked"]),
        one=named("one", "alias", "shared", container_name="contained"),
        two=named("two", "shared"),
    )
    operator.apply(namespace, *source("names", cpu=file), task("names", "names", mainService="main"))
    return operator.wait_task(namespace, "names", "Available")


def inside(operator: Cluster, namespace: str, job: Object, *command: str) -> str:
    """Return what a command prints in the calling service, nothing if it fails."""
    (pod,) = operator.pods(namespace, job, "main")
    name = pod["metadata"]["name"]
    return operator.try_kubectl("-n", namespace, "exec", name, "-c", "main", "--", *command).stdout


def address(operator: Cluster, namespace: str, job: Object, service: str) -> str | None:
    """Return the address of the service's pod, if it runs."""
    found = [
        str(pod["status"]["podIP"])
        for pod in operator.pods(namespace, job, service)
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("podIP")
    ]
    return found[0] if found else None


def resolved(operator: Cluster, namespace: str, job: Object, name: str) -> set[str]:
    """Return the addresses that the calling service finds for a name."""
    lines = inside(operator, namespace, job, "getent", "ahostsv4", name).splitlines()
    return {line.split()[0] for line in lines}


@pytest.mark.parametrize("name", ["contained", "alias", "linked"])
def test_a_service_answers_to_its_other_names(
    operator: Cluster, namespace: str, job: Object, name: str
) -> None:
    curl = ("curl", "-s", "-m", "3", f"http://{name}:8080/")
    said = until(f"{name} to answer", lambda: inside(operator, namespace, job, *curl), timeout=60)
    assert json.loads(said)["name"] == "one"


def test_services_share_an_alias(operator: Cluster, namespace: str, job: Object) -> None:
    both = {address(operator, namespace, job, service) for service in ("one", "two")}
    until(
        "both addresses",
        lambda: resolved(operator, namespace, job, "shared") == both,
        timeout=60,
    )


def test_an_alias_follows_its_pod(operator: Cluster, namespace: str, job: Object) -> None:
    before = address(operator, namespace, job, "one")
    (pod,) = operator.pods(namespace, job, "one")
    operator.kubectl("-n", namespace, "delete", "pod", pod["metadata"]["name"], "--wait=false")
    after = until(
        "another pod",
        lambda: found if (found := address(operator, namespace, job, "one")) != before else None,
        timeout=60,
    )
    until("the new address", lambda: resolved(operator, namespace, job, "contained") == {after}, timeout=60)


def test_the_names_go_with_the_pods_and_come_back(operator: Cluster, namespace: str, job: Object) -> None:
    # Ours: Kubernetes gives those that it makes of the Service the Service's labels too.
    selector = f"{GROUP}/task-uid={job['metadata']['uid']},{SLICE_MANAGED_BY}={MANAGER}"

    def suspend(value: str) -> None:
        patch = f'{{"spec": {{"suspend": {value}}}}}'
        operator.kubectl("-n", namespace, "patch", "ogt", "names", "--type=merge", "-p", patch)

    suspend("true")
    until("the slices to go", lambda: not operator.objects(SLICES, namespace, selector), timeout=60)
    suspend("false")
    until("a slice to come back", lambda: operator.objects(SLICES, namespace, selector), timeout=60)


def test_the_names_go_with_the_task(operator: Cluster, namespace: str, job: Object) -> None:
    selector = f"{GROUP}/task-uid={job['metadata']['uid']}"
    assert operator.objects(SLICES, namespace, selector)
    operator.kubectl("-n", namespace, "delete", "ogt", "names", "--timeout=300s")
    until("the slices to go", lambda: not operator.objects(SLICES, namespace, selector), timeout=60)

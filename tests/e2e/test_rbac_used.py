"""The operator's rights are exactly what it uses, by the API server's own audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.fixtures import OPERATOR_NAMESPACE, OPERATOR_USER
from tests.e2e.kit import Cluster, Object

pytestmark = [pytest.mark.e2e, pytest.mark.last]


class Right(NamedTuple):
    """One thing that may be done."""

    verb: str
    group: str
    resource: str


_THERE_ALREADY = (
    "looks whose it is when a name is taken, as after a crash between a write and its watch event"
)
_MISSED = "looks at what a watch missed, as the audit of the watches found"
_OWNERS = "clusters that check who may block a deletion"
#: Granted although a run of these tests needn't use it, each with what does.
SPARE = {
    Right("update", "opengpu.network", "opengpusources/finalizers"): _OWNERS,
    Right("update", "opengpu.network", "opengputasks/finalizers"): _OWNERS,
    Right("get", "apps", "deployments"): _THERE_ALREADY,
    Right("get", "batch", "jobs"): _THERE_ALREADY,
    Right("get", "networking.k8s.io", "ingresses"): _THERE_ALREADY,
    Right("get", "networking.k8s.io", "networkpolicies"): _THERE_ALREADY,
    Right("get", "discovery.k8s.io", "endpointslices"): _THERE_ALREADY,
    Right("get", "", "services"): _THERE_ALREADY,
    Right("get", "", "persistentvolumeclaims"): _THERE_ALREADY,
    Right("get", "opengpu.network", "opengpusources"): _MISSED,
    Right("get", "opengpu.network", "opengputasks"): _MISSED,
    Right("get", "storage.k8s.io", "storageclasses"): _MISSED,
    Right("get", "", "pods"): _MISSED,
    Right("get", "", "nodes"): _MISSED,
    Right("get", "", "namespaces"): _MISSED,
    Right("get", "apps", "controllerrevisions"): "reads a translation that a former process kept",
    Right("get", "", "events"): "counts up an event that an earlier process made",
    Right("patch", "", "events"): "counts up an event that repeats",
}


@pytest.fixture(scope="module")
def asked(operator: Cluster) -> list[Object]:
    """Everything that the operator asked for since the cluster was made."""
    found = list(requests(operator.audit_log, f"{OPERATOR_USER}opengpu-operator"))
    assert found, "the operator never asked the API server for anything"
    return found


@pytest.fixture(scope="module")
def granted(operator: Cluster) -> set[Right]:
    role = json.loads(operator.kubectl("get", "clusterrole", "opengpu-operator", "-o", "json"))
    return {
        Right(verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def requests(log: Path, user: str) -> Iterator[Object]:
    """Yield one user's requests. A watch that goes on has only started, so both stages count."""
    with log.open() as file:
        for line in file:
            # Parsing a million lines takes longer than looking for a word in them.
            if user in line and line.endswith("\n"):
                event = json.loads(line)
                if event["user"]["username"] == user and "objectRef" in event:
                    yield event


def right(event: Object) -> Right:
    target = event["objectRef"]
    resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
    return Right(event["verb"], target.get("apiGroup", ""), resource)


def forbidden(event: Object) -> bool:
    """Whether RBAC refused it; quotas and other admission answer with 403 too."""
    return str(event.get("annotations", {}).get("authorization.k8s.io/decision", "")) == "forbid"


def test_nothing_was_forbidden(asked: list[Object], granted: set[Right]) -> None:
    # The log outlives an upgrade of the chart: what is granted now was forbidden by an older role.
    refused = {right(event) for event in asked if forbidden(event)} - granted
    assert refused == set()


def test_every_right_was_used(asked: list[Object], granted: set[Right]) -> None:
    used = {right(event) for event in asked if not forbidden(event)}
    print(f"{len(used & granted)} of {len(granted)} rights were used in {len(asked)} requests")
    assert sorted(granted - used - set(SPARE)) == []


def test_spare_rights_are_granted(granted: set[Right]) -> None:
    """A reason for what isn't granted would be nothing but confusing."""
    assert set(SPARE) <= granted


def test_secrets_were_never_read(asked: list[Object]) -> None:
    verbs = {event["verb"] for event in asked if event["objectRef"]["resource"] == "secrets"}
    assert not verbs & {"get", "list", "watch", "deletecollection"}


def test_the_store_never_asked(operator: Cluster) -> None:
    assert list(requests(operator.audit_log, f"{OPERATOR_USER}opengpu-store")) == []


def test_the_operators_own_namespace_was_left_alone(asked: list[Object]) -> None:
    written = {
        (event["verb"], event["objectRef"]["resource"])
        for event in asked
        if event["objectRef"].get("namespace") in {OPERATOR_NAMESPACE, "kube-system"}
        and event["verb"] not in {"get", "list", "watch"}
    }
    assert written == set()

"""What ``up`` keeps and what it makes anew: a slow cluster isn't a dead one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localcluster import cluster, controlplane
from localcluster.cluster import Wish
from localcluster.controlplane import ControlPlane
from localcluster.errors import Failure
from localcluster.paths import Layout
from localcluster.processes import Identity
from localcluster.topology import Topology

WISH = Wish(control_plane_only=True)
TOPOLOGY = Topology("local", 0, None, etcd_port=1, etcd_peer_port=2, api_port=3)


class FakeApi:
    """An API server that isn't ready for its first answers."""

    def __init__(self, late: int) -> None:
        self._late = late

    def ready(self) -> bool:
        self._late -= 1
        return self._late < 0

    def has_default_account(self) -> bool:
        return True


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A cluster that was completed, with this process in the place of all of its own."""
    monkeypatch.setenv("LOCALCLUSTER_HOME", str(tmp_path))
    layout = Layout("local")
    layout.pids.mkdir(parents=True)
    TOPOLOGY.save(layout.state)
    layout.kubeconfig.touch()
    alive = Identity.of(os.getpid())
    assert alive
    for name in controlplane.processes(TOPOLOGY):
        alive.write(layout.pids / name)
    return layout


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``up`` did to the cluster, which it gives all the time there is."""
    calls: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: calls.append(name)

    for name in ("_prepare", "_destroy", "_create", "_complete"):
        monkeypatch.setattr(cluster, name, note(name))
    impatient(monkeypatch, seconds=600)
    return calls


def impatient(monkeypatch: pytest.MonkeyPatch, *, seconds: float = 0) -> None:
    """Give a cluster so long to come right."""
    monkeypatch.setattr(cluster, "_PATIENCE", seconds)
    monkeypatch.setattr(cluster, "_BREATH", seconds)


def answers(monkeypatch: pytest.MonkeyPatch, *, late: int = 0) -> None:
    api = FakeApi(late)
    monkeypatch.setattr(ControlPlane, "api", lambda _: api)


def test_a_cluster_that_answers_late_is_left_as_it_is(
    layout: Layout, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, late=3)
    cluster.up(layout, WISH)
    assert done == []


def test_a_cluster_that_lives_and_does_not_answer_is_not_removed(
    layout: Layout, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, late=10**6)
    impatient(monkeypatch)
    with pytest.raises(Failure, match="Nothing was removed"):
        cluster.up(layout, WISH)
    assert done == []


def test_a_cluster_that_cannot_be_mended_is_not_removed(
    layout: Layout, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Failure("Gave up.")

    answers(monkeypatch)
    monkeypatch.setattr(cluster, "problems", lambda *_: ["node node-a is not Ready"])
    monkeypatch.setattr(cluster, "_complete", fail)
    with pytest.raises(Failure, match=r"Gave up\. Nothing was removed"):
        cluster.up(layout, WISH)
    assert done == ["_prepare"]


@pytest.mark.parametrize("missing", ["pids/etcd", "kubeconfig", "state.json"])
def test_a_cluster_that_died_or_was_never_completed_is_made_anew(
    layout: Layout, done: list[str], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    answers(monkeypatch)
    (layout.root / missing).unlink()
    cluster.up(layout, WISH)
    assert done == ["_prepare", "_destroy", "_create"]


def test_a_cluster_of_another_shape_is_not_touched(
    layout: Layout, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch)
    with pytest.raises(Failure, match="runs with 0 nodes"):
        cluster.up(layout, Wish(nodes=2))
    assert done == []


def test_the_status_is_that_of_more_than_a_moment(
    layout: Layout, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, late=1)
    assert cluster.status(layout)["running"] is True
    answers(monkeypatch, late=10**6)
    impatient(monkeypatch)
    assert cluster.status(layout)["problems"] == ["the API server is not ready"]
    (layout.pids / "etcd").unlink()
    assert cluster.status(layout)["problems"] == ["etcd does not run"]

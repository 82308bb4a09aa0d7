from __future__ import annotations

from opengpu_operator.reconcile.gates import lifts
from tests.unit.reconcile.builders import job, pod


def gate(until: str, service: str) -> str:
    return f"opengpu.network/{until}.{service}"


def test_healthy_is_lifted_by_a_ready_pod_only() -> None:
    waiting = pod("web", node=None, gates=[gate("healthy", "db")])
    assert lifts(pods=[waiting, pod("db", ready=False)], jobs=[], gate_of=gate) == []
    (lift,) = lifts(pods=[waiting, pod("db")], jobs=[], gate_of=gate)
    assert lift.lifted == (gate("healthy", "db"),)
    assert lift.keep == ()


def test_completed_is_lifted_by_the_job_not_by_its_pod() -> None:
    waiting = pod("web", node=None, gates=[gate("completed", "migrate")])
    assert lifts(pods=[waiting, pod("migrate")], jobs=[job("migrate", complete=False)], gate_of=gate) == []
    (lift,) = lifts(pods=[waiting], jobs=[job("migrate", complete=True)], gate_of=gate)
    assert lift.lifted == (gate("completed", "migrate"),)


def test_placed_is_lifted_by_a_node() -> None:
    waiting = pod("web", node=None, gates=[gate("placed", "gpu")])
    assert lifts(pods=[waiting, pod("gpu", node=None, ready=False)], jobs=[], gate_of=gate) == []
    (lift,) = lifts(pods=[waiting, pod("gpu", ready=False)], jobs=[], gate_of=gate)
    assert lift.lifted == (gate("placed", "gpu"),)


def test_gates_are_lifted_one_by_one_and_strangers_stay() -> None:
    stranger = "kueue.x-k8s.io/admission"
    waiting = pod("web", node=None, gates=[gate("healthy", "db"), stranger, gate("completed", "migrate")])
    (lift,) = lifts(pods=[waiting, pod("db")], jobs=[], gate_of=gate)
    assert lift.keep == (stranger, gate("completed", "migrate"))
    test, replace = lift.patch()
    assert test["value"] == [
        {"name": name} for name in (gate("healthy", "db"), stranger, gate("completed", "migrate"))
    ]
    assert replace["value"] == [{"name": stranger}, {"name": gate("completed", "migrate")}]

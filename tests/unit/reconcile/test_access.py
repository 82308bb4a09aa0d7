"""Who may enter the ports of a running job, when its task says it anew: closed first, and closed when in doubt."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from opengpu_operator.api.translation import Port, Restart
from opengpu_operator.kube.errors import Unavailable
from opengpu_operator.kube.kinds import INGRESS, JOB, TASK
from tests.support.jobs import service, translation
from tests.unit.reconcile.test_task import Operator, World, started

WEB = translation(
    service("main", restart=Restart.NO, ports=[Port(container=80, published=80)]), environment="cpu"
)
BY_TOKEN = {"access": {"tokenSha256": "0a" * 32}}
IN_VAIN = {"access": {"allowedCidrs": ["192.0.2.0/99"]}}


@pytest.fixture
def world() -> World:
    return World()


def reshaped(world: World, operator: Operator, **spec: Any) -> None:
    """Change the task's spec, as the operator sees it."""
    found = world.api.objects[TASK, "team", "ask"]
    found["metadata"]["generation"] += 1
    found["spec"] |= spec
    world.api.put(TASK, found)
    operator.see()


@pytest.mark.parametrize("access", [BY_TOKEN, IN_VAIN], ids=["cannot be enforced", "cannot be understood"])
async def test_a_route_is_closed_where_who_may_enter_cannot_be_had(world, access):
    operator = await started(world, WEB)
    assert world.reason("Routed") == "Routed"
    assert len(world.status["urls"]) == 1
    pods = world.api.all(JOB)
    reshaped(world, operator, **access)
    await operator.run()
    assert world.api.all(INGRESS) == []
    assert "urls" not in world.status or world.status["urls"] == []
    assert world.reason("Routed") == ("PortNotRouted" if access == BY_TOKEN else "SpecRefused:access")
    assert [job["metadata"]["uid"] for job in world.api.all(JOB)] == [job["metadata"]["uid"] for job in pods]
    reshaped(world, operator, access=None)
    await operator.run()
    assert len(world.api.all(INGRESS)) == 1
    assert world.reason("Routed") == "Routed"


async def test_a_route_is_closed_before_anything_can_go_wrong(world):
    operator = await started(world, WEB)
    world.api.refusals["patch", "NetworkPolicy"] = Unavailable("etcd")
    reshaped(world, operator, **BY_TOKEN)
    with contextlib.suppress(Unavailable):
        await operator.run()
    assert world.api.all(INGRESS) == []


async def test_another_mistake_closes_nothing(world):
    operator = await started(world, WEB)
    reshaped(world, operator, portOptions=[{"port": 81}])
    await operator.run()
    assert world.reason() == "SpecRefused:portOptions"
    assert len(world.api.all(INGRESS)) == 1
    assert len(world.status["urls"]) == 1

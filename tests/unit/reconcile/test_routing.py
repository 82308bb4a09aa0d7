"""What the condition Routed says."""

import pytest

from opengpu_operator.api.translation import Port
from opengpu_operator.desired.job import build
from opengpu_operator.reconcile.routing import as_seen, routing
from tests.support.jobs import context, service, settings, translation, worker

HASH = "0a" * 32


def said(*ports, **spec):
    web = service("web", ports=[Port(container=port, published=port) for port in ports])
    return routing(
        build(translation(worker(), web), context(spec={"functionName": "chat", **spec}), settings())
    )


def test_all_is_well():
    assert said(80) == (True, "Routed", "")


def test_nothing_to_route_is_nothing_to_say():
    assert said() is None


def test_a_port_that_could_not_be_kept_closed_comes_first():
    options = [
        {"port": 80, "access": {"tokenSha256": HASH}},
        {"port": 81, "maxBodySize": "1Gi"},
    ]
    found = said(80, 81, portOptions=options)
    assert found is not None
    assert (found.status, found.reason) == (False, "PortNotRouted")
    assert "Port 80 has no URL" in found.message
    assert "settings.routes.profile" in found.message


@pytest.mark.parametrize("ports", [(80,), (80, 81)])
def test_an_option_without_effect_is_said_of_a_port_that_is_reached(ports):
    found = said(*ports, portOptions=[{"port": 80, "maxBodySize": "1Gi"}])
    assert found is not None
    assert (found.status, found.reason) == (True, "PortOptionIgnored")
    assert "maxBodySize of port 80" in found.message


def test_a_gateway_may_not_take_a_route():
    reason = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no"}
    refused = {"metadata": {"name": "a"}, "status": {"refused": [reason]}}
    wanted = said(80)
    assert as_seen(wanted, [{"metadata": {"name": "a"}}]) == wanted
    found = as_seen(wanted, [refused, refused])
    assert found is not None
    assert (found.status, found.reason) == (False, "RouteNotAccepted")
    assert found.message.count("NotAllowedByListeners: no") == 1
    closed = said(80, access={"tokenSha256": HASH})
    assert as_seen(closed, [refused]) == closed, "what the task can change comes first"
    assert as_seen(None, [refused]) is None


def test_a_job_without_any_reachable_port_says_why():
    found = said(80, access={"tokenSha256": HASH})
    assert found is not None
    assert found.status is False

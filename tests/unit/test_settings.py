"""What the settings file says that fields alone can't check."""

import pytest

from opengpu_operator.settings import RouteSettings

GATEWAY = {"name": "public", "namespace": "gateways"}


@pytest.mark.parametrize("gateway", [{}, {"name": "public"}, {"namespace": "gateways"}])
def test_httproutes_need_a_gateway(gateway):
    with pytest.raises(ValueError, match=r"gateway\.name and gateway\.namespace"):
        RouteSettings.model_validate({"kind": "HTTPRoute", "gateway": gateway})


def test_whoever_has_ingresses_may_name_one_all_the_same():
    assert RouteSettings.model_validate({"kind": "HTTPRoute", "gateway": GATEWAY}).gateway.name == "public"
    assert RouteSettings.model_validate({"gateway": GATEWAY}).kind == "Ingress"

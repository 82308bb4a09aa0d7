from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from opengpu_operator.handlers import login


async def connection(configuration):
    registry = kopf.OperatorRegistry()
    login(registry, configuration)
    (handler,) = registry._activities.get_all_handlers()
    log_in: Any = handler.fn
    return await log_in()


async def test_kopf_uses_the_gateways_credentials():
    configuration = Configuration(host="https://example.test:6443")
    configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file = "ca", "crt", "key"
    info = await connection(configuration)
    assert (info.server, info.ca_path) == ("https://example.test:6443", "ca")
    assert (info.certificate_path, info.private_key_path) == ("crt", "key")
    assert (info.scheme, info.token) == (None, None)
    assert info.insecure is False


async def test_a_token_is_read_anew_for_each_login(monkeypatch):
    configuration = Configuration(host="https://example.test:6443")
    tokens = iter(["bearer first\n", "bearer second"])

    def refresh(configuration):
        configuration.api_key["BearerToken"] = next(tokens)

    monkeypatch.setattr(configuration, "refresh_api_key_hook", refresh)
    for expected in ("first", "second"):
        info = await connection(configuration)
        assert (info.scheme, info.token) == ("Bearer", expected)

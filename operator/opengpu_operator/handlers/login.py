"""kopf logs in with the very credentials that the gateway uses, so that there is one way to find the API server."""

from __future__ import annotations

import kopf
from kubernetes.aio.client import Configuration


def login(registry: kopf.OperatorRegistry, configuration: Configuration) -> None:
    """Have kopf take the API server's address and our credentials from the client's configuration.

    kopf asks again whenever the API server no longer takes what it was given: a service account's token is read anew.
    """

    @kopf.on.login(registry=registry, id="credentials")
    async def credentials(**_: object) -> kopf.ConnectionInfo:
        token = await configuration.get_api_key_with_prefix("BearerToken")
        scheme, _separator, secret = token.strip().partition(" ") if token else ("", "", "")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme.capitalize() or None,
            token=secret or None,
            proxy_url=configuration.proxy,
        )

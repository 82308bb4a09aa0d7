"""The ingress' certificate for every host, by an authority of its own: whoever trusts it trusts it with nothing else.

It lies in the namespace of the ingress controller alone, which gives it to every host; no job sees its key.
"""

import base64
import json
import shutil
import socket
import ssl

from localcluster.paths import Layout
from localcluster.pki import Authority

DOMAIN = "gpux.localhost"
_NAME = "ingress"
_SECONDS = 3.0


def ensure(layout: Layout) -> Authority:
    """Return the authority, with its certificate; both are made once, whole or not at all."""
    if not layout.ingress_pki.exists():
        partial = layout.ingress_pki.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        made = Authority(partial)
        made.create("localcluster ingress")
        made.issue(_NAME, DOMAIN, alternatives=[f"DNS:*.{DOMAIN}", f"DNS:{DOMAIN}"])
        partial.rename(layout.ingress_pki)
    return Authority(layout.ingress_pki)


def answers(layout: Layout, port: int) -> bool:
    """Tell whether a port of loopback shows the certificate: all that lies between works."""
    try:
        context = ssl.create_default_context(cafile=str(Authority(layout.ingress_pki).bundle))
        with (
            socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=f"up.{DOMAIN}"),
        ):
            return True
    except OSError:
        return False


def manifest(authority: Authority) -> str:
    """Return the Secret with the certificate and its key, as JSON, which YAML is a superset of."""
    data = {"tls.crt": authority.certificate(_NAME), "tls.key": authority.key(_NAME)}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "skipper-tls", "namespace": "ingress-system"},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(path.read_bytes()).decode() for key, path in data.items()},
    }
    return json.dumps(secret)

"""What each ingress controller can be told about a route, as data: by which annotations, if at all.

An option that a profile has no words for is absent here, and whoever builds routes says so or makes none. Texts are
filled with numbers, address ranges in their normal form, hex digits and names of our own Services: nothing that a user
wrote as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from opengpu_operator.api.access import Protocol
from opengpu_operator.settings import ProfileName

Annotations = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A controller's words for the options of a route."""

    always: Annotations = field(default_factory=dict)
    """On the Ingress of every route, with ``{services}``; for what works elsewhere by itself."""
    protocols: Mapping[Protocol, Annotations] = field(default_factory=lambda: {Protocol.HTTP: {}})
    """On the Ingress, by what the container speaks, with ``{services}``. HTTP is known to all."""
    service_protocols: Mapping[Protocol, Annotations] = field(default_factory=dict)
    """Likewise on the Service, with ``{ports}``; a protocol must be in ``protocols`` too."""
    timeout: Annotations | None = None
    """How long a request may take, with ``{seconds}``."""
    body: Annotations | None = None
    """How large a request may be, with ``{bytes}``."""
    cidrs: Annotations | None = None
    """Who gets through by address, with ``{cidrs}``, or ``{quoted}``: each in double quotes."""
    token: Annotations | None = None
    """Who gets through by the Authorization header, with ``{sha256}``."""
    joined: Mapping[str, str] = field(default_factory=dict)
    """Annotations that several options add to: by what their parts are joined."""


_HTTP, _HTTPS, _GRPC, _H2C = Protocol.HTTP, Protocol.HTTPS, Protocol.GRPC, Protocol.H2C
_NGINX = "nginx.ingress.kubernetes.io"
_F5 = "nginx.org"
_HAPROXY_INGRESS = "haproxy-ingress.github.io"
_CONTOUR_PROTOCOL = "projectcontour.io/upstream-protocol"
_TRAEFIK_SCHEME = "traefik.ingress.kubernetes.io/service.serversscheme"
_FILTER, _PREDICATE = "zalando.org/skipper-filter", "zalando.org/skipper-predicate"


def _skipper(client: str) -> Profile:
    """Return skipper's words; ``client`` is the predicate that looks at who asks.

    It speaks no HTTP/2 to backends, and limits no bodies. Whoever may not get through finds nothing there: 404.
    """
    return Profile(
        protocols={_HTTP: {}, _HTTPS: {"zalando.org/skipper-backend-protocol": "https"}},
        timeout={
            _FILTER: 'backendTimeout("{seconds}s") -> readTimeout("{seconds}s") -> writeTimeout("{seconds}s")'
        },
        cidrs={_PREDICATE: f"{client}({{quoted}})"},
        token={_PREDICATE: 'HeaderSHA256("Authorization", "{sha256}")'},
        joined={_FILTER: " -> ", _PREDICATE: " && "},
    )


PROFILES: Final[Mapping[ProfileName, Profile]] = {
    "none": Profile(),
    # Its Ingresses know no WebSockets unless told, and neither bodies nor addresses.
    "contour": Profile(
        always={"projectcontour.io/websocket-routes": "/"},
        protocols={_HTTP: {}, _HTTPS: {}, _GRPC: {}, _H2C: {}},
        service_protocols={
            _HTTPS: {f"{_CONTOUR_PROTOCOL}.tls": "{ports}"},
            _GRPC: {f"{_CONTOUR_PROTOCOL}.h2c": "{ports}"},
            _H2C: {f"{_CONTOUR_PROTOCOL}.h2c": "{ports}"},
        },
        timeout={"projectcontour.io/response-timeout": "{seconds}s"},
    ),
    # HAProxy Technologies' own.
    "haproxy": Profile(
        protocols={
            _HTTP: {},
            _HTTPS: {"haproxy.org/server-ssl": "true"},
            _GRPC: {"haproxy.org/server-proto": "h2"},
            _H2C: {"haproxy.org/server-proto": "h2"},
        },
        timeout={"haproxy.org/timeout-server": "{seconds}s"},
        cidrs={"haproxy.org/allow-list": "{cidrs}"},
    ),
    # The community's, which is older.
    "haproxy-ingress": Profile(
        protocols={
            _HTTP: {},
            _HTTPS: {f"{_HAPROXY_INGRESS}/backend-protocol": "h1-ssl"},
            _GRPC: {f"{_HAPROXY_INGRESS}/backend-protocol": "grpc"},
            _H2C: {f"{_HAPROXY_INGRESS}/backend-protocol": "h2"},
        },
        timeout={f"{_HAPROXY_INGRESS}/timeout-server": "{seconds}s"},
        body={f"{_HAPROXY_INGRESS}/proxy-body-size": "{bytes}"},
        cidrs={f"{_HAPROXY_INGRESS}/allowlist-source-range": "{cidrs}"},
    ),
    # ingress-nginx. To nginx, HTTP/2 without TLS is gRPC or nothing.
    "nginx": Profile(
        protocols={
            _HTTP: {},
            _HTTPS: {f"{_NGINX}/backend-protocol": "HTTPS"},
            _GRPC: {f"{_NGINX}/backend-protocol": "GRPC"},
        },
        timeout={f"{_NGINX}/proxy-read-timeout": "{seconds}", f"{_NGINX}/proxy-send-timeout": "{seconds}"},
        body={f"{_NGINX}/proxy-body-size": "{bytes}"},
        cidrs={f"{_NGINX}/whitelist-source-range": "{cidrs}"},
    ),
    # F5's controller, which takes addresses from objects of its own only, and names of Services for protocols.
    "nginx-f5": Profile(
        protocols={
            _HTTP: {f"{_F5}/websocket-services": "{services}"},
            _HTTPS: {f"{_F5}/ssl-services": "{services}", f"{_F5}/websocket-services": "{services}"},
            _GRPC: {f"{_F5}/grpc-services": "{services}"},
        },
        timeout={f"{_F5}/proxy-read-timeout": "{seconds}s", f"{_F5}/proxy-send-timeout": "{seconds}s"},
        body={f"{_F5}/client-max-body-size": "{bytes}"},
    ),
    "skipper": _skipper("ClientIP"),
    # Behind a proxy that adds to X-Forwarded-For; without one, anybody could write any address there.
    "skipper-behind-proxy": _skipper("SourceFromLast"),
    # All else is in Traefik's own kinds.
    "traefik": Profile(
        protocols={_HTTP: {}, _HTTPS: {}, _GRPC: {}, _H2C: {}},
        service_protocols={
            _HTTPS: {_TRAEFIK_SCHEME: "https"},
            _GRPC: {_TRAEFIK_SCHEME: "h2c"},
            _H2C: {_TRAEFIK_SCHEME: "h2c"},
        },
    ),
}

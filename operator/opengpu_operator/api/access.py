"""How a task's ports are reached by their URLs, and by whom."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opengpu_operator.api.meta import UNIQUE, Model, PortNumber, Quantity, Rule, Sha256

#: Lists whose entries are told apart by their port.
BY_PORT: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"]}

#: An address range. The operator checks it in full; here nothing gets through that could end a quoted text.
Cidr = Annotated[str, Field(max_length=49, pattern=r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$")]


class Protocol(StrEnum):
    """What a container speaks on a port. WebSockets are HTTP."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    """HTTP over TLS; whether its certificate has to be a known one is the controller's setting."""
    GRPC = "GRPC"
    """gRPC without TLS."""
    H2C = "H2C"
    """HTTP/2 without TLS."""


class Access(Model):
    """Access says who gets through to a port. What the ingress controller can't enforce gets no URL."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.allowedCidrs) || has(self.tokenSha256)",
            "allowedCidrs or tokenSha256 must be set",
            reason="FieldValueRequired",
        ),
        Rule(
            "!has(self.allowedCidrs) || size(self.allowedCidrs) > 0",
            "allowedCidrs needs an entry: an empty list would let nobody in",
            path=".allowedCidrs",
        ),
    )

    allowed_cidrs: Annotated[list[Cidr] | None, Field(max_length=32, json_schema_extra=UNIQUE)] = None
    """allowedCidrs are the address ranges from which the port is reached: 203.0.113.0/24, 2001:db8::/32."""
    token_sha256: Sha256 | None = None
    """tokenSha256 is the SHA-256 (hex) of the value that a request's Authorization header must have, `Bearer ` and
    the token: `printf 'Bearer %s' "$TOKEN" | sha256sum`. The token itself is in no object."""


class PortOptions(Model):
    """PortOptions says how one port is reached by its URL."""

    port: PortNumber
    """port is a port that has a URL: the container's or the published number, as in ports."""
    protocol: Protocol | None = None
    """protocol that the container speaks there; HTTP, with WebSockets, if absent."""
    request_timeout_seconds: Annotated[int | None, Field(ge=1, le=86400)] = None
    """requestTimeoutSeconds is how long the answer to a request may take; the controller's own limit if absent."""
    max_body_size: Quantity | None = None
    """maxBodySize is how large a request's body may be; the controller's own limit if absent."""
    access: Access | None = None
    """access to this port, instead of the task's."""

"""Who may do what in the store: claims under an HMAC, so that the store needs no list of tokens.

A job's token reaches its own namespace and task and nothing else; an operator's reaches everything. The key is in
the operator and in the store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

_VERSION = "v1"
_LONGEST_TOKEN = 4096
_SHORTEST_KEY = 16


class TokenError(ValueError):
    """The token proves nothing. The message is safe to show: it has no part of the token."""


class Claims(NamedTuple):
    """What a token says."""

    scope: Literal["job", "operator"]
    namespace: str
    """The tenant a job's token acts in; empty for an operator."""
    task: str
    """The UID of the task a job's token acts for; empty for an operator."""
    exp: int
    """Unix seconds after which the token is nothing."""


def load_key(path: Path) -> bytes:
    """Read the signing key. A line break at the end is an editor's, not the key's."""
    key = path.read_bytes().rstrip(b"\r\n")
    if len(key) < _SHORTEST_KEY:
        raise ValueError(f"the signing key in {path} is shorter than {_SHORTEST_KEY} bytes")
    return key


def sign(key: bytes, claims: Mapping[str, object]) -> str:
    """Make a token of the claims that `Claims` names. The same claims give the same token."""
    body = _encode(json.dumps(dict(claims), sort_keys=True, separators=(",", ":")).encode())
    return f"{_VERSION}.{body}.{_encode(_mac(key, body))}"


def verify(key: bytes, token: str, *, now: Callable[[], float] = time.time) -> Claims:
    """Check a token and read its claims. Raises TokenError."""
    parts = token.split(".") if len(token) <= _LONGEST_TOKEN else []
    if len(parts) != 3 or parts[0] != _VERSION:
        raise TokenError("malformed token")
    # The signature covers the text as sent, so that claims are parsed only after it has been checked.
    if not hmac.compare_digest(_mac(key, parts[1]), _decode(parts[2])):
        raise TokenError("the token's signature is wrong")
    claims = _claims(_decode(parts[1]))
    if claims.exp <= now():
        raise TokenError("the token has expired")
    return claims


def _claims(raw: bytes) -> Claims:
    try:
        document: Any = json.loads(raw)
    except ValueError:
        raise TokenError("malformed token") from None
    match document:
        case {"scope": "operator", "exp": int(exp)}:
            return Claims("operator", "", "", exp)
        case {"scope": "job", "namespace": str(namespace), "task": str(task), "exp": int(exp)} if (
            namespace and task
        ):
            return Claims("job", namespace, task, exp)
    raise TokenError("the token's claims are incomplete")


def _mac(key: bytes, body: str) -> bytes:
    return hmac.new(key, f"{_VERSION}.{body}".encode(), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenError("malformed token") from None

"""Who may do what in the store: claims under an HMAC, so that the store needs no list of tokens.

A job's token reaches its own namespace and task and nothing else; an operator's reaches everything. A `files` token
is for people and programs outside the cluster, and reaches the files of one task's namespace, but no calls; a `link`
is for one download. The key is in the operator and in the store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

_VERSION = "v1"
_LONGEST_TOKEN = 4096
_SHORTEST_KEY = 16
_SHA1 = re.compile(r"[0-9a-f]{40}")

T = TypeVar("T")


class TokenError(ValueError):
    """The token proves nothing. The message is safe to show: it has no part of the token."""


Scope: TypeAlias = Literal["operator", "job", "files", "link"]


class Claims(NamedTuple):
    """What a token says."""

    scope: Scope
    namespace: str
    """The tenant that the token acts in; empty for an operator."""
    task: str
    """The UID of the task that the token acts for; empty for an operator, and for a link to a file."""
    exp: int
    """Unix seconds after which the token is nothing."""
    owner: str | None = None
    """Whom the task belongs to inside the namespace; what is uploaded is kept for the owner too."""
    job_bytes: int | None = None
    """The most that may be kept for the task; None: any number."""
    owner_bytes: int | None = None
    """The most that may be kept for the owner; None: any number."""
    public: bool = False
    """What is uploaded may be fetched from outside by its hash, without a token."""
    external: bool = False
    """The store's external port serves this task."""
    hash: str | None = None
    """The one file that a link is to, as the SHA-1 in hex."""
    path: str | None = None
    """The one place in the job's storage that a link is to."""


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
        case {
            "scope": "job" | "files" as scope,
            "namespace": str(namespace),
            "task": str(task),
            "exp": int(exp),
        } if namespace and task:
            return Claims(
                scope,
                namespace,
                task,
                exp,
                owner=_optional(document, "owner", str) or None,
                job_bytes=_optional(document, "jobBytes", int),
                owner_bytes=_optional(document, "ownerBytes", int),
                public=_optional(document, "public", bool) or False,
                external=_optional(document, "external", bool) or scope == "files",
            )
        case {"scope": "link", "namespace": str(namespace), "exp": int(exp), "hash": str(name)} if (
            namespace and _SHA1.fullmatch(name)
        ):
            return Claims("link", namespace, "", exp, hash=name)
        case {
            "scope": "link",
            "namespace": str(namespace),
            "exp": int(exp),
            "task": str(task),
            "path": str(path),
        } if namespace and task and "hash" not in document:
            return Claims("link", namespace, task, exp, path=path)
    raise TokenError("the token's claims are incomplete")


def _optional(document: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """Read a claim that may be missing. A wrong one is not taken for a missing one: that would lift a quota."""
    value = document.get(name)
    if value is None:
        return None
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise TokenError(f"the token's claim {name} is malformed")
    return value


def _mac(key: bytes, body: str) -> bytes:
    return hmac.new(key, f"{_VERSION}.{body}".encode(), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenError("malformed token") from None

"""Signatures of requests to S3 (AWS Signature Version 4), from the standard library alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

#: Instead of a body's hash: the body is protected by its checksum, and by TLS where there is any.
UNSIGNED = "UNSIGNED-PAYLOAD"

_SAFE = "-_.~"


class Credentials(NamedTuple):
    """Who we are to the service."""

    access_key: str
    secret_key: str
    session_token: str | None = None


def load_credentials(directory: Path) -> Credentials:
    """Read a mounted Secret: ``access-key-id``, ``secret-access-key`` and, if there is one, ``session-token``."""
    session = directory / "session-token"
    return Credentials(
        _line(directory / "access-key-id"),
        _line(directory / "secret-access-key"),
        _line(session) if session.exists() else None,
    )


def _line(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError(f"{path} is empty")
    return text


class Scope(NamedTuple):
    """What signatures are for, besides the request."""

    credentials: Credentials
    region: str
    now: datetime
    service: str = "s3"


def encode_path(path: str) -> str:
    """Write a path as it is sent and signed."""
    return quote(path, safe=_SAFE + "/")


def encode_query(query: Mapping[str, str]) -> str:
    """Write a query as it is sent and signed."""
    pairs = sorted((quote(name, safe=_SAFE), quote(value, safe=_SAFE)) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def sign(
    method: str, path: str, *, query: str, headers: Mapping[str, str], payload: str, scope: Scope
) -> dict[str, str]:
    """Return the headers with a signature over all of them.

    ``path`` and ``query`` are as `encode_path` and `encode_query` write them, ``headers`` have Host among them, and
    ``payload`` is the hex SHA-256 of the body or `UNSIGNED`.
    """
    stamp = scope.now.strftime("%Y%m%dT%H%M%SZ")
    signed = {**headers, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if scope.credentials.session_token is not None:
        signed["x-amz-security-token"] = scope.credentials.session_token
    canonical = sorted((name.lower(), " ".join(value.split())) for name, value in signed.items())
    names = ";".join(name for name, _ in canonical)
    lines = "".join(f"{name}:{value}\n" for name, value in canonical)
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"
    where = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{scope.credentials.secret_key}".encode()
    for part in (stamp[:8], scope.region, scope.service, "aws4_request"):
        key = _mac(key, part)
    signature = _mac(key, f"AWS4-HMAC-SHA256\n{stamp}\n{where}\n{digest}").hex()
    signed["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={scope.credentials.access_key}/{where}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return signed


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()

"""What can go wrong with a request to the API server, one class per way of handling it.

Every error carries the HTTP status code (0 where there was no answer), the API server's one-word reason and its
message, which is written for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class KubeError(Exception):
    """A request failed."""

    def __init__(
        self, message: str, *, code: int = 0, reason: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code} {reason}: {message}" if code else message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}

    def _caused_by(self, reason: str) -> bool:
        return any(cause.get("reason") == reason for cause in self.details.get("causes") or ())


class NotFound(KubeError):
    """The object isn't there; for a creation, its namespace isn't."""


class AlreadyExists(KubeError):
    """An object of that name is there already."""


class ConflictError(KubeError):
    """The object changed since it was read, or it is another one (another UID)."""


class Unauthorized(KubeError):
    """The API server doesn't know us."""


class Forbidden(KubeError):
    """RBAC, a quota, an admission plugin or the end of the namespace forbids it."""

    @property
    def namespace_terminating(self) -> bool:
        """Whether the namespace is being deleted: nothing will ever be created in it again."""
        return self._caused_by("NamespaceTerminating") or "because it is being terminated" in self.message

    @property
    def quota_exceeded(self) -> bool:
        """Whether a ResourceQuota refuses it, which changes without us."""
        return tells_of_a_quota(self.message)


class Unprocessable(KubeError):
    """The API server refuses the content; the same content will be refused again."""


class Gone(KubeError):
    """The resource version or continuation is too old: list again from the start."""


class TooManyRequests(KubeError):
    """The API server is overloaded, or its fair queuing thinks so of us."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        code: int = 429,
        reason: str = "TooManyRequests",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, reason=reason, details=details)
        self.retry_after = retry_after


class Unavailable(KubeError):
    """No answer, or one that says that the server can't: the network, a timeout, 5xx."""


def tells_of_a_quota(message: str) -> bool:
    """Whether the API server's message is of a ResourceQuota that is used up, or new and not yet counted.

    The sentences are those of Kubernetes' resourcequota admission plugin (controller.go).
    """
    return "exceeded quota:" in message or "status unknown for quota:" in message


def error_of(code: int, body: Mapping[str, Any], *, retry_after: float = 1.0) -> KubeError:
    """Return the error for an answer with a status code of 400 or more and a ``Status`` object as its body."""
    reason = str(body.get("reason") or "")
    message = str(body.get("message") or reason or f"HTTP {code}")
    details = body.get("details")
    details = details if isinstance(details, Mapping) else {}
    if code == 429:
        return TooManyRequests(message, retry_after=retry_after, reason=reason, details=details)
    if code >= 500:
        return Unavailable(message, code=code, reason=reason, details=details)
    kind = _BY_CODE.get(code, KubeError)
    if code == 409 and reason == "AlreadyExists":
        kind = AlreadyExists
    return kind(message, code=code, reason=reason, details=details)


_BY_CODE: dict[int, type[KubeError]] = {
    400: Unprocessable,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: ConflictError,
    410: Gone,
    413: Unprocessable,
    422: Unprocessable,
}

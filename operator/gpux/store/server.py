"""The store's HTTP API: each request to its route, if its token reaches so far, and each failure to its code.

Built on aiohttp's low-level server: the routes are few, their paths are matched as sent (no decoding that could turn
one name into another), and nothing stands between the socket and a handler that waits or streams.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs

from aiohttp import web

from gpux import tokens
from gpux.blobs import HashConflictError, QuotaError, StorageFullError
from gpux.calls import CallConflictError, CallNotFoundError
from gpux.errors import UnavailableError
from gpux.files import is_full
from gpux.log import log
from gpux.store.http import HttpError, reply
from gpux.store.metrics import Metrics
from gpux.store.routes import JOBS, Api, Context, Route


class Server:
    """Answers requests by the routes of some parts of the API."""

    def __init__(
        self,
        apis: Sequence[Api],
        *,
        authenticate: Callable[[web.BaseRequest], tokens.Claims],
        metrics: Metrics,
    ) -> None:
        """``authenticate`` says whom a request comes from, or raises HttpError."""
        self._routes = [route for api in apis for route in api.routes]
        self._authenticate = authenticate
        self._metrics = metrics

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, _, query = request.raw_path.partition("?")
        if path in {"/healthz", "/readyz"}:
            return web.Response(text="ok\n")
        started = time.monotonic()
        route, found = self._match(path)
        name = route.name if route else "none"
        try:
            response = await self._handle(request, route, found, query)
        except HttpError as error:
            response = reply({"error": error.message}, status=error.status, headers=error.headers)
        except QuotaError as error:
            self._metrics.over_quota.inc()
            response = reply({"error": str(error)}, status=507)
        except StorageFullError:
            response = reply({"error": "the store is full"}, status=507)
        except HashConflictError:
            response = reply(
                {"error": "another file with this SHA-1 is stored; this one is refused"}, status=409
            )
        except CallNotFoundError:
            response = reply({"error": "no such call"}, status=404)
        except CallConflictError as error:
            response = reply({"error": str(error)}, status=409)
        except UnavailableError as error:
            log("warning", "the backend is unavailable", route=name, error=str(error))
            response = reply(
                {"error": "the store's backend is unavailable; try again"},
                status=503,
                headers={"Retry-After": "5"},
            )
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 one request's failure is not the server's
            log("error", "a request failed", route=name, error=repr(error))
            status, message = (507, "the store is full") if is_full(error) else (500, "internal error")
            response = reply({"error": message}, status=status)
        method = request.method if route and request.method in route.methods else "other"
        self._metrics.requests.labels(name, method, str(response.status)).inc()
        if "wait" not in query:
            self._metrics.seconds.labels(name, method).observe(time.monotonic() - started)
        return response

    def _match(self, path: str) -> tuple[Route | None, Mapping[str, str]]:
        for route in self._routes:
            if found := route.path.fullmatch(path):
                return route, found.groupdict()
        return None, {}

    async def _handle(
        self, request: web.BaseRequest, route: Route | None, path: Mapping[str, str], query: str
    ) -> web.StreamResponse:
        # Before anything else, so that a stranger can't tell what exists from what doesn't.
        claims = self._authenticate(request)
        if route is None:
            raise HttpError(404, "no such path")
        if request.method not in route.methods:
            allowed = ", ".join(sorted(route.methods))
            raise HttpError(405, f"allowed: {allowed}", headers={"Allow": allowed})
        scopes, handler = route.methods[request.method]
        if claims.scope not in scopes or (
            claims.scope != "operator" and path.get("task", claims.task) != claims.task
        ):
            raise HttpError(403, "the token doesn't reach this")
        try:
            values = {name: found[-1] for name, found in parse_qs(query, max_num_fields=16).items()}
        except ValueError:
            raise HttpError(400, "the query has too many fields") from None
        return await handler(Context(request, claims, path, values))


def bearer(
    key: Callable[[], bytes], *, scopes: frozenset[tokens.Scope] = JOBS
) -> Callable[[web.BaseRequest], tokens.Claims]:
    """Authenticate by the token in the header. ``key`` is asked anew for each request: it may be replaced.

    Tokens that were made for the outside are nothing inside, unless ``scopes`` say so.
    """

    def authenticate(request: web.BaseRequest) -> tokens.Claims:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise HttpError(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        try:
            claims = tokens.verify(key(), token.strip())
        except tokens.TokenError as error:
            raise HttpError(401, str(error), headers={"WWW-Authenticate": "Bearer"}) from None
        if claims.scope not in scopes:
            raise HttpError(401, "this token is for another purpose", headers={"WWW-Authenticate": "Bearer"})
        return claims

    return authenticate

"""Liveness, readiness and metrics over HTTP.

kopf's own health endpoint stays green while watches are dead, so the checks here ask what matters: does the event
loop turn, does the queue move, do the watches show what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

logger = logging.getLogger(__name__)

#: Returns what is wrong, or None.
Check = Callable[[], str | None]

_CHECKS: Final[web.AppKey[Sequence[Check]]] = web.AppKey("checks")
_LOOP_PERIOD: Final = 1.0


class Heartbeat:
    """Notices that the event loop was blocked: something in it that should have awaited didn't."""

    def __init__(self, *, most: float = 10.0) -> None:
        self._most = most
        self.worst = 0.0
        """The longest that the loop was blocked."""
        self._beat: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Beat until ``stop``."""
        loop = asyncio.get_running_loop()
        self._beat = loop.time()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOP_PERIOD)
            now = loop.time()
            late = now - self._beat - _LOOP_PERIOD
            if late > self._most:
                logger.warning("the event loop was blocked for %.1f s", late)
            self.worst = max(self.worst, late)
            self._beat = now

    def check(self) -> str | None:
        """Return how long ago the last beat was, if that is too long."""
        if self._beat is None:
            return "the event loop has not started"
        late = asyncio.get_running_loop().time() - self._beat - _LOOP_PERIOD
        return f"no heartbeat for {late:.0f} s" if late > self._most else None


async def _probe(request: web.Request) -> web.Response:
    wrong = [problem for check in request.app[_CHECKS] if (problem := check()) is not None]
    if wrong:
        return web.Response(status=503, text="".join(f"{problem}\n" for problem in wrong))
    return web.Response(text="ok\n")


def _probe_app(checks: Sequence[Check]) -> web.Application:
    app = web.Application()
    app[_CHECKS] = checks
    app.router.add_get("", _probe)
    return app


def health_app(*, live: Sequence[Check], ready: Sequence[Check]) -> web.Application:
    """Return the server of ``/healthz`` and ``/readyz``; what fails is in the answer, for people."""
    app = web.Application()
    app.add_subapp("/healthz", _probe_app(live))
    app.add_subapp("/readyz", _probe_app(ready))
    return app


def metrics_app(registry: CollectorRegistry) -> web.Application:
    """Return the server of ``/metrics``."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application, port: int, *, host: str = "0.0.0.0") -> AsyncIterator[int]:
    """Serve an application; yields the port (which 0 leaves to the system)."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()

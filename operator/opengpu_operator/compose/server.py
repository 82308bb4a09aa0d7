"""The translator process: reads strangers' files on behalf of the operator, over a unix socket.

It holds no token and no key and can be killed at any time: everything it knows is in its requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections import OrderedDict
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from opengpu_operator.api.translation import TranslateOptions
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.fetch import Fetcher, FetchError
from opengpu_operator.compose.kompose import Kompose, KomposeError, find
from opengpu_operator.settings import Settings

_LOGGER: Final = logging.getLogger(__name__)
DEADLINE_SECONDS: Final = 30.0
CONCURRENCY: Final = 4
_MAX_REQUEST: Final = 2 * 1024 * 1024
_CACHE_ENTRIES: Final = 256
_CACHE_CHARACTERS: Final = 16 * 1024 * 1024


class FetchRequest(BaseModel):
    """The body of /fetch."""

    model_config = ConfigDict(extra="forbid")

    url: str
    sha256: str | None = None


class TranslateRequest(BaseModel):
    """The body of /translate."""

    model_config = ConfigDict(extra="forbid")

    text: str
    options: TranslateOptions


class Translator:
    """Fetches and translates; translations are kept by what they depend on."""

    def __init__(self, *, fetcher: Fetcher, kompose: Kompose, concurrency: int = CONCURRENCY) -> None:
        self._fetcher = fetcher
        self._kompose = kompose
        self._slots = asyncio.Semaphore(concurrency)
        self._cache: OrderedDict[str, str] = OrderedDict()
        self._cached = 0

    async def fetch(self, request: FetchRequest) -> dict[str, str]:
        """Fetch a file."""
        fetched = await self._fetcher.fetch(request.url, sha256=request.sha256)
        return {"text": fetched.text, "digest": fetched.digest}

    async def translate(self, request: TranslateRequest) -> str:
        """Translate a file; returns JSON."""
        key = await self._key(request)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        async with self._slots:
            translation = await pipeline.translate(request.text, request.options, kompose=self._kompose)
        answer = translation.model_dump_json(by_alias=True)
        self._keep(key, answer)
        return answer

    def _keep(self, key: str, answer: str) -> None:
        """Keep an answer, and let go of the ones that were asked for least lately."""
        self._cached += len(answer) - len(self._cache.get(key, ""))
        self._cache[key] = answer
        while len(self._cache) > _CACHE_ENTRIES or self._cached > _CACHE_CHARACTERS:
            self._cached -= len(self._cache.popitem(last=False)[1])

    async def _key(self, request: TranslateRequest) -> str:
        """Return what a translation depends on: file, options, and the versions of what makes it."""
        parts = (
            pipeline.digest(request.text),
            json.dumps(request.options.model_dump(mode="json"), sort_keys=True),
            _own_version(),
            await self._kompose.version(),
        )
        return pipeline.digest("\n".join(parts))


_TRANSLATOR: Final = web.AppKey("translator", Translator)


def application(translator: Translator, *, deadline: float = DEADLINE_SECONDS) -> web.Application:
    """Return the HTTP application."""

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            async with asyncio.timeout(deadline):
                response: web.StreamResponse = await handler(request)
        except TimeoutError:
            return _error(504, "Deadline", "the request took too long", transient=True)
        except ValidationError as error:
            return _error(400, "BadRequest", f"the request has {error.error_count()} errors")
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _error(400, "BadRequest", "the request is no JSON")
        except FetchError as error:
            return _error(422, error.reason, error.message, transient=error.transient)
        except KomposeError as error:
            _LOGGER.warning("kompose failed: %s", error)
            return _error(502, "KomposeFailed", str(error), transient=error.transient)
        return response

    app = web.Application(middlewares=[guard], client_max_size=_MAX_REQUEST)
    app[_TRANSLATOR] = translator
    app.router.add_post("/fetch", _fetch)
    app.router.add_post("/translate", _translate)
    app.router.add_get("/healthz", _healthz)
    return app


def _own_version() -> str:
    try:
        return metadata.version("opengpu-operator")
    except metadata.PackageNotFoundError:
        # Run from a checkout: the process ends before the code changes.
        return "source"


def _error(status: int, reason: str, message: str, *, transient: bool = False) -> web.Response:
    return web.json_response({"error": message, "reason": reason, "transient": transient}, status=status)


async def _fetch(request: web.Request) -> web.Response:
    body = FetchRequest.model_validate_json(await request.read())
    return web.json_response(await request.app[_TRANSLATOR].fetch(body))


async def _translate(request: web.Request) -> web.Response:
    body = TranslateRequest.model_validate_json(await request.read())
    answer = await request.app[_TRANSLATOR].translate(body)
    return web.Response(text=answer, content_type="application/json")


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"ok": True})


@contextlib.asynccontextmanager
async def serving(
    socket: Path, translator: Translator, *, deadline: float = DEADLINE_SECONDS
) -> AsyncIterator[None]:
    """Serve on a socket until the block is left."""
    # A predecessor that was killed leaves its socket behind.
    socket.unlink(missing_ok=True)
    runner = web.AppRunner(application(translator, deadline=deadline), access_log=None)
    await runner.setup()
    try:
        before = os.umask(0o117)  # the operator is another user of the same group
        try:
            await web.UnixSite(runner, str(socket)).start()
        finally:
            os.umask(before)
        yield
    finally:
        await runner.cleanup()
        socket.unlink(missing_ok=True)


async def run(socket: Path, settings: Settings) -> None:
    """Serve until the process is told to stop."""
    translator = Translator(
        fetcher=Fetcher(allowed_hosts=settings.sources.allowed_hosts, allow_http=settings.sources.allow_http),
        kompose=Kompose(find()),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(socket, translator):
        _LOGGER.info("translating on %s", socket)
        await stop.wait()

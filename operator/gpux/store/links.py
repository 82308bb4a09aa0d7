"""Links: addresses that anybody can fetch one thing with, for a while. They are signed, and kept nowhere.

So a link can't be called back; it is never good for longer than the token of who made it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlencode

from aiohttp import web

from gpux import hashes, tokens
from gpux.store.body import read_object
from gpux.store.http import HttpError, reply
from gpux.store.routes import FILES, Context, route
from gpux.store.storage import Place
from gpux.store.transfer import Transfer

_LIMIT = 16 * 1024
_LONGEST_SECONDS = 7 * 24 * 3600


class LinkApi:
    """``POST /v1/links``, inside and outside."""

    def __init__(self, transfer: Transfer, *, key: Callable[[], bytes], url: str | None) -> None:
        """``url`` is the store's as seen from outside; None where there is no way in."""
        self._transfer = transfer
        self._key = key
        self._url = url
        self.routes = [route("links", "/v1/links", POST=(FILES, self._make))]

    async def _make(self, context: Context) -> web.StreamResponse:
        claims = context.claims
        if claims.scope == "job" and not claims.external:
            raise HttpError(403, "this task isn't open to the outside (spec.storage.external)")
        if self._url is None:
            raise HttpError(409, "this store isn't reachable from outside")
        body = await read_object(context.request, limit=_LIMIT)
        now = int(time.time())
        expires = min(now + _seconds(body.get("seconds")), claims.exp)
        match body:
            case {"hash": str(text)} if "task" not in body:
                path, bound = await self._to_file(context, text)
            case {"task": str(task), "path": str(place)} if "hash" not in body:
                path, bound = _to_storage(context, task, place)
            case _:
                raise HttpError(400, "either hash, or task and path, is needed")
        link = {"scope": "link", "namespace": context.namespace, "exp": expires, **bound}
        token = tokens.sign(self._key(), link)
        address = f"{self._url}{path}{'&' if '?' in path else '?'}{urlencode({'token': token})}"
        return reply({"url": address, "expires": expires}, status=201)

    async def _to_file(self, context: Context, text: str) -> tuple[str, dict[str, str]]:
        try:
            name = hashes.parse(text)
        except hashes.MalformedHashError as error:
            raise HttpError(400, str(error)) from None
        async with self._transfer.opened(context.namespace, name) as (blob, _):
            return f"/download_file/{blob.sha1}", {"hash": blob.sha1}


def _to_storage(context: Context, task: str, text: str) -> tuple[str, dict[str, str]]:
    if context.claims.scope == "operator":
        raise HttpError(403, "only a task's own tokens make links into its storage")
    if task != context.claims.task:
        raise HttpError(404, "no such job")
    place = Place.of_link(text)
    query = urlencode({"root": place.root, "path": place.path})
    return f"/api/job/storage/download/{task}?{query}", {"task": task, "path": place.in_link}


def _seconds(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LONGEST_SECONDS:
        raise HttpError(400, f"seconds must be a number from 1 to {_LONGEST_SECONDS}")
    return value

"""The port that is reached from outside the cluster: files by hash, as GPUX's nodes gave them out, but not to anybody.

Somebody without a token gets what was uploaded as public and learns of nothing else: what isn't there and what isn't
public are the same. A link is good for one thing. The tokens of agents and of the operator are nothing here, so that
one that leaked is of no use from outside. What is hosted is strangers' content: it is always a download, never a page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from gpux import tokens
from gpux.blobs import PUBLIC
from gpux.hashes import FileHash
from gpux.store.http import HttpError, reply
from gpux.store.routes import HASH, Context, route
from gpux.store.transfer import Transfer

_TOKEN: frozenset[tokens.Scope] = frozenset({"files"})
_TOKEN_OR_LINK: frozenset[tokens.Scope] = frozenset({"files", "link"})
_DOWNLOAD = "/download_file/"
#: Who has neither token nor link: a link to nothing.
_NOBODY = tokens.Claims("link", PUBLIC, "", 0)
_UNAUTHORISED = {"WWW-Authenticate": "Bearer"}

#: On every answer. No browser makes a page of it, runs anything of it, or tells others its address, which may have a
#: token in it; and no page of another site can read it: there is no CORS here, programs don't need it.
HEADERS = {
    # Kept by whom it was sent to, and asked for again each time: a token's check is not to be skipped.
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Outsider(web.BaseRequest):
    """A request from outside, whose every answer has the headers above, and is a file to keep if it is no JSON."""

    @classmethod
    def made(
        cls,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> Outsider:
        """Make one; what `web.Server` wants as a factory."""
        return cls(message, payload, protocol, writer, task, asyncio.get_running_loop())

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if response.content_type != "application/json":
            response.headers.setdefault("Content-Disposition", "attachment")


def outsider(key: Callable[[], bytes]) -> Callable[[web.BaseRequest], tokens.Claims]:
    """Authenticate somebody outside. ``key`` is asked anew for each request: it may be replaced."""

    def verified(token: str, scope: tokens.Scope) -> tokens.Claims:
        try:
            claims = tokens.verify(key(), token)
        except tokens.TokenError as error:
            raise HttpError(401, str(error), headers=_UNAUTHORISED) from None
        if claims.scope != scope:
            raise HttpError(401, "this token is for another purpose", headers=_UNAUTHORISED)
        return claims

    def authenticate(request: web.BaseRequest) -> tokens.Claims:
        path, _, query = request.raw_path.partition("?")
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return verified(token.strip(), "files")
        if link := _link(query):
            return verified(link, "link")
        if path.startswith(_DOWNLOAD):
            return _NOBODY
        raise HttpError(401, "a bearer token or a link is needed", headers=_UNAUTHORISED)

    return authenticate


def _link(query: str) -> str:
    try:
        return parse_qs(query, max_num_fields=16).get("token", [""])[-1]
    except ValueError:
        raise HttpError(400, "the query is malformed") from None


class ExternalApi:
    """GPUX's two old paths."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self.routes = [
            route(
                "download",
                f"{_DOWNLOAD}{HASH}",
                GET=(_TOKEN_OR_LINK, self._download),
                HEAD=(_TOKEN_OR_LINK, self._download),
            ),
            route("upload", "/upload_file/?", POST=(_TOKEN, self._upload), PUT=(_TOKEN, self._upload)),
        ]

    async def _download(self, context: Context) -> web.StreamResponse:
        name = context.hash
        for namespace in _places(context.claims, name):
            found = await self._transfer.in_thread(partial(self._transfer.blobs.open, namespace, name))
            if found is not None:
                blob, content = found
                try:
                    return await self._transfer.send(context.request, blob, content)
                finally:
                    content.close()
        raise HttpError(404, "no such file")

    async def _upload(self, context: Context) -> web.StreamResponse:
        blob, new = await self._transfer.receive(context.request, context.keeper)
        return reply(blob.document(), status=201 if new else 200)


def _places(claims: tokens.Claims, name: FileHash) -> list[str]:
    """Return the namespaces in which somebody may look for a file."""
    if claims.scope == "files":
        return [claims.namespace, PUBLIC]
    if claims.hash is not None:
        return [claims.namespace] if name == FileHash("sha1", claims.hash) else []
    # Nobody in particular, or a link to something that is no file.
    return [PUBLIC]

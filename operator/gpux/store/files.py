"""The part of the API for single files: stored, listed, read by their hash."""

from __future__ import annotations

from aiohttp import web

from gpux.blobs import is_reference
from gpux.store.http import HttpError, reply
from gpux.store.routes import FILES, HASH, Context, number, route
from gpux.store.transfer import Transfer

_LONGEST_LIST = 1000


class FileApi:
    """The routes below ``/v1/files``."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self.routes = [
            route(
                "files",
                "/v1/files/?",
                GET=(FILES, self._list),
                POST=(FILES, self._store),
                PUT=(FILES, self._store),
            ),
            route("file", f"/v1/files/{HASH}", GET=(FILES, self._read), HEAD=(FILES, self._read)),
        ]

    async def _store(self, context: Context) -> web.StreamResponse:
        blob, new = await self._transfer.receive(context.request, context.keeper)
        return reply(blob.document(), status=201 if new else 200)

    async def _read(self, context: Context) -> web.StreamResponse:
        name = context.hash
        async with self._transfer.opened(context.namespace, name) as (blob, content):
            return await self._transfer.send(context.request, blob, content)

    async def _list(self, context: Context) -> web.StreamResponse:
        namespace = context.namespace
        references = _references(context)
        after = context.query.get("after", "")
        limit = min(number(context.query, "limit", default=100), _LONGEST_LIST)
        entries = await self._transfer.in_thread(
            lambda: self._transfer.blobs.entries(namespace, references=references, after=after, limit=limit)
        )
        return reply({"namespace": namespace, "files": [entry.document() for entry in entries]})


def _references(context: Context) -> list[str] | None:
    """What the entries of a list must be referred to by: any of these, or None for all entries.

    A task or owner that is asked for is it; a job sees what is its own or its owner's. Raises HttpError.
    """
    claims = context.claims
    asked = [f"{kind}:{context.query[kind]}" for kind in ("task", "owner") if kind in context.query]
    if not all(is_reference(reference) for reference in asked):
        raise HttpError(400, "no task or owner can have this name")
    if claims.scope == "operator":
        return asked or None
    own = [f"task:{claims.task}"] + ([f"owner:{claims.owner}"] if claims.owner is not None else [])
    if not set(asked) <= set(own):
        raise HttpError(403, "the token lists the files of its own task and owner only")
    return asked or own

"""A job's own storage, ``/gpux_job`` and its owner's ``/gpux_usr``: asked for outside, brought by the job's agent.

Nothing of it is kept here. It is there as long as the job's pod runs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import NamedTuple

from aiohttp import web

from gpux import tokens
from gpux.store.http import HttpError, reply
from gpux.store.pulls import Delivery, Pulls, Task
from gpux.store.routes import TASK, Context, number, route

_AGENTS: frozenset[tokens.Scope] = frozenset({"job"})
_TOKEN: frozenset[tokens.Scope] = frozenset({"files"})
_TOKEN_OR_LINK: frozenset[tokens.Scope] = frozenset({"files", "link"})
_JOB = r"(?P<job>[A-Za-z0-9][A-Za-z0-9-]{0,63})"
_LONGEST_WAIT = 60
_PATH_LIMIT = 4096
_PIECE_SECONDS = 60.0
_ROOTS = ("job", "usr")


class Place(NamedTuple):
    """A place in a job's storage."""

    root: str
    """job or usr."""
    path: str

    @classmethod
    def of(cls, root: str, path: str) -> Place:
        """Check a place. Raises HttpError; what is there the agent sees, which checks the path once more."""
        if root not in _ROOTS:
            raise HttpError(400, f"the root must be {' or '.join(_ROOTS)}")
        try:
            length = len(path.encode())
        except UnicodeEncodeError:
            length = _PATH_LIMIT + 1
        if length > _PATH_LIMIT or "\0" in path:
            raise HttpError(400, "the path is malformed")
        if not {".", ".."}.isdisjoint(path.split("/")):
            raise HttpError(400, "a path has no . or .. in it")
        return cls(root, path.strip("/"))

    @classmethod
    def of_link(cls, text: str) -> Place:
        """Read a place as a link has it: the root, a slash and the path."""
        root, _, path = text.partition("/")
        return cls.of(root, path)

    @property
    def in_link(self) -> str:
        """The place as a link has it."""
        return f"{self.root}/{self.path}"


class PullApi:
    """The agents' side, inside the cluster."""

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls
        self.routes = [
            route("pulls", f"/v1/pulls/{TASK}", GET=(_AGENTS, self._next)),
            route("pull", rf"/v1/pulls/{TASK}/(?P<pull>[0-9a-f]{{32}})", PUT=(_AGENTS, self._deliver)),
        ]

    async def _next(self, context: Context) -> web.StreamResponse:
        seconds = float(min(number(context.query, "wait"), _LONGEST_WAIT))
        question = await self._pulls.next(_own(context), context.request, seconds=seconds)
        return web.Response(status=204) if question is None else reply(question._asdict())

    async def _deliver(self, context: Context) -> web.StreamResponse:
        error = context.query.get("error", "")
        return await self._pulls.deliver(_own(context), context.path["pull"], context.request, error=error)


def _own(context: Context) -> Task:
    if not context.claims.external:
        raise HttpError(403, "this task isn't open to the outside (spec.storage.external)")
    return Task(context.claims.namespace, context.claims.task)


class StorageApi:
    """The side of those who ask, outside."""

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls
        base = "/api/job/storage"
        self.routes = [
            route("storage-list", f"{base}/list/{_JOB}/?", GET=(_TOKEN, self._list)),
            route("storage", f"{base}/download/{_JOB}/?", GET=(_TOKEN_OR_LINK, self._download)),
        ]

    async def _list(self, context: Context) -> web.StreamResponse:
        return await self._pass(context, "list")

    async def _download(self, context: Context) -> web.StreamResponse:
        return await self._pass(context, "get")

    async def _pass(self, context: Context, kind: str) -> web.StreamResponse:
        claims = context.claims
        place = Place.of(context.query.get("root", "job"), context.query.get("path", ""))
        # The same for what isn't there and what isn't theirs.
        theirs = is_job(context.path["job"], claims.task)
        if not theirs or (claims.scope == "link" and claims.path != place.in_link):
            raise HttpError(404, "no such job")
        task = Task(claims.namespace, claims.task)
        async with self._pulls.ask(task, root=place.root, path=place.path, kind=kind) as delivery:
            return await _pass_on(context.request, delivery)


async def _pass_on(request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
    headers = {"Content-Type": delivery.kind}
    if delivery.kind != "application/json":
        headers["Content-Disposition"] = "attachment"
    if delivery.length is not None:
        headers["Content-Length"] = str(delivery.length)
    response = web.StreamResponse(headers=headers)
    if delivery.length is None:
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for chunk in delivery.chunks:
            async with asyncio.timeout(_PIECE_SECONDS):
                await response.write(chunk)
    except (HttpError, TimeoutError):
        # The agent broke off, or the reader stalls: what has come must not look like all of it.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the download broke off") from None
    await response.write_eof()
    return response


def is_job(text: str, uid: str) -> bool:
    """Whether a text names the task: by its UID, or by its job id, which ends in a hash of the UID."""
    if text == uid:
        return True
    try:
        raw = base64.b32hexdecode(text.upper())
    except (binascii.Error, ValueError):
        return False
    return len(raw) == 10 and raw[6:] == hashlib.sha256(uid.encode()).digest()[:4]

"""The store's HTTP API.

Built on aiohttp's low-level server: the routes are few, their paths are matched as sent (no decoding that could turn
one name into another), and nothing stands between the socket and a handler that waits or streams.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple, TypeAlias
from urllib.parse import parse_qs

from aiohttp import web

from gpux import hashes, tokens
from gpux.blobs import Blob, Blobs, HashConflictError, StorageFullError
from gpux.calls import REPORTED, CallBook, CallConflictError, CallNotFoundError, CallRequest
from gpux.jsontext import is_json
from gpux.log import log
from gpux.store.http import HttpError, body_chunks, byte_range, check_length, has_etag, read_object, reply
from gpux.store.metrics import Metrics
from gpux.store.uploads import Slots, receive

#: Answers up to this size are repeated in the call's record.
INLINE_LIMIT = 8 * 1024
ANSWER_LIMIT = 16 << 20
CALL_LIMIT = 1 << 20
_SMALL_LIMIT = 16 * 1024
_LONGEST_WAIT = 60.0
_SMALL_FILE = 64 * 1024
"""Files up to this size are read at once; larger ones go from the page cache to the socket by the kernel."""
_PIECE = 8 << 20
_PIECE_SECONDS = 120.0
"""Eight megabytes in two minutes: a reader slower than that has gone."""

_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ADDRESS = re.compile(r"[A-Za-z0-9_-]{1,128}")
_POD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TASK = r"(?P<task>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"
_ATTEMPT = r"(?P<attempt>[1-9][0-9]{0,6})"


class Context(NamedTuple):
    """One request, after its token was checked."""

    request: web.BaseRequest
    claims: tokens.Claims
    path: Mapping[str, str]
    query: Mapping[str, str]

    @property
    def tenant(self) -> str | None:
        """The namespace that the token is confined to; None for an operator's."""
        return self.claims.namespace if self.claims.scope == "job" else None


Handler: TypeAlias = Callable[[Context], Awaitable[web.StreamResponse]]


class _Route(NamedTuple):
    name: str
    path: re.Pattern[str]
    methods: Mapping[str, tuple[str, Handler]]
    """Method → (who: any | operator, handler)."""


class Limits(NamedTuple):
    """What one store takes on."""

    file_bytes: int = 1 << 40
    uploads: int = 16
    uploads_per_namespace: int = 8


class Store:
    """The handlers, over a backend of files and a book of calls."""

    def __init__(
        self,
        *,
        blobs: Blobs,
        calls: CallBook,
        key: Callable[[], bytes],
        executor: ThreadPoolExecutor,
        limits: Limits = Limits(),  # noqa: B008 immutable
    ) -> None:
        """``key`` is asked anew for each request, so that it may be replaced."""
        self._blobs = blobs
        self._calls = calls
        self._key = key
        self._executor = executor
        self._limits = limits
        self._slots = Slots(total=limits.uploads, per_namespace=limits.uploads_per_namespace)
        self.metrics = Metrics(free_bytes=blobs.free_bytes, calls=calls.counts)
        file, call = r"/v1/files", r"/v1/calls"
        table: list[tuple[str, str, dict[str, tuple[str, Handler]]]] = [
            ("files", f"{file}/?", {"POST": ("any", self._post_file), "PUT": ("any", self._post_file)}),
            (
                "file",
                rf"{file}/(?P<hash>[A-Za-z0-9._-]{{1,200}})",
                {"GET": ("any", self._get_file), "HEAD": ("any", self._get_file)},
            ),
            ("calls", call, {"GET": ("operator", self._list_calls)}),
            ("changes", r"/v1/changes", {"GET": ("operator", self._changes)}),
            (
                "task",
                f"{call}/{_TASK}",
                {"GET": ("any", self._next_call), "DELETE": ("operator", self._delete_calls)},
            ),
            (
                "attempt",
                f"{call}/{_TASK}/{_ATTEMPT}",
                {"GET": ("operator", self._get_call), "PUT": ("operator", self._put_call)},
            ),
            ("claim", f"{call}/{_TASK}/{_ATTEMPT}/claim", {"POST": ("any", self._claim)}),
            ("state", f"{call}/{_TASK}/{_ATTEMPT}/state", {"POST": ("any", self._report)}),
            ("answer", f"{call}/{_TASK}/{_ATTEMPT}/answer", {"PUT": ("any", self._answer)}),
        ]
        self._routes = [_Route(name, re.compile(path), methods) for name, path, methods in table]

    # ------------------------------------------------------------------------------------------------ dispatch

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
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 one request's failure is not the server's
            log("error", "a request failed", route=name, error=repr(error))
            response = reply({"error": "internal error"}, status=500)
        method = request.method if route and request.method in route.methods else "other"
        self.metrics.requests.labels(name, method, str(response.status)).inc()
        if "wait" not in query:
            self.metrics.seconds.labels(name, method).observe(time.monotonic() - started)
        return response

    def _match(self, path: str) -> tuple[_Route | None, Mapping[str, str]]:
        for route in self._routes:
            if found := route.path.fullmatch(path):
                return route, found.groupdict()
        return None, {}

    async def _handle(
        self, request: web.BaseRequest, route: _Route | None, path: Mapping[str, str], query: str
    ) -> web.StreamResponse:
        # Before anything else, so that a stranger can't tell what exists from what doesn't.
        claims = self._authenticate(request)
        if route is None:
            raise HttpError(404, "no such path")
        if request.method not in route.methods:
            allowed = ", ".join(sorted(route.methods))
            raise HttpError(405, f"allowed: {allowed}", headers={"Allow": allowed})
        who, handler = route.methods[request.method]
        if claims.scope != "operator" and (who == "operator" or path.get("task", claims.task) != claims.task):
            raise HttpError(403, "the token doesn't reach this")
        values = {name: found[-1] for name, found in parse_qs(query, max_num_fields=16).items()}
        return await handler(Context(request, claims, path, values))

    def _authenticate(self, request: web.BaseRequest) -> tokens.Claims:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise HttpError(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        try:
            return tokens.verify(self._key(), token.strip())
        except tokens.TokenError as error:
            raise HttpError(401, str(error), headers={"WWW-Authenticate": "Bearer"}) from None

    # ------------------------------------------------------------------------------------------------ files

    def _namespace(self, context: Context) -> str:
        asked = context.query.get("namespace", context.claims.namespace)
        if context.tenant not in {None, asked}:
            raise HttpError(403, "the token doesn't reach this namespace")
        if not _NAMESPACE.fullmatch(asked):
            raise HttpError(400, "a namespace is needed")
        return asked

    async def _post_file(self, context: Context) -> web.StreamResponse:
        blob, new = await self._receive(
            context.request, self._namespace(context), limit=self._limits.file_bytes
        )
        return reply(blob.document(), status=201 if new else 200)

    async def _receive(self, request: web.BaseRequest, namespace: str, *, limit: int) -> tuple[Blob, bool]:
        check_length(request, limit=limit)
        async with self._slots.take(namespace):
            with self.metrics.uploads.track_inprogress():
                return await receive(
                    body_chunks(request, limit=limit),
                    blobs=self._blobs,
                    namespace=namespace,
                    size=request.content_length,
                    executor=self._executor,
                    count=self.metrics.received.inc,
                )

    async def _get_file(self, context: Context) -> web.StreamResponse:
        namespace = self._namespace(context)
        try:
            name = hashes.parse(context.path["hash"])
        except hashes.MalformedHashError as error:
            raise HttpError(400, str(error)) from None
        opened = await self._in_thread(lambda: self._blobs.open(namespace, name))
        if opened is None:
            raise HttpError(404, "no such file")
        blob, content = opened
        try:
            return await self._send(context.request, blob, content)
        finally:
            content.close()

    async def _send(self, request: web.BaseRequest, blob: Blob, content: BinaryIO) -> web.StreamResponse:
        etag = f'"{blob.sha256}"'
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "ETag": etag,
            "X-Content-Type-Options": "nosniff",
        }
        if has_etag(request.headers.get("If-None-Match", ""), etag):
            return web.Response(status=304, headers=headers)
        wanted = byte_range(request, size=blob.size, etag=etag)
        start, end = wanted or (0, blob.size)
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        status = 206 if wanted else 200
        if request.method != "HEAD" and end - start <= _SMALL_FILE:
            body = await self._in_thread(lambda: _read_exactly(content, start, end - start))
            self.metrics.sent.inc(len(body))
            return web.Response(body=body, status=status, headers=headers)
        headers["Content-Length"] = str(end - start)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            await self._sendfile(request, content, start, end)
        await response.write_eof()
        return response

    async def _sendfile(self, request: web.BaseRequest, content: BinaryIO, start: int, end: int) -> None:
        loop = asyncio.get_running_loop()
        while start < end:
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the reader has gone")
            count = min(_PIECE, end - start)
            try:
                async with asyncio.timeout(_PIECE_SECONDS):
                    await loop.sendfile(transport, content, start, count)
            except TimeoutError:
                transport.abort()
                raise ConnectionResetError("the reader stalled") from None
            self.metrics.sent.inc(count)
            start += count

    # ------------------------------------------------------------------------------------------------ calls

    async def _put_call(self, context: Context) -> web.StreamResponse:
        body = await read_object(context.request, limit=CALL_LIMIT)
        match body:
            case {
                "namespace": str(namespace),
                "function": str(function),
                "address": str(address),
                "data": data,
            }:
                pass
            case _:
                raise HttpError(400, "namespace, function, address and data are needed")
        deadline = body.get("deadline")
        if not isinstance(deadline, int | float | None) or isinstance(deadline, bool):
            raise HttpError(400, "the deadline is not a number of seconds")
        if not (
            _NAMESPACE.fullmatch(namespace) and _FUNCTION.fullmatch(function) and _ADDRESS.fullmatch(address)
        ):
            raise HttpError(400, "the namespace, function or address is malformed")
        new = await self._calls.put(
            CallRequest(
                namespace=namespace,
                task=context.path["task"],
                attempt=int(context.path["attempt"]),
                function=function,
                address=address,
                deadline=deadline,
                data=data,
            )
        )
        return reply({}, status=201 if new else 200)

    async def _next_call(self, context: Context) -> web.StreamResponse:
        seconds, after = _wait(context.query), _number(context.query, "after")
        with self.metrics.waiting.track_inprogress():
            call = await self._calls.wait_for_task(
                context.path["task"], namespace=context.tenant, after=after, seconds=seconds
            )
        if call is None:
            return web.Response(status=204)
        return reply(
            {
                "attempt": call.attempt,
                "function": call.function,
                "address": call.address,
                "data": await self._calls.data(call),
                "deadline": call.deadline,
                "state": call.state,
                "claimedBy": call.claimed_by,
            }
        )

    async def _claim(self, context: Context) -> web.StreamResponse:
        body = await read_object(context.request, limit=_SMALL_LIMIT)
        pod = body.get("pod")
        if not isinstance(pod, str) or not _POD.fullmatch(pod):
            raise HttpError(400, "a pod is needed")
        call = await self._calls.claim(*_attempt(context), namespace=context.tenant, pod=pod)
        return reply({"state": call.state, "claimedBy": call.claimed_by})

    async def _report(self, context: Context) -> web.StreamResponse:
        body = await read_object(context.request, limit=_SMALL_LIMIT)
        state, status, detail = body.get("state"), body.get("status"), body.get("detail")
        if not isinstance(state, str) or state not in REPORTED:
            raise HttpError(400, f"the state must be one of {', '.join(sorted(REPORTED))}")
        if not isinstance(status, int | None) or not isinstance(detail, str | None):
            raise HttpError(400, "status must be a number and detail a text")
        call = await self._calls.report(
            *_attempt(context),
            namespace=context.tenant,
            state=state,
            status=status,
            detail=detail,
            sent_at=_timestamp(body.get("sentAt"), "sentAt"),
        )
        return reply({"state": call.state})

    async def _answer(self, context: Context) -> web.StreamResponse:
        task, attempt = _attempt(context)
        answered_at = _answered_at(context.query)
        call = self._calls.get(task, attempt, namespace=context.tenant)
        blob, _ = await self._receive(context.request, call.namespace, limit=ANSWER_LIMIT)
        if not await self._in_thread(lambda: self._is_json(call.namespace, blob)):
            raise HttpError(400, "the answer is not JSON")
        new = await self._calls.answer(
            task, attempt, namespace=context.tenant, answer=blob, answered_at=answered_at
        )
        return reply(
            {"sha1": blob.sha1, "sha256": blob.sha256, "size": blob.size}, status=201 if new else 200
        )

    async def _get_call(self, context: Context) -> web.StreamResponse:
        call = self._calls.get(*_attempt(context))
        document = call.document()
        answer = call.answer
        if answer is not None and answer.size <= INLINE_LIMIT:
            document["answer"]["inline"] = await self._in_thread(lambda: self._inline(call.namespace, answer))
        return reply(document)

    async def _list_calls(self, _: Context) -> web.StreamResponse:
        return reply([call.brief() for call in self._calls.all()])

    async def _changes(self, context: Context) -> web.StreamResponse:
        after, seconds = _number(context.query, "after"), _wait(context.query)
        with self.metrics.waiting.track_inprogress():
            last, changes = await self._calls.wait_for_changes(
                after, epoch=context.query.get("epoch"), seconds=seconds
            )
        listed = [{"seq": change.seq, **change.call.brief()} for change in changes]
        return reply({"epoch": self._calls.epoch, "last": last, "changes": listed})

    async def _delete_calls(self, context: Context) -> web.StreamResponse:
        await self._calls.delete(context.path["task"])
        return web.Response(status=204)

    # ------------------------------------------------------------------------------------------------ in threads

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def _is_json(self, namespace: str, blob: Blob) -> bool:
        opened = self._blobs.open(namespace, hashes.FileHash("sha256", blob.sha256))
        if opened is None or not blob.size:
            return False
        with opened[1] as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return is_json(text)

    def _inline(self, namespace: str, blob: Blob) -> Any:
        opened = self._blobs.open(namespace, hashes.FileHash("sha256", blob.sha256))
        if opened is None:
            return None
        with opened[1] as content:
            return json.loads(_read_exactly(content, 0, blob.size))


def _read_exactly(content: BinaryIO, start: int, count: int) -> bytes:
    content.seek(start)
    pieces = []
    while count and (piece := content.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _attempt(context: Context) -> tuple[str, int]:
    return context.path["task"], int(context.path["attempt"])


def _wait(query: Mapping[str, str]) -> float:
    return float(min(_number(query, "wait"), _LONGEST_WAIT))


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "0")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise HttpError(400, f"{name} is not a number")
    return int(text)


def _answered_at(query: Mapping[str, str]) -> str | None:
    try:
        return _timestamp(float(query["answeredAt"]) if "answeredAt" in query else None, "answeredAt")
    except ValueError:
        raise HttpError(400, "answeredAt is not a number of seconds") from None


def _timestamp(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1 << 36:
        raise HttpError(400, f"{name} is not a number of seconds")
    return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds")

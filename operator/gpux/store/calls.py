"""The part of the API for calls: put by the operator, taken and answered by agents."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gpux.blobs import Blob, is_namespace
from gpux.calls import REPORTED, CallRequest, Calls
from gpux.hashes import FileHash
from gpux.jsontext import is_json
from gpux.store.body import read_object
from gpux.store.http import HttpError, reply
from gpux.store.routes import JOBS, OPERATOR, TASK, Context, keeper, number, route
from gpux.store.transfer import Transfer
from gpux.store.uploads import Slots

#: Answers up to this size are repeated in the call's record.
INLINE_LIMIT = 8 * 1024
ANSWER_LIMIT = 16 << 20
CALL_LIMIT = 1 << 20
_ANSWERS = 4
"""Answers on their way in at once, apart from files: no upload keeps an answer out."""
_SMALL_LIMIT = 16 * 1024
_LONGEST_WAIT = 60.0

_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ADDRESS = re.compile(r"[A-Za-z0-9_-]{1,128}")
_POD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ATTEMPT = r"(?P<attempt>[1-9][0-9]{0,6})"


class CallApi:
    """The routes below ``/v1/calls``, and ``/v1/changes``."""

    def __init__(self, calls: Calls, transfer: Transfer) -> None:
        self._calls = calls
        self._transfer = transfer
        self._slots = Slots(total=_ANSWERS, per_namespace=_ANSWERS // 2)
        task = f"/v1/calls/{TASK}"
        attempt = f"{task}/{_ATTEMPT}"
        self.routes = [
            route("calls", "/v1/calls", GET=(OPERATOR, self._list_calls)),
            route("changes", "/v1/changes", GET=(OPERATOR, self._changes)),
            route("task", task, GET=(JOBS, self._next_call), DELETE=(OPERATOR, self._delete_calls)),
            route("attempt", attempt, GET=(OPERATOR, self._get_call), PUT=(OPERATOR, self._put_call)),
            route("claim", f"{attempt}/claim", POST=(JOBS, self._claim)),
            route("state", f"{attempt}/state", POST=(JOBS, self._report)),
            route("answer", f"{attempt}/answer", PUT=(JOBS, self._answer)),
        ]

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
        if not (is_namespace(namespace) and _FUNCTION.fullmatch(function) and _ADDRESS.fullmatch(address)):
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
        seconds, after = _wait(context.query), number(context.query, "after")
        with self._transfer.metrics.waiting.track_inprogress():
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
        call = await self._calls.fetch(task, attempt, namespace=context.tenant)
        held = context.keeper if context.tenant else keeper(call.namespace, {f"task:{task}": None})
        # It counts, but no quota keeps it out: the agent would bring it until the task's time is over.
        kept = held._replace(references=dict.fromkeys(held.references))
        blob, _ = await self._transfer.receive(context.request, kept, limit=ANSWER_LIMIT, slots=self._slots)
        if not await self._transfer.in_thread(lambda: self._is_json(call.namespace, blob)):
            raise HttpError(400, "the answer is not JSON")
        new = await self._calls.answer(
            task, attempt, namespace=context.tenant, answer=blob, answered_at=answered_at
        )
        return reply(
            {"sha1": blob.sha1, "sha256": blob.sha256, "size": blob.size}, status=201 if new else 200
        )

    async def _get_call(self, context: Context) -> web.StreamResponse:
        call = await self._calls.fetch(*_attempt(context))
        document = call.document()
        answer = call.answer
        if answer is not None and answer.size <= INLINE_LIMIT:
            document["answer"]["inline"] = await self._transfer.in_thread(
                lambda: self._inline(call.namespace, answer)
            )
        return reply(document)

    async def _list_calls(self, _: Context) -> web.StreamResponse:
        return reply([call.brief() for call in await self._calls.fetch_all()])

    async def _changes(self, context: Context) -> web.StreamResponse:
        after, seconds = number(context.query, "after"), _wait(context.query)
        with self._transfer.metrics.waiting.track_inprogress():
            last, changes = await self._calls.wait_for_changes(
                after, epoch=context.query.get("epoch"), seconds=seconds
            )
        listed = [{"seq": change.seq, **change.call.brief()} for change in changes]
        return reply({"epoch": self._calls.epoch, "last": last, "changes": listed})

    async def _delete_calls(self, context: Context) -> web.StreamResponse:
        await self._calls.delete(context.path["task"])
        return web.Response(status=204)

    def _is_json(self, namespace: str, blob: Blob) -> bool:
        opened = self._transfer.blobs.open(namespace, FileHash("sha256", blob.sha256))
        if opened is None or not blob.size:
            return False
        content = opened[1]
        try:
            file = content.file()
            if file is None:
                return is_json(b"".join(content.read(0, blob.size)))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return is_json(text)
        finally:
            content.close()

    def _inline(self, namespace: str, blob: Blob) -> Any:
        opened = self._transfer.blobs.open(namespace, FileHash("sha256", blob.sha256))
        if opened is None:
            return None
        try:
            return json.loads(b"".join(opened[1].read(0, blob.size)))
        finally:
            opened[1].close()


def _attempt(context: Context) -> tuple[str, int]:
    return context.path["task"], int(context.path["attempt"])


def _wait(query: Mapping[str, str]) -> float:
    return float(min(number(query, "wait"), _LONGEST_WAIT))


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

"""The way from outside into a job's storage: questions wait here for the job's agent, whose bytes pass through.

So a job's pod has no open port, and the store keeps nothing of what passes. All of it is in memory: who waits when the
store ends asks again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

from gpux.store.body import Body, read_object
from gpux.store.http import HttpError, reply

#: How long the agent may take to come with what was asked for. One that lives comes at once.
_DELIVERY_SECONDS = 15.0
_WAITING_PER_TASK = 16
_MESSAGE_LIMIT = 4096
_KINDS = {"application/x-tar", "application/octet-stream", "application/json"}
_REFUSALS = {400, 403, 404, 409}
_ABSENT = "the job's pod doesn't answer: it isn't running, or its storage isn't open to the outside"


class Task(NamedTuple):
    """Whose storage it is."""

    namespace: str
    uid: str


class Question(NamedTuple):
    """What is wanted, as the agent is told."""

    id: str
    root: str
    path: str
    kind: str


class Delivery(NamedTuple):
    """What the agent has come with."""

    kind: str
    """The content's type, one of a few."""
    length: int | None
    chunks: AsyncIterator[bytes]


class _Asked(NamedTuple):
    task: Task
    question: Question
    delivery: asyncio.Future[Delivery]
    over: asyncio.Event
    """Set when nobody needs the agent's bytes any more."""


class _Poll(NamedTuple):
    request: web.BaseRequest
    question: asyncio.Future[Question]

    @property
    def alive(self) -> bool:
        transport = self.request.transport
        return not self.question.done() and transport is not None and not transport.is_closing()


class Pulls:
    """The questions that are open."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}
        self._queued: dict[Task, deque[Question]] = {}
        self._polls: dict[Task, list[_Poll]] = {}

    @asynccontextmanager
    async def ask(self, task: Task, *, root: str, path: str, kind: str) -> AsyncIterator[Delivery]:
        """Wait for what the agent brings, and hold on to it. Raises HttpError."""
        if sum(asked.task == task for asked in self._asked.values()) >= _WAITING_PER_TASK:
            raise HttpError(503, "too many downloads of this job at once", headers={"Retry-After": "10"})
        question = Question(secrets.token_hex(16), root, path, kind)
        asked = _Asked(task, question, asyncio.get_running_loop().create_future(), asyncio.Event())
        self._asked[question.id] = asked
        try:
            self._hand_out(task, question)
            try:
                async with asyncio.timeout(_DELIVERY_SECONDS):
                    delivery = await asked.delivery
            except TimeoutError:
                raise HttpError(503, _ABSENT, headers={"Retry-After": "5"}) from None
            yield delivery
        finally:
            asked.over.set()
            del self._asked[question.id]
            if question in (queue := self._queued.get(task, deque())):
                queue.remove(question)
                if not queue:
                    del self._queued[task]

    def _hand_out(self, task: Task, question: Question) -> None:
        # The newest first: an agent that died leaves polls behind that nobody reads.
        for poll in reversed(self._polls.get(task, [])):
            if poll.alive:
                poll.question.set_result(question)
                return
        self._queued.setdefault(task, deque()).append(question)

    async def next(self, task: Task, request: web.BaseRequest, *, seconds: float) -> Question | None:
        """Wait for a question about a task's storage; None if there is none for so long."""
        if queue := self._queued.get(task):
            question = queue.popleft()
            if not queue:
                del self._queued[task]
            return question
        poll = _Poll(request, asyncio.get_running_loop().create_future())
        polls = self._polls.setdefault(task, [])
        polls.append(poll)
        try:
            await asyncio.wait((poll.question,), timeout=seconds)
            return poll.question.result() if poll.question.done() else None
        finally:
            polls.remove(poll)
            if not polls:
                del self._polls[task]

    async def deliver(self, task: Task, name: str, request: web.BaseRequest, *, error: str) -> web.Response:
        """Take what an agent brings, until the one who asked has it or has gone. Raises HttpError."""
        asked = self._asked.get(name)
        if asked is None or asked.task != task or asked.delivery.done():
            raise HttpError(404, "nobody waits for this")
        if error:
            refusal = await _refusal(request, error)
            if not asked.delivery.done():
                asked.delivery.set_exception(refusal)
            return reply({})
        if request.content_type not in _KINDS:
            raise HttpError(400, "the content's type is none that is passed on")
        ended = asyncio.Event()
        asked.delivery.set_result(
            Delivery(request.content_type, request.content_length, _until_end(request, ended))
        )
        await asked.over.wait()
        return reply({}) if ended.is_set() else reply({"error": "nobody reads this any more"}, status=410)


async def _until_end(request: web.BaseRequest, ended: asyncio.Event) -> AsyncIterator[bytes]:
    async for chunk in Body(request).chunks(limit=1 << 62):
        yield bytes(chunk)
    ended.set()


async def _refusal(request: web.BaseRequest, error: str) -> HttpError:
    status = int(error) if error.isascii() and error.isdigit() else 0
    if status not in _REFUSALS:
        raise HttpError(400, "the error is none that is passed on")
    message = (await read_object(request, limit=_MESSAGE_LIMIT)).get("error")
    return HttpError(status, message if isinstance(message, str) else "the agent refuses this")

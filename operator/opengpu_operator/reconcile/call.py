"""The call of a task: offered to the agents, followed attempt by attempt, and its answer written down.

Everything that is known of an attempt is the store's record of it; what to make of that is decided in ``attempt``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from gpux.client import StoreRefused, StoreUnavailable
from opengpu_operator.api.conditions import timestamp
from opengpu_operator.api.errors import Invalid, Transient, Waiting
from opengpu_operator.api.jobid import task_address
from opengpu_operator.api.labels import TASK_UID
from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.source import DeliveryMethod, Source
from opengpu_operator.api.task import (
    DATA_LIMIT,
    INLINE_LIMIT,
    Response,
    Task,
    TaskStatus,
    TaskStatusName,
    Times,
)
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import CONFIG_MAP, POD, SOURCE
from opengpu_operator.reconcile import attempt, expiry
from opengpu_operator.reconcile.calls import Calls
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.settings import Settings

#: Data of a call, from wherever it comes.
CALL_LIMIT = 1024 * 1024
#: How long after a task's end the store is asked whether there was an answer in time.
STORE_PATIENCE = timedelta(minutes=10)
#: How often it is asked meanwhile.
STORE_RETRY = 10.0
#: How often a file that isn't in the store yet is looked for, which nothing tells us of.
DATA_RETRY = 10.0
#: What is concluded about an attempt, as opposed to waited for.
_CONCLUSIONS = {attempt.Step.FAIL, attempt.Step.RETRY, attempt.Step.CONFIRM_LOSS}
#: How the store refuses what a user wrote.
_USERS = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}


@dataclass(frozen=True, kw_only=True)
class End:
    """How a task ends."""

    reason: Reason
    message: str
    failed: bool = False


class CallSteps:
    """The steps of a task's call. Holds no state that a restart could lose."""

    def __init__(
        self,
        *,
        settings: Settings,
        gateway: Gateway,
        cache: Cache,
        calls: Calls,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._cache = cache
        self._calls = calls
        self._clock = clock

    async def follow(
        self, task: Task, draft: Draft[TaskStatus], own_pods: Sequence[Mapping[str, Any]]
    ) -> float | End | None:
        """Take the call's next step; return how the task ends, or when to look again."""
        try:
            return await self._attempt(task, draft, own_pods)
        except StoreUnavailable as error:
            # Nothing is concluded from silence: the call stays as it is, and so does what is known of it.
            raise Transient(Reason.STORE_UNAVAILABLE, str(error)) from error
        except StoreRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                self._calls.lost(task.metadata.uid)
                raise Transient(Reason.STORE_UNAVAILABLE, "the store has lost the call") from error
            if error.status in _USERS:
                raise Invalid(Reason.SPEC_REFUSED.about("data"), error.message) from error
            raise Transient(Reason.STORE_UNAVAILABLE, f"the store refuses the call: {error}") from error

    async def _attempt(
        self, task: Task, draft: Draft[TaskStatus], own_pods: Sequence[Mapping[str, Any]]
    ) -> float | End | None:
        """Offer the current attempt, and follow what becomes of it."""
        status, uid = task.status, task.metadata.uid
        number = max(status.attempts, 1)
        known = self._calls.state(uid)
        if known is None or known[0] < number:
            await self._offer(task, number)
        status.attempts = number
        record = await self._calls.record(uid, number)
        limit = task.spec.max_attempts or self._settings.tasks.max_attempts
        # A busy worker is asked as often as it takes.
        limit += status.busy_attempts or 0
        verdict = self._judge(record, own_pods, number=number, limit=limit)
        if verdict.step is attempt.Step.CONFIRM_LOSS:
            own_pods = await self._alive(task)
            verdict = self._judge(record, own_pods, number=number, limit=limit)
        if verdict.step in _CONCLUSIONS and record["state"] not in attempt.SETTLED:
            # It may have been answered with the pod's last breath, and nobody told us: the store itself is asked.
            record = await self._calls.record(uid, number, fresh=True)
            verdict = self._judge(record, own_pods, number=number, limit=limit)
        if verdict.step is attempt.Step.CONFIRM_LOSS:
            gone = f"the pod that ran attempt {number} is gone"
            verdict = attempt.lost(Reason.POD_LOST, gone, attempt=number, max_attempts=limit)
        times = status.times = status.times or Times()
        sent = (record.get("times") or {}).get("sent")
        if sent is not None:
            status.task_status = TaskStatusName.ATTEMPTED
            times.called = times.called or timestamp(datetime.fromisoformat(sent))
            status.attempt_pod = record.get("claimedBy")
        return self._judged(task, draft, verdict, record, number=number)

    def _judge(
        self, record: Mapping[str, Any], own_pods: Sequence[Mapping[str, Any]], *, number: int, limit: int
    ) -> attempt.Verdict:
        return attempt.judge(
            record,
            pods=own_pods,
            attempt=number,
            max_attempts=limit,
            store_since=self._calls.since,
            now=self._clock(),
        )

    def _judged(
        self,
        task: Task,
        draft: Draft[TaskStatus],
        verdict: attempt.Verdict,
        record: Mapping[str, Any],
        *,
        number: int,
    ) -> float | End | None:
        if verdict.step is attempt.Step.ANSWERED:
            return self._answered(task, draft, record)
        if verdict.step is attempt.Step.FAIL:
            return End(reason=verdict.reason, message=verdict.message, failed=True)
        if verdict.step is attempt.Step.RETRY:
            started = (record.get("times") or {}).get("sent") or (record.get("times") or {}).get("claimed")
            due = (
                datetime.fromisoformat(started) + timedelta(seconds=verdict.again or 0)
                if started
                else draft.now
            )
            if due > draft.now:
                draft.progressing(verdict.reason, verdict.message)
                return (due - draft.now).total_seconds()
            task.status.attempts = number + 1
            task.status.attempt_pod = None
            if verdict.reason is Reason.WORKER_BUSY:
                task.status.busy_attempts = (task.status.busy_attempts or 0) + 1
            message = f"attempt {number + 1} follows: {verdict.message}".rstrip(": ")
            draft.progressing(Reason.RETRYING, message)
            if verdict.reason is not Reason.WORKER_BUSY:
                draft.event("Warning", verdict.reason, message)
            return 0
        if verdict.reason is Reason.CALLED:
            draft.progressing(Reason.CALLED, f"attempt {number} runs")
        return verdict.again

    async def _offer(self, task: Task, number: int) -> None:
        data = await self._data(task)
        await self._calls.put(
            namespace=task.metadata.namespace,
            task=task.metadata.uid,
            attempt=number,
            function=task.spec.function_name or "",
            address=task_address(task.metadata.uid, number),
            data=data,
            deadline=expiry.expires_at(task, None, self._settings.tasks).timestamp(),
        )

    async def _data(self, task: Task) -> Any:
        if task.spec.data_from is None:
            data = task.spec.data or {}
            size = len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
            if size > DATA_LIMIT:
                raise Invalid(
                    Reason.SPEC_REFUSED.about("data"),
                    f"data is {size} bytes, at most {DATA_LIMIT} are allowed: put it into dataFrom",
                )
            return data
        reference = task.spec.data_from.config_map_key_ref
        if reference is not None:
            found = await self._gateway.get(CONFIG_MAP, task.metadata.namespace, reference.name)
            text = ((found or {}).get("data") or {}).get(reference.key)
            if text is None:
                raise Waiting(
                    Reason.DATA_NOT_FOUND,
                    f"there is no key {reference.key} in ConfigMap {reference.name} yet",
                )
            raw = text.encode()
        else:
            raw = await self._file(task.metadata.namespace, task.spec.data_from.sha1 or "")
        try:
            data = json.loads(raw)
        except ValueError as error:
            raise Invalid(Reason.SPEC_REFUSED.about("dataFrom"), f"the data isn't JSON: {error}") from error
        if not isinstance(data, dict):
            raise Invalid(Reason.SPEC_REFUSED.about("dataFrom"), "the data must be a JSON object")
        return data

    async def _file(self, namespace: str, sha1: str) -> bytes:
        try:
            return await self._calls.file(namespace, sha1, limit=CALL_LIMIT)
        except StoreRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                message = f"this namespace has stored no file with sha1 {sha1} yet"
                raise Transient(Reason.DATA_NOT_FOUND, message, retry_after=DATA_RETRY) from error
            if error.status in _USERS:
                raise Invalid(Reason.SPEC_REFUSED.about("dataFrom"), error.message) from error
            raise

    async def _alive(self, task: Task) -> Sequence[Mapping[str, Any]]:
        """Return a task's pods as the API server has them now, since one isn't believed gone for not being seen."""
        selector = f"{TASK_UID}={task.metadata.uid}"
        alive = await self._gateway.list(POD, task.metadata.namespace, label_selector=selector)
        for pod in alive:
            self._cache.put(POD, pod)
        return alive

    def _answered(self, task: Task, draft: Draft[TaskStatus], record: Mapping[str, Any]) -> End | None:
        """Write the answer down; return the end of the task, unless the answer is still to be confirmed."""
        answer, status = record["answer"], task.status
        source = self._cache.get(SOURCE, task.metadata.namespace, task.spec.source_ref.name)
        terms_of = Source.model_validate(source).spec if source is not None else None
        manual = terms_of is not None and terms_of.delivery_method is DeliveryMethod.MANUAL_CONFIRMATION
        confirmed = not manual or (
            task.spec.confirm is not None and task.spec.confirm.response_id == record["address"]
        )
        received = (record.get("times") or {}).get("answered")
        status.responses = [
            Response(
                id=record["address"],
                sha1=answer["sha1"],
                provider=self._settings.cluster_id,
                # Nothing was checked where there is something to check against.
                valid=None if terms_of is not None and terms_of.response_schema is not None else True,
                confirmed=confirmed,
                inline=answer.get("inline") if answer["size"] <= INLINE_LIMIT else None,
                received_at=timestamp(datetime.fromisoformat(received)) if received else None,
            )
        ]
        times = status.times = status.times or Times()
        times.answered = status.responses[0].received_at
        if not confirmed:
            status.task_status = TaskStatusName.RESPONDED
            draft.progressing(
                Reason.ANSWERED, f"the answer {record['address']} waits to be confirmed (spec.confirm)"
            )
            return None
        return End(reason=Reason.ANSWERED, message=f"answered in attempt {record['attempt']}")

    async def answered_by(self, task: Task, draft: Draft[TaskStatus], moment: datetime) -> float | End | None:
        """Return the end of a call that was answered by ``moment``, though nobody was there to see it then.

        None: it wasn't. A number of seconds: it may have been, and the store hears of it only now.
        """
        uid = task.metadata.uid
        known = self._calls.state(uid)
        number = max(task.status.attempts, known[0] if known else 1)
        patient = draft.now < moment + STORE_PATIENCE
        try:
            record = await self._calls.record(uid, number, fresh=True)
        except StoreUnavailable as error:
            if patient:
                raise Transient(Reason.STORE_UNAVAILABLE, str(error), retry_after=STORE_RETRY) from error
            return None
        except StoreRefused:
            # It was never offered, or is forgotten.
            return None
        if patient and record["state"] not in {*attempt.SETTLED, "queued"}:
            left = attempt.delivery_left(self._calls.since or draft.now, draft.now)
            if left:
                return left
        answered = (record.get("times") or {}).get("answered")
        if record["state"] != "answered" or not answered or datetime.fromisoformat(answered) > moment:
            return None
        task.status.attempts = number
        return self._answered(task, draft, record)

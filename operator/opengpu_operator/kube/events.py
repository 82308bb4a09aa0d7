"""Kubernetes Events about our objects, as ``kubectl describe`` shows them.

Told only of transitions. The same thing again raises the count of the Event that is there, its name being derived from
what it says; an object that has too much to say is cut short (client-go's limits); and an Event that can't be written
is logged, because nobody's work may depend on it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from opengpu_operator.api.conditions import timestamp
from opengpu_operator.api.labels import MANAGER
from opengpu_operator.kube.errors import AlreadyExists, Forbidden, KubeError, NotFound
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import EVENT

logger = logging.getLogger(__name__)

BURST: Final = 25
REFILL_SECONDS: Final = 300.0
MESSAGE_LIMIT: Final = 1024
#: How many objects and Events are remembered; who is forgotten starts anew, which costs one request.
_REMEMBERED: Final = 4096
_NAME_LIMIT: Final = 253
_FIELD_LIMIT: Final = 128

_V = TypeVar("_V")


@dataclass
class _Bucket:
    tokens: float
    at: float


class Recorder:
    """Writes Events."""

    def __init__(
        self, *, gateway: Gateway, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def event(self, involved: Mapping[str, Any], *, type_: str, reason: str, message: str = "") -> None:
        """Record that something happened to the object that ``involved`` refers to.

        ``involved`` is a core/v1 ObjectReference; ``type_`` is Normal or Warning.
        """
        now = self._clock()
        if not self._allow(str(involved["uid"]), now.timestamp()):
            return
        if len(message) > MESSAGE_LIMIT:
            message = message[: MESSAGE_LIMIT - 1] + "…"
        namespace = str(involved.get("namespace") or "default")
        name = _name(involved, type_, reason, message)
        try:
            await self._write(namespace, name, involved, type_, reason, message, timestamp(now))
        except Forbidden as error:
            # The end of a namespace is no news.
            level = logging.DEBUG if error.namespace_terminating else logging.WARNING
            logger.log(
                level, "the event %s of %s isn't written: %s", reason, involved.get("name"), error.message
            )
        except KubeError as error:
            logger.warning("the event %s of %s isn't written: %s", reason, involved.get("name"), error)

    async def _write(
        self,
        namespace: str,
        name: str,
        involved: Mapping[str, Any],
        type_: str,
        reason: str,
        message: str,
        now: str,
    ) -> None:
        count = self._counts.get((namespace, name))
        if count is not None and await self._raise(namespace, name, count + 1, now):
            return
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": dict(involved),
            "type": type_,
            "reason": reason[:_FIELD_LIMIT],
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": MANAGER,
        }
        try:
            await self._gateway.create(event)
        except AlreadyExists:
            # From before a restart.
            found = await self._gateway.get(EVENT, namespace, name)
            await self._raise(namespace, name, int((found or {}).get("count") or 1) + 1, now)
        else:
            _remember(self._counts, (namespace, name), 1)

    async def _raise(self, namespace: str, name: str, count: int, now: str) -> bool:
        """Raise an Event's count; return False if it has expired meanwhile."""
        try:
            await self._gateway.merge_patch(EVENT, namespace, name, {"count": count, "lastTimestamp": now})
        except NotFound:
            self._counts.pop((namespace, name), None)
            return False
        _remember(self._counts, (namespace, name), count)
        return True

    def _allow(self, uid: str, now: float) -> bool:
        """Take a token of an object's bucket; return False if it is empty."""
        bucket = self._buckets.get(uid) or _Bucket(tokens=BURST, at=now)
        bucket.tokens = min(BURST, bucket.tokens + max(0.0, now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        _remember(self._buckets, uid, bucket)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _remember(memory: OrderedDict[Any, _V], key: object, value: _V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _name(involved: Mapping[str, Any], type_: str, reason: str, message: str) -> str:
    """Return a name that is the same for the same thing said about the same object."""
    said = "\0".join((str(involved["uid"]), type_, reason, message))
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    return f"{str(involved['name'])[: _NAME_LIMIT - len(digest) - 1].rstrip('-.')}.{digest}"

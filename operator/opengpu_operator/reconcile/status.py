"""Writes what a reconcile found out: the status once, if anything in it differs, and only then what is news of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opengpu_operator.api.conditions import is_true
from opengpu_operator.api.meta import Meta
from opengpu_operator.api.reasons import ConditionType
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import ConflictError, NotFound
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import Kind
from opengpu_operator.reconcile.draft import Draft


class StatusWriter:
    """Writes the statuses of one kind."""

    def __init__(
        self,
        kind: Kind,
        *,
        gateway: Gateway,
        cache: Cache,
        recorder: Recorder,
        event_type: Callable[[str, bool], str | None],
    ) -> None:
        """``event_type(reason, stalled)`` gives the type of the event for a new reason of Ready, None for no event."""
        self._kind = kind
        self._gateway = gateway
        self._cache = cache
        self._recorder = recorder
        self._event_type = event_type

    async def write(self, metadata: Meta, draft: Draft[Any], *, version: str | None = None) -> bool:
        """Write the status if it differs from what was there; return whether the object is still there.

        With ``version``, the resource version that the status was made from, a newer one is never overwritten:
        another operator may have written it, which we are told of late. Raises ConflictError then.
        """
        after = draft.status.dump()
        if after != draft.before:
            try:
                stored = await self._gateway.replace_status(
                    self._kind, metadata.namespace, metadata.name, after, uid=metadata.uid, version=version
                )
            except NotFound:
                return False
            except ConflictError:
                found = await self._gateway.get(self._kind, metadata.namespace, metadata.name)
                if found is None:
                    return False
                self._cache.put(self._kind, found)
                if found["metadata"]["uid"] != metadata.uid or found.get("status") != after:
                    raise
                # We wrote it ourselves: the answer to our first try was lost.
                stored = found
            self._cache.put(self._kind, stored)
        ready = draft.get(ConditionType.READY)
        if ready is not None and ready.reason != draft.reason_before:
            stalled = is_true(draft.status.conditions, ConditionType.STALLED)
            news = self._event_type(ready.reason, stalled)
            if news is not None:
                draft.event(news, ready.reason, ready.message)
        involved = {
            "apiVersion": self._kind.api_version,
            "kind": self._kind.kind,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
        }
        for type_, reason, message in draft.events:
            await self._recorder.event(involved, type_=type_, reason=reason, message=message)
        return True

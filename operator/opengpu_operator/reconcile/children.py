"""A job's objects in the cluster: made once, mended when they drift, removed when the job is over.

Create first: the happy path reads nothing. What the cache shows with the same spec hash is left alone; what differs
is patched, or made again where Kubernetes forbids the change. An object of the same name that isn't ours is never
touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from opengpu_operator.api.errors import Conflict, Transient, Waiting
from opengpu_operator.api.labels import MANAGED_BY, MANAGER, SPEC_HASH, TASK_UID
from opengpu_operator.api.reasons import Reason
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import AlreadyExists, Forbidden, NotFound, Unprocessable
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INGRESS,
    JOB,
    NETWORK_POLICY,
    SECRET,
    SERVICE,
    Kind,
    kind_of,
)

Object = dict[str, Any]

#: What leads to ports.
ROUTES = frozenset({INGRESS, HTTP_ROUTE})
#: Workloads come after everything they need: no pod may run before its NetworkPolicy exists.
_SECOND_WAVE = {DEPLOYMENT, JOB, *ROUTES}
#: Kinds whose whole spec may be changed in place. Services are headless: they have no address to lose.
_PATCHABLE = {DEPLOYMENT, ENDPOINT_SLICE, NETWORK_POLICY, SERVICE, *ROUTES}
#: Kinds that a change of the task may make superfluous.
_PRUNED = {DEPLOYMENT, JOB, SERVICE, *ROUTES}
#: All others keep the form they were made with: changing a volume would lose data.
_MENDABLE = {*_PATCHABLE, JOB}


def spec_hash(obj: Mapping[str, Any]) -> str | None:
    """Return the hash of the manifest that an object was made from."""
    value = (obj["metadata"].get("annotations") or {}).get(SPEC_HASH)
    return str(value) if value is not None else None


class Children:
    """Makes, mends and removes the children of jobs."""

    def __init__(self, *, gateway: Gateway, cache: Cache) -> None:
        self._gateway = gateway
        self._cache = cache

    def missing(self, objects: Iterable[tuple[Kind, str, str, str]]) -> bool:
        """Return whether any of (kind, namespace, name, hash) isn't in the cluster as it should be.

        Secrets aren't looked for, since we may not read any; they come and go with the rest of their job.
        """
        for kind, namespace, name, wanted in objects:
            if kind == SECRET:
                continue
            seen = self._cache.get(kind, namespace, name)
            if seen is None or (kind in _MENDABLE and spec_hash(seen) != wanted):
                return True
        return False

    async def ensure(self, objects: Sequence[Object]) -> int:
        """Bring the cluster to ``objects``; return how many writes that took."""
        first = [obj for obj in objects if kind_of(obj) not in _SECOND_WAVE]
        second = [obj for obj in objects if kind_of(obj) in _SECOND_WAVE]
        if all(self._seen(obj) is not None for obj in second):
            # Secrets are never shown, but workloads are only made once their Secrets are: nothing is to be made.
            first = [obj for obj in first if kind_of(obj) != SECRET]
        # What a task closes is closed first, whatever fails later; what fails here is tried again and said below.
        there = [obj for obj in second if kind_of(obj) in ROUTES and self._seen(obj) is not None]
        done = await asyncio.gather(*(self._ensure(obj) for obj in there), return_exceptions=True)
        writes = sum(count for count in done if isinstance(count, int))
        for wave in (first, second):
            # All are tried before the first error is raised: what can exist, exists.
            results = await asyncio.gather(*(self._ensure(obj) for obj in wave), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                writes += result
        return writes

    def _seen(self, obj: Object) -> Mapping[str, Any] | None:
        return self._cache.get(kind_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])

    async def _ensure(self, obj: Object) -> int:
        kind, metadata = kind_of(obj), obj["metadata"]
        seen = self._seen(obj)
        if seen is None:
            try:
                self._cache.put(kind, await self._gateway.create(obj))
            except AlreadyExists:
                if kind == SECRET:
                    # Made by us before a restart: names are derived from the task's UID, the content from its spec.
                    return 1
                seen = await self._gateway.get(kind, metadata["namespace"], metadata["name"])
                if seen is None:
                    raise Transient(
                        Reason.CHILD_CONFLICT, f"{kind.kind} {metadata['name']} comes and goes"
                    ) from None
                self._cache.put(kind, seen)
            except Forbidden as error:
                if error.namespace_terminating:
                    raise Waiting(Reason.NAMESPACE_TERMINATING, "the namespace is being deleted") from error
                reason = Reason.QUOTA_EXCEEDED if error.quota_exceeded else Reason.FORBIDDEN
                raise Transient(reason, error.message, retry_after=30) from error
            except NotFound as error:
                if kind != HTTP_ROUTE:
                    raise
                raise Transient(
                    Reason.GATEWAY_API_MISSING,
                    "the cluster doesn't know HTTPRoutes: its owner should install the Gateway API's definitions "
                    "(gateway.networking.k8s.io/v1) or set settings.routes.kind to Ingress",
                    retry_after=30,
                ) from error
            except Unprocessable as error:
                raise Conflict(
                    Reason.SPEC_REFUSED, f"{kind.kind} {metadata['name']}: {error.message}"
                ) from error
            else:
                return 1
        return await self._mend(kind, obj, seen)

    async def _mend(self, kind: Kind, obj: Object, seen: Mapping[str, Any]) -> int:
        metadata = obj["metadata"]
        of_task = TASK_UID in metadata["labels"]
        ours = (seen["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER
        if not ours or (of_task and _controller(obj) != _controller(seen)):
            raise Conflict(
                Reason.CHILD_CONFLICT,
                f"{kind.kind} {metadata['name']} belongs to somebody else; remove it to let this job have the name",
            )
        if seen["metadata"].get("deletionTimestamp"):
            raise Transient(
                Reason.CHILD_CONFLICT, f"{kind.kind} {metadata['name']} is still being deleted", retry_after=2
            )
        if kind not in _MENDABLE:
            return 0
        if spec_hash(seen) == spec_hash(obj):
            return await self._suspend(obj, seen) if kind == JOB else 0
        if kind in _PATCHABLE:
            patch = {
                key: value for key, value in obj.items() if key not in {"apiVersion", "kind", "metadata"}
            }
            patch["metadata"] = {"labels": metadata["labels"], "annotations": metadata["annotations"]}
            stored = await self._gateway.merge_patch(kind, metadata["namespace"], metadata["name"], patch)
            self._cache.put(kind, stored)
            return 1
        # A Job's template can't be changed; it is made again once the old one is gone.
        await self._gateway.delete(kind, metadata["namespace"], metadata["name"], uid=seen["metadata"]["uid"])
        raise Transient(Reason.RETRYING, f"Job {metadata['name']} is being replaced", retry_after=1)

    async def _suspend(self, obj: Object, seen: Mapping[str, Any]) -> int:
        """Stop or resume a Job, whose work so far is kept."""
        wanted, metadata = bool(obj["spec"].get("suspend")), obj["metadata"]
        if wanted == bool(seen.get("spec", {}).get("suspend")):
            return 0
        patch = {"spec": {"suspend": wanted}}
        self._cache.put(
            JOB, await self._gateway.merge_patch(JOB, metadata["namespace"], metadata["name"], patch)
        )
        return 1

    async def prune(
        self,
        task_uid: str,
        *,
        keep: Collection[tuple[Kind, str, str]],
        kinds: Collection[Kind] = _PRUNED,
    ) -> None:
        """Delete what a task no longer asks for. Volumes stay until the task goes."""
        for kind, obj in self._cache.children(task_uid):
            metadata = obj["metadata"]
            if kind in kinds and (kind, metadata["namespace"], metadata["name"]) not in keep:
                await self._remove(kind, obj)

    async def remove(self, *, namespace: str, task_uid: str, secrets: Sequence[str]) -> int:
        """Delete what the cache shows of a task's children; return how many there were.

        Secrets, which the cache never shows but to whom has made them, go first and only together with others: once
        nothing else is left, they are known to be gone. Those that aren't named stay, until the task goes.
        """
        children = [
            (kind, obj)
            for kind, obj in self._cache.children(task_uid)
            if not obj["metadata"].get("deletionTimestamp")
            and kind.kind != "Pod"
            and (kind != SECRET or obj["metadata"]["name"] in secrets)
        ]
        if not children:
            return 0
        await asyncio.gather(*(self._gateway.delete(SECRET, namespace, name) for name in secrets))
        await asyncio.gather(*(self._remove(kind, obj) for kind, obj in children))
        return len(children)

    async def _remove(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        metadata = obj["metadata"]
        await self._gateway.delete(kind, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        # What is on its way out is no longer ours to look after, and isn't deleted twice.
        self._cache.drop(kind, metadata["namespace"], metadata["name"], metadata["uid"])


def _controller(obj: Mapping[str, Any]) -> str | None:
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return str(reference["uid"])
    return None

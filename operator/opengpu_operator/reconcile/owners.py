"""The life of ``/gpux_usr``, which no task owns: it grows when asked to, and goes when nobody has used it for long.

Its claim carries what is known of its use, so that a restart loses nothing: when a task of the owner last used it, to
the hour while one does, and when it will be removed. The removal is announced a grace period ahead, called off by any
use, and done only after the API server itself has been asked who uses the claim.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from opengpu_operator.api.conditions import timestamp
from opengpu_operator.api.labels import EXPIRES_AT, KEEP, LAST_USED_AT, OWNER, OWNER_NAME
from opengpu_operator.api.reasons import ConditionType, Reason
from opengpu_operator.api.source import Environment
from opengpu_operator.api.task import Task, TaskStatus
from opengpu_operator.desired import names
from opengpu_operator.desired.quantities import parse
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import Forbidden, Unprocessable
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import POD, PVC, STORAGE_CLASS, TASK
from opengpu_operator.reconcile import expiry
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.settings import StorageSettings

logger = logging.getLogger(__name__)

Object = Mapping[str, Any]

#: How exactly the last use is known while tasks come and go.
STAMP_EVERY: Final = timedelta(hours=1)
#: A last use that is known to be this much later is written down.
_WORTH_A_WRITE: Final = timedelta(minutes=1)
#: The claims that an owner may have: one for all environments, or one for each.
_VARIANTS: Final = (None, *(entry.value for entry in Environment))


def is_owners(claim: Object) -> bool:
    """Return whether a claim is the storage of an owner, who is known by name."""
    metadata = claim["metadata"]
    return OWNER in (metadata.get("labels") or {}) and bool(
        (metadata.get("annotations") or {}).get(OWNER_NAME)
    )


def users(tasks: Iterable[Object], claim: Object) -> list[Object]:
    """Return the tasks that use, will use or have used an owner's claim.

    What a task runs in, and not today's mode, tells which claim is its: the mode may have been another when it
    started. One whose environment isn't chosen yet may use any of its owner's.
    """
    metadata = claim["metadata"]
    owner = metadata["annotations"][OWNER_NAME]
    variant = next(
        (
            each
            for each in _VARIANTS
            if names.user_volume(metadata["namespace"], owner, each) == metadata["name"]
        ),
        None,
    )
    return [
        task
        for task in tasks
        if task.get("spec", {}).get("owner") == owner
        and (variant is None or task.get("status", {}).get("environment") in {None, variant})
    ]


def mounts(pod: Object, claim: str) -> bool:
    """Return whether a pod that isn't over mounts a claim; the pod as the API server has it."""
    return pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"} and any(
        (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim
        for volume in pod.get("spec", {}).get("volumes") or ()
    )


def used_at(claim: Object) -> datetime:
    """Return when a claim was last known to be used: at its creation, if nothing else is known."""
    metadata = claim["metadata"]
    made = datetime.fromisoformat(metadata["creationTimestamp"])
    return max(made, _time(metadata, LAST_USED_AT) or made)


def _time(metadata: Mapping[str, Any], annotation: str) -> datetime | None:
    """Return a time from an annotation; None where there is none. Anybody may have written it."""
    try:
        found = datetime.fromisoformat((metadata.get("annotations") or {}).get(annotation, ""))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


class OwnerStorage:
    """Looks after the claims of owners. Loses at a restart no more than an hour of a claim's last use."""

    def __init__(
        self,
        *,
        settings: StorageSettings,
        gateway: Gateway,
        cache: Cache,
        recorder: Recorder,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._cache = cache
        self._recorder = recorder
        self._clock = clock
        self._in_use: dict[str, set[str]] = {}
        """By the UID of each claim that was in use when it was last looked at: its users'."""

    def claims(self, namespace: str, owner: str) -> list[str]:
        """Return the names of the claims that there are of an owner."""
        wanted = (names.user_volume(namespace, owner, variant) for variant in _VARIANTS)
        return [name for name in wanted if self._cache.get(PVC, namespace, name) is not None]

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a claim that is gone."""
        self._in_use.pop(uid, None)

    # --- use and disuse -------------------------------------------------------------------------------------------

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Write down a claim's use, or see to its end; return after how many seconds to look again."""
        claim = self._cache.get(PVC, namespace, name)
        if claim is None or not is_owners(claim) or claim["metadata"].get("deletionTimestamp"):
            return None
        metadata, now = claim["metadata"], self._clock()
        last = used_at(claim)
        tasks = users(self._cache.tasks_of_owner(namespace, metadata["annotations"][OWNER_NAME]), claim)
        using = {task["metadata"]["uid"] for task in tasks if not expiry.is_finished(task)}
        if using:
            self._in_use[metadata["uid"]] = using
            return await self._used(claim, last)
        ends = [end for task in tasks if (end := _ended(task)) is not None]
        if self._in_use.get(metadata["uid"], set()) - {task["metadata"]["uid"] for task in tasks}:
            # One was deleted while it ran, and its end went with it.
            ends.append(now)
        if ends and max(ends) > last + _WORTH_A_WRITE:
            last = min(max(ends), now)
            claim = await self._stamp(claim, last)
        self._in_use.pop(metadata["uid"], None)
        return await self._unused(claim, last)

    async def _used(self, claim: Object, last: datetime) -> float:
        now = self._clock()
        if now - last >= STAMP_EVERY or EXPIRES_AT in claim["metadata"]["annotations"]:
            await self._stamp(claim, now)
            last = now
        return max((last + STAMP_EVERY - now).total_seconds(), 1.0)

    async def _stamp(self, claim: Object, moment: datetime) -> Object:
        """Write down a use, which calls off an announced removal."""
        called_off = EXPIRES_AT in claim["metadata"]["annotations"]
        stored = await self._annotate(claim, {LAST_USED_AT: timestamp(moment), EXPIRES_AT: None})
        if called_off:
            await self._say(claim, "Normal", Reason.STORAGE_KEPT, "it was used, so it isn't removed")
        return stored

    async def _unused(self, claim: Object, last: datetime) -> float | None:
        """Announce the end of a claim that nobody uses, or bring it about."""
        metadata, policy, now = claim["metadata"], self._settings.user, self._clock()
        announced = _time(metadata, EXPIRES_AT)
        due = last + timedelta(seconds=policy.unused_seconds) if policy.unused_seconds else None
        if due is None or now < due or metadata["annotations"].get(KEEP) == "true":
            if EXPIRES_AT in metadata["annotations"]:
                await self._annotate(claim, {EXPIRES_AT: None})
                await self._say(claim, "Normal", Reason.STORAGE_KEPT, "it is no longer due to be removed")
            return (due - now).total_seconds() if due is not None and now < due else None
        if announced is None:
            announced = now + timedelta(seconds=policy.grace_seconds)
            await self._annotate(claim, {EXPIRES_AT: timestamp(announced)})
            message = (
                f"/gpux_usr of {metadata['annotations'][OWNER_NAME]} was last used at {timestamp(last)} and will be "
                f"removed at {timestamp(announced)}; run a task of that owner, or annotate the claim {KEEP}=true, "
                "to keep it"
            )
            await self._say(claim, "Warning", Reason.STORAGE_EXPIRES, message)
        if now < announced:
            return (announced - now).total_seconds()
        return await self._remove(claim)

    async def _remove(self, claim: Object) -> float | None:
        """Remove a claim, unless the API server knows of a use that nobody told us of."""
        metadata = claim["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        found = await self._gateway.get(PVC, namespace, name)
        if found is None:
            self._cache.drop(PVC, namespace, name, metadata["uid"])
            return None
        if found["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            # It has changed: whatever that says is looked at first.
            self._cache.put(PVC, found)
            return 1.0
        tasks = await self._gateway.list(TASK, namespace)
        pods = await self._gateway.list(POD, namespace)
        if any(not expiry.is_finished(task) for task in users(tasks, claim)) or any(
            mounts(pod, name) for pod in pods
        ):
            await self._stamp(claim, self._clock())
            return STAMP_EVERY.total_seconds()
        await self._gateway.delete(
            PVC, namespace, name, uid=metadata["uid"], version=metadata["resourceVersion"]
        )
        self._cache.drop(PVC, namespace, name, metadata["uid"])
        owner = metadata["annotations"][OWNER_NAME]
        logger.info("removed %s/%s, the unused storage of %s", namespace, name, owner)
        message = f"/gpux_usr of {owner} was removed: unused since {timestamp(used_at(claim))}"
        await self._say(claim, "Normal", Reason.STORAGE_REMOVED, message)
        return None

    async def _annotate(self, claim: Object, annotations: Mapping[str, str | None]) -> Object:
        metadata = claim["metadata"]
        # At the version that was judged: a user's ``keep`` mustn't be missed.
        patch = {"metadata": {"annotations": annotations, "resourceVersion": metadata["resourceVersion"]}}
        self._cache.put(
            PVC, await self._gateway.merge_patch(PVC, metadata["namespace"], metadata["name"], patch)
        )
        return self._cache.get(PVC, metadata["namespace"], metadata["name"]) or claim

    async def _say(self, claim: Object, type_: str, reason: Reason, message: str) -> None:
        metadata = claim["metadata"]
        involved = {"apiVersion": PVC.api_version, "kind": PVC.kind} | {
            key: metadata[key] for key in ("namespace", "name", "uid")
        }
        await self._recorder.event(involved, type_=type_, reason=reason, message=message)

    # --- growth ---------------------------------------------------------------------------------------------------

    async def fit(self, task: Task, draft: Draft[TaskStatus]) -> None:
        """Let a task's ``/gpux_usr`` grow to what the task asks for; say in a condition why it can't."""
        problem = await self._too_small(task)
        if problem is None:
            draft.drop(ConditionType.STORAGE_SIZED)
        else:
            draft.set(
                ConditionType.STORAGE_SIZED, status=False, reason=Reason.STORAGE_TOO_SMALL, message=problem
            )

    async def _too_small(self, task: Task) -> str | None:
        wanted = task.spec.storage.user_size if task.spec.storage else None
        owner, namespace, environment = task.spec.owner, task.metadata.namespace, task.status.environment
        if wanted is None or owner is None or environment is None:
            return None
        variant = None if self._settings.user_mode == "Shared" else environment.value
        claim = self._cache.get(PVC, namespace, names.user_volume(namespace, owner, variant))
        if claim is None or claim.get("status", {}).get("phase") != "Bound":
            # Kubernetes changes no claim before it has a volume; its event brings us back.
            return None
        spec = claim.get("spec", {})
        has = spec.get("resources", {}).get("requests", {}).get("storage", "0")
        if parse(wanted) <= parse(has):
            return None
        said = f"/gpux_usr has {has}, spec.storage.userSize asks for {wanted}"
        name = spec.get("storageClassName") or ""
        kind_of_storage = self._cache.get(STORAGE_CLASS, None, name)
        if kind_of_storage is None or not kind_of_storage.get("allowVolumeExpansion"):
            return (
                f"{said}, and StorageClass {name or 'none'} doesn't let volumes grow: set its "
                "allowVolumeExpansion, or move the files to another owner's volume"
            )
        patch = {"spec": {"resources": {"requests": {"storage": wanted}}}}
        try:
            stored = await self._gateway.merge_patch(PVC, namespace, claim["metadata"]["name"], patch)
        except (Forbidden, Unprocessable) as error:
            return f"{said}, which the cluster refuses: {error.message}"
        self._cache.put(PVC, stored)
        return None


def _ended(task: Object) -> datetime | None:
    """Return when a task that has run ended."""
    finished = (task.get("status", {}).get("times") or {}).get("finished")
    return datetime.fromisoformat(finished) if finished else None

"""Lets the bytes of a task's volumes go with the task, whatever the StorageClass says.

A class that retains its volumes is right for what is meant to last, and a task's files aren't: they would stay on the
node's disk for ever. So the volumes of such claims are told to go with their claims, as soon as they are bound: from
then on it is Kubernetes' own doing, with or without an operator. They get a label by it, by which those whose claims
went first are found again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from opengpu_operator.api.labels import TASK_UID
from opengpu_operator.api.task import KIND
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import NotFound
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import PERSISTENT_VOLUME, STORAGE_CLASS

logger = logging.getLogger(__name__)

Object = Mapping[str, Any]

_PROVISIONED: Final = "pv.kubernetes.io/provisioned-by"


class Bound(NamedTuple):
    """A task's claim that has got a volume."""

    claim_uid: str
    storage_class: str
    task_uid: str


class Release:
    """Sees to it that volumes go with the tasks' claims that they were made for."""

    def __init__(self, *, gateway: Gateway, cache: Cache) -> None:
        self._gateway = gateway
        self._cache = cache
        self._waiting: dict[str, Bound] = {}
        """By the volume's name."""
        self._settled: set[str] = set()
        """UIDs of the claims that were seen to."""

    def seen(self, type_: str | None, claim: Object) -> str | None:
        """Take an event of a claim, as the API server has it; return the volume that is to be looked at, if any."""
        metadata = claim["metadata"]
        uid = metadata["uid"]
        if type_ == "DELETED":
            self._settled.discard(uid)
            return None
        task_uid, spec = _task(claim), claim.get("spec") or {}
        volume = spec.get("volumeName")
        if (
            task_uid is None
            or not volume
            or uid in self._settled
            or (claim.get("status") or {}).get("phase") != "Bound"
        ):
            return None
        self._waiting[volume] = Bound(uid, spec.get("storageClassName") or "", task_uid)
        return str(volume)

    async def reconcile(self, name: str) -> None:
        """Have a volume go with its claim, where its class wouldn't. Most cost no request at all."""
        bound = self._waiting.get(name)
        if bound is None:
            return
        known = self._cache.get(STORAGE_CLASS, None, bound.storage_class)
        if known is None or known.get("reclaimPolicy") != "Delete":
            volume = await self._gateway.get(PERSISTENT_VOLUME, None, name)
            if volume is not None and _is_for(volume, bound):
                await self._let_go(volume, {TASK_UID: bound.task_uid})
        self._waiting.pop(name, None)
        self._settled.add(bound.claim_uid)

    async def sweep(self, alive: Collection[str]) -> None:
        """Let go of the volumes of tasks that are gone, should they have been told to stay after all.

        ``alive``: UIDs of all tasks. Only volumes that carry our label are looked at: a claim's name proves nothing.
        """
        for volume in await self._gateway.list(PERSISTENT_VOLUME, label_selector=TASK_UID):
            released = volume.get("status", {}).get("phase") == "Released"
            if released and volume["metadata"]["labels"][TASK_UID] not in alive:
                await self._let_go(volume, {})

    async def _let_go(self, volume: Object, labels: Mapping[str, str]) -> None:
        if not _retained(volume):
            return
        metadata = volume["metadata"]
        patch = {
            "metadata": {"labels": labels, "resourceVersion": metadata["resourceVersion"]},
            "spec": {"persistentVolumeReclaimPolicy": "Delete"},
        }
        try:
            await self._gateway.merge_patch(PERSISTENT_VOLUME, None, metadata["name"], patch)
        except NotFound:
            return
        logger.info("PersistentVolume %s goes with its claim", metadata["name"])


def _task(claim: Object) -> str | None:
    """Return the UID of the task that a claim belongs to, and goes with; None for any other."""
    metadata = claim["metadata"]
    labelled = (metadata.get("labels") or {}).get(TASK_UID)
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == KIND and owner["uid"] == labelled:
            return str(labelled)
    return None


def _claim(volume: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = volume.get("spec", {}).get("claimRef") or {}
    return found


def _retained(volume: Object) -> bool:
    return bool(volume.get("spec", {}).get("persistentVolumeReclaimPolicy") == "Retain")


def _is_for(volume: Object, bound: Bound) -> bool:
    """Return whether a volume was made for this very claim. One that was there before is its maker's business."""
    made = _PROVISIONED in (volume["metadata"].get("annotations") or {})
    return made and _claim(volume).get("uid") == bound.claim_uid

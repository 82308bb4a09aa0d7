"""Translations, kept in the cluster as ControllerRevisions: Kubernetes' own kind for an immutable snapshot.

Tasks run what they started with, whatever the URL serves later, and a restart of the operator fetches nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from opengpu_operator.api.errors import Transient
from opengpu_operator.api.labels import (
    API_VERSION,
    ENVIRONMENT,
    MANAGED_BY,
    MANAGER,
    PART_OF,
)
from opengpu_operator.api.labels import SOURCE as SOURCE_LABEL
from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.source import KIND, Environment, Source
from opengpu_operator.api.translation import Translation
from opengpu_operator.desired import names
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import AlreadyExists
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import CONTROLLER_REVISION

#: How many translations are kept in memory; a task whose translation isn't among them costs one GET.
_REMEMBERED = 256


class Translations:
    """Keeps and finds translations by the name of their ControllerRevision."""

    def __init__(self, *, gateway: Gateway, cache: Cache) -> None:
        self._gateway = gateway
        self._cache = cache
        self._remembered: OrderedDict[tuple[str, str], Translation] = OrderedDict()
        self._reading: dict[tuple[str, str], asyncio.Future[Translation | None]] = {}

    def exists(self, namespace: str, revision: str) -> bool:
        """Return whether the cluster is known to hold a translation."""
        return self._cache.get(CONTROLLER_REVISION, namespace, revision) is not None

    async def get(self, namespace: str, revision: str) -> Translation | None:
        """Return a translation; None if there is none of that name."""
        known = self._remembered.get((namespace, revision))
        if known is not None:
            self._remembered.move_to_end((namespace, revision))
            return known
        # Read once, though after a restart all of a source's tasks want it at the same moment.
        reading = self._reading.get((namespace, revision))
        if reading is None:
            reading = asyncio.ensure_future(self._read(namespace, revision))
            self._reading[namespace, revision] = reading
            reading.add_done_callback(lambda _: self._reading.pop((namespace, revision), None))
        return await asyncio.shield(reading)

    async def _read(self, namespace: str, revision: str) -> Translation | None:
        found = await self._gateway.get(CONTROLLER_REVISION, namespace, revision)
        if found is None:
            return None
        translation = Translation.model_validate(found["data"])
        self._remember(namespace, revision, translation)
        return translation

    async def keep(self, source: Source, environment: Environment, translation: Translation) -> str:
        """Keep a translation; return its revision's name, which is a function of the source and what it holds."""
        namespace = source.metadata.namespace
        content = names.digest(source.metadata.uid, translation.model_dump_json())
        revision = names.child(source.metadata.name, environment.value, content[:12])
        if not self.exists(namespace, revision):
            obj = _manifest(source, environment, revision, translation)
            try:
                stored = await self._gateway.create(obj)
            except AlreadyExists:
                found = await self._gateway.get(CONTROLLER_REVISION, namespace, revision)
                if found is None:
                    raise Transient(
                        Reason.CHILD_CONFLICT, f"ControllerRevision {revision} comes and goes"
                    ) from None
                stored = found
            self._cache.put(CONTROLLER_REVISION, stored)
        self._remember(namespace, revision, translation)
        return revision

    async def prune(self, source: Source, *, used: set[str | None]) -> None:
        """Delete a source's translations that nothing refers to any more."""
        for revision in self._cache.all(CONTROLLER_REVISION, source.metadata.namespace):
            metadata = revision["metadata"]
            owners = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
            if source.metadata.uid in owners and metadata["name"] not in used:
                await self._gateway.delete(
                    CONTROLLER_REVISION, metadata["namespace"], metadata["name"], uid=metadata["uid"]
                )
                self._remembered.pop((metadata["namespace"], metadata["name"]), None)

    def _remember(self, namespace: str, revision: str, translation: Translation) -> None:
        self._remembered[namespace, revision] = translation
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)


def _manifest(
    source: Source, environment: Environment, revision: str, translation: Translation
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision,
            "namespace": source.metadata.namespace,
            "labels": {
                MANAGED_BY: MANAGER,
                PART_OF: "opengpu",
                SOURCE_LABEL: names.label_value(source.metadata.name),
                ENVIRONMENT: environment.value,
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": source.metadata.name,
                    "uid": source.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "revision": 1,
        "data": translation.model_dump(mode="json", by_alias=True, exclude_none=True),
    }

"""The API server and the store in memory, which fail and lose answers when a test says so."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from http import HTTPStatus
from typing import Any

from gpux.client import StoreRefused, StoreUnavailable
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import (
    AlreadyExists,
    ConflictError,
    KubeError,
    NotFound,
    Unavailable,
    Unprocessable,
)
from opengpu_operator.kube.gateway import Listing
from opengpu_operator.kube.kinds import KINDS, POD, SECRET, Kind, kind_of
from tests.unit.reconcile.builders import NOW, at


class ApiServer:
    """The part of a Gateway that reconciling needs."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str, str], dict[str, Any]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        """How often, by verb and kind."""
        self.refusals: dict[tuple[str, str], KubeError] = {}
        """By verb and kind: what every such request fails with."""
        self.lost: set[tuple[str, str]] = set()
        """Verbs and kinds of which the next request is done, and its answer is lost."""
        self._numbers = itertools.count(1)

    def put(self, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
        """Store an object as it is, in its newest version; return it."""
        metadata = obj["metadata"]
        number = next(self._numbers)
        kept = copy.deepcopy(obj)
        kept["metadata"] = {"uid": f"uid-{number}", **copy.deepcopy(metadata), "resourceVersion": str(number)}
        self.objects[kind, metadata.get("namespace", ""), metadata["name"]] = kept
        return copy.deepcopy(kept)

    def change(self, kind: Kind, namespace: str, name: str, **parts: Any) -> dict[str, Any]:
        """Replace parts of an object, as somebody else would; return it."""
        return self.put(kind, {**self.objects[kind, namespace, name], **parts})

    def all(self, kind: Kind) -> list[dict[str, Any]]:
        return [copy.deepcopy(obj) for (its, _, _), obj in self.objects.items() if its == kind]

    def show(self, cache: Cache, kinds: Collection[Kind] = KINDS) -> None:
        """Have a cache see everything (of some kinds), as from a list. It never sees a Secret."""
        for (kind, _, _), obj in self.objects.items():
            if kind in kinds and kind != SECRET:
                cache.put(kind, copy.deepcopy(obj))

    def _begin(self, verb: str, kind: Kind) -> None:
        self.asked[verb, kind.kind] += 1
        if (verb, kind.kind) in self.refusals:
            raise self.refusals[verb, kind.kind]

    def _done(self, verb: str, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
        if (verb, kind.kind) in self.lost:
            self.lost.discard((verb, kind.kind))
            raise Unavailable(f"{verb} {kind}: no answer in time")
        return obj

    def _found(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        if (kind, namespace or "", name) not in self.objects:
            raise NotFound(f"{kind} {name} isn't there", code=404)
        return self.objects[kind, namespace or "", name]

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        kind, metadata = kind_of(obj), obj["metadata"]
        self._begin("create", kind)
        if (kind, metadata["namespace"], metadata["name"]) in self.objects:
            raise AlreadyExists(f"{kind} {metadata['name']} is there", code=409)
        return self._done("create", kind, self.put(kind, obj))

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any] | None:
        assert kind != SECRET, "nobody's Secret is read"
        self._begin("get", kind)
        return copy.deepcopy(self.objects.get((kind, namespace or "", name)))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, label_selector: str | None = None
    ) -> Listing:
        self._begin("list", kind)
        return Listing(
            obj
            for obj in self.all(kind)
            if namespace in {None, obj["metadata"].get("namespace")} and _selected(obj, label_selector)
        )

    async def merge_patch(
        self, kind: Kind, namespace: str | None, name: str, patch: dict[str, Any]
    ) -> dict[str, Any]:
        self._begin("patch", kind)
        found = self._found(kind, namespace, name)
        self._unchanged(found, patch.get("metadata", {}).get("resourceVersion"))
        return self._done("patch", kind, self.put(kind, _merged(found, patch)))

    def _unchanged(self, found: dict[str, Any], version: str | None) -> None:
        if version not in {None, found["metadata"]["resourceVersion"]}:
            raise ConflictError("the object has been modified", code=409)

    async def replace_status(
        self, kind: Kind, namespace: str, name: str, status: dict[str, Any], *, uid: str, version: str | None
    ) -> dict[str, Any]:
        self._begin("status", kind)
        metadata = self._found(kind, namespace, name)["metadata"]
        if metadata["uid"] != uid:
            raise Unprocessable("the test of /metadata/uid failed", code=422)
        self._unchanged(self._found(kind, namespace, name), version)
        return self._done("status", kind, self.change(kind, namespace, name, status=status))

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str | None = None, version: str | None = None
    ) -> bool:
        self._begin("delete", kind)
        found = self.objects.get((kind, namespace, name))
        if found is None or uid not in {None, found["metadata"]["uid"]}:
            return False
        self._unchanged(found, version)
        del self.objects[kind, namespace, name]
        return True

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        self._begin("evict", POD)
        found = self.objects.get((POD, namespace, name))
        if found is None or found["metadata"]["uid"] != uid:
            return False
        self.change(POD, namespace, name, metadata={**found["metadata"], "deletionTimestamp": at(0)})
        return True


def _selected(obj: dict[str, Any], selector: str | None) -> bool:
    """Return whether an object has the one label that a selector names, with the value if it names one."""
    key, _, value = (selector or "").partition("=")
    labels = obj["metadata"].get("labels", {})
    return not key or (key in labels and value in {"", labels[key]})


def _merged(found: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return an object with a JSON merge patch in it."""
    merged = {key: value for key, value in found.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if isinstance(value, dict):
            merged[key] = _merged(found.get(key) or {}, value)
        elif value is not None:
            merged[key] = value
    return merged


class Store:
    """The part of a StoreClient that calls need."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.error: Exception | None = None
        """What every request fails with."""
        self.asked: Counter[str] = Counter()

    def leave(self) -> None:
        self.error = StoreUnavailable("the store can't be reached")

    def _begin(self, what: str) -> None:
        self.asked[what] += 1
        if self.error is not None:
            raise self.error

    def now(self, task: str, state: str, *, attempt: int = 1, pod: str = "pod-web", **parts: Any) -> None:
        """Say what became of an attempt; ``answered``, ``sent``, …: seconds after NOW at which it did."""
        names = ("queued", "claimed", "sent", "accepted", "answered")
        times = {name: at(parts.pop(name)).replace("Z", "+00:00") for name in names if name in parts}
        before = self.records.get((task, attempt), {})
        self.records[task, attempt] = {
            "task": task,
            "attempt": attempt,
            "address": f"0x{attempt}",
            "answer": {"sha1": "1" * 40, "size": 4, "inline": "done"} if state == "answered" else None,
            **parts,
            "state": state,
            "claimedBy": None if state == "queued" else pod,
            "times": {**before.get("times", {}), **times},
        }

    async def put_call(self, *, task: str, attempt: int, **_: Any) -> bool:
        self._begin("put")
        if (task, attempt) in self.records:
            return False
        self.now(task, "queued", attempt=attempt)
        return True

    async def get_call(self, task: str, attempt: int) -> dict[str, Any]:
        self._begin("get")
        if (task, attempt) not in self.records:
            raise StoreRefused(HTTPStatus.NOT_FOUND, "no such call")
        return copy.deepcopy(self.records[task, attempt])

    async def get_file(self, _namespace: str, name: str, *, limit: int) -> bytes:
        self._begin("file")
        if name not in self.files:
            raise StoreRefused(HTTPStatus.NOT_FOUND, "no such file")
        if len(self.files[name]) > limit:
            raise StoreRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"larger than {limit} bytes")
        return self.files[name]

    async def delete_task(self, task: str) -> None:
        self._begin("delete")
        self.records = {key: record for key, record in self.records.items() if key[0] != task}


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Events:
    """A Recorder that remembers the reasons."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.messages: list[str] = []

    async def event(self, _involved: object, *, type_: str, reason: str, message: str = "") -> None:
        assert type_ in {"Normal", "Warning"}
        assert isinstance(message, str)
        self.reasons.append(reason)
        self.messages.append(message)

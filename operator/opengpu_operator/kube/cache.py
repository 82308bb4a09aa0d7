"""What the informers saw and what our own writes returned: the only thing that reconciling reads.

Taking over the answers of our own writes means that neither a GET nor a second reconcile follows a write. Events may
come late, twice or in another order, and lists may be old: an older version never replaces a newer one, and what was
deleted stays deleted (a UID is never used again). Only a deletion removes anything, either reported or concluded from a
complete list that is newer than what it lacks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from opengpu_operator.api.labels import TASK_UID
from opengpu_operator.kube.kinds import NAMESPACE, TASK, Kind
from opengpu_operator.kube.trim import trim

Object = Mapping[str, Any]
_Key = tuple[str, str]
_K = TypeVar("_K")
_V = TypeVar("_V")

#: How many deletions are remembered. They only have to outlive answers and lists that are under way.
_TOMBSTONES: Final = 8192


class Cache:
    """Objects by kind, namespace and name. What it returns is shared: nobody may change it."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[_Key, dict[str, Any]]] = {}
        self._children: dict[str, dict[tuple[Kind, str, str], None]] = {}
        self._tasks: dict[_Key, dict[str, None]] = {}
        self._owned: dict[_Key, dict[str, None]] = {}
        self._dead: set[str] = set()
        self._dead_order: deque[str] = deque()

    def put(self, kind: Kind, obj: Object) -> bool:
        """Take over an object; return whether that changed anything that is kept, besides the resource version.

        An older version than the one that is known, and any version of what was deleted, is ignored.
        """
        metadata = obj["metadata"]
        uid = metadata["uid"]
        if uid in self._dead:
            return False
        key = (metadata.get("namespace") or "", metadata["name"])
        objects = self._objects.setdefault(kind, {})
        before = objects.get(key)
        if before is not None and not _newer(
            metadata["resourceVersion"], before["metadata"]["resourceVersion"]
        ):
            return False
        after = trim(kind, obj)
        if before is not None:
            if before["metadata"]["uid"] == uid:
                version = after["metadata"]["resourceVersion"]
                before["metadata"]["resourceVersion"] = version
                if before == after:
                    return False
            else:
                self._bury(before["metadata"]["uid"])
            self._unindex(kind, key, before)
        objects[key] = after
        self._index(kind, key, after)
        return True

    def drop(self, kind: Kind, namespace: str | None, name: str, uid: str) -> bool:
        """Forget the object ``uid`` for good; return whether it was known."""
        self._bury(uid)
        key = (namespace or "", name)
        objects = self._objects.get(kind, {})
        known = objects.get(key)
        if known is None or known["metadata"]["uid"] != uid:
            return False
        del objects[key]
        self._unindex(kind, key, known)
        return True

    def knows(self, kind: Kind, obj: Object) -> bool:
        """Return whether this version of an object, a newer one or its deletion is known."""
        metadata = obj["metadata"]
        if metadata["uid"] in self._dead:
            return True
        known = self.get(kind, metadata.get("namespace"), metadata["name"])
        return known is not None and not _newer(
            metadata["resourceVersion"], known["metadata"]["resourceVersion"]
        )

    def absent(
        self, kind: Kind, listed: Iterable[Object], *, resource_version: str, namespace: str | None = None
    ) -> list[Object]:
        """Return the objects (of a namespace) whose deletion we missed, going by a complete list.

        What is newer than the list stays: the list can't know it.
        """
        present = {obj["metadata"]["uid"] for obj in listed}
        return [
            obj
            for obj in self.all(kind, namespace)
            if obj["metadata"]["uid"] not in present
            and not _newer(obj["metadata"]["resourceVersion"], resource_version)
        ]

    def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """Return an object; None if there is none that we know of."""
        return self._objects.get(kind, {}).get((namespace or "", name))

    def all(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """Return all objects of a kind, or those in one namespace."""
        objects = self._objects.get(kind, {})
        if namespace is None:
            return list(objects.values())
        return [obj for (where, _), obj in objects.items() if where == namespace]

    def count(self, kind: Kind) -> int:
        """Return how many objects of a kind there are."""
        return len(self._objects.get(kind, {}))

    def children(self, task_uid: str, kind: Kind | None = None) -> list[tuple[Kind, Object]]:
        """Return the objects that are labelled as a task's (of one kind)."""
        return [
            (child, self._objects[child][namespace, name])
            for child, namespace, name in self._children.get(task_uid, ())
            if kind is None or child == kind
        ]

    def tasks_of(self, namespace: str, source: str) -> list[Object]:
        """Return the tasks that refer to a source."""
        tasks = self._objects.get(TASK, {})
        return [tasks[namespace, name] for name in self._tasks.get((namespace, source), ())]

    def tasks_of_owner(self, namespace: str, owner: str) -> list[Object]:
        """Return the tasks of a namespace that name an owner."""
        tasks = self._objects.get(TASK, {})
        return [tasks[namespace, name] for name in self._owned.get((namespace, owner), ())]

    def terminating(self, namespace: str) -> bool:
        """Return whether a namespace is being deleted, so that nothing can be made in it any more."""
        found = self.get(NAMESPACE, None, namespace)
        return found is not None and "deletionTimestamp" in found["metadata"]

    def _bury(self, uid: str) -> None:
        if uid in self._dead:
            return
        self._dead.add(uid)
        self._dead_order.append(uid)
        if len(self._dead_order) > _TOMBSTONES:
            self._dead.discard(self._dead_order.popleft())

    def _index(self, kind: Kind, key: _Key, obj: dict[str, Any]) -> None:
        owner = obj["metadata"].get("labels", {}).get(TASK_UID)
        if owner is not None:
            self._children.setdefault(owner, {})[kind, *key] = None
        source = _source(kind, obj)
        if source is not None:
            self._tasks.setdefault((key[0], source), {})[key[1]] = None
        named = _owner(kind, obj)
        if named is not None:
            self._owned.setdefault((key[0], named), {})[key[1]] = None

    def _unindex(self, kind: Kind, key: _Key, obj: dict[str, Any]) -> None:
        owner = obj["metadata"].get("labels", {}).get(TASK_UID)
        if owner is not None:
            _discard(self._children, owner, (kind, *key))
        source = _source(kind, obj)
        if source is not None:
            _discard(self._tasks, (key[0], source), key[1])
        named = _owner(kind, obj)
        if named is not None:
            _discard(self._owned, (key[0], named), key[1])


def _discard(index: dict[_K, dict[_V, None]], key: _K, value: _V) -> None:
    values = index.get(key)
    if values is None:
        return
    values.pop(value, None)
    if not values:
        del index[key]


def _source(kind: Kind, obj: Object) -> str | None:
    if kind != TASK:
        return None
    name = obj.get("spec", {}).get("sourceRef", {}).get("name")
    return str(name) if name is not None else None


def _owner(kind: Kind, obj: Object) -> str | None:
    named = obj.get("spec", {}).get("owner") if kind == TASK else None
    return str(named) if named is not None else None


def _newer(new: str, old: str) -> bool:
    # Kubernetes promises comparable numbers since 1.35, and etcd always gave them.
    if new.isdecimal() and old.isdecimal():
        return int(new) > int(old)
    return new != old

"""How far a task's files are open to the outside: what it asks for, or its namespace, as far as the cluster allows."""

from __future__ import annotations

from dataclasses import dataclass

from opengpu_operator.api.labels import EXTERNAL_STORAGE
from opengpu_operator.api.task import External, TaskSpec
from opengpu_operator.settings import Settings

_ORDER = (External.OFF, External.LINKS, External.PUBLIC)
#: In the annotation: every owner that isn't listed, and tasks without one.
_ANYBODY = "*"


@dataclass(frozen=True, kw_only=True)
class Granted:
    """What a task gets."""

    mode: External = External.OFF
    asked: External = External.OFF
    why: str = ""
    """Why it is less than was asked for; empty if it isn't."""


def grant(spec: TaskSpec, *, annotation: str | None, settings: Settings) -> Granted:
    """Decide. ``annotation`` is the namespace's, which gives the default: ``alice=Links, *=Public``."""
    own = spec.storage.external if spec.storage else None
    if own is None:
        try:
            asked = _defaults(annotation or "")
        except ValueError as error:
            return Granted(why=f"the namespace's annotation {EXTERNAL_STORAGE} is malformed: {error}")
        own = asked.get(spec.owner or _ANYBODY, asked.get(_ANYBODY, External.OFF))
    allowed = External(settings.storage.external.allowed)
    if own is External.OFF:
        return Granted()
    if settings.store.external_url is None:
        why = "this cluster's store isn't reachable from outside (the chart's store.external.enabled)"
        return Granted(asked=own, why=why)
    if _ORDER.index(own) > _ORDER.index(allowed):
        why = f"{own} was asked for; this cluster allows {allowed} (settings.storage.external.allowed)"
        return Granted(mode=allowed, asked=own, why=why)
    return Granted(mode=own, asked=own)


def _defaults(annotation: str) -> dict[str, External]:
    found = {}
    for entry in annotation.replace(",", " ").split():
        owner, equals, mode = entry.rpartition("=")
        if not equals or not owner or mode not in _ORDER:
            raise ValueError(f"{entry[:80]!r} is not OWNER={'|'.join(_ORDER)}")
        found[owner] = External(mode)
    return found

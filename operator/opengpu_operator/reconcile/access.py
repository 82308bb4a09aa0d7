"""Who reaches a task's files from outside: the claims of its tokens, and what its status says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpux import tokens
from opengpu_operator.api.reasons import ConditionType, Reason
from opengpu_operator.api.task import External, TaskStatus
from opengpu_operator.desired.context import FilesAccess
from opengpu_operator.desired.external import Granted
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.settings import Settings

_SAID = {
    External.LINKS: (
        Reason.LINKS,
        "files can be fetched with the token in the Secret, and by links made with it",
    ),
    External.PUBLIC: (Reason.PUBLIC, "whoever knows the hash of an uploaded file can fetch it"),
}


def claims(granted: Granted) -> dict[str, bool]:
    """Return what the agent's token says of the outside."""
    return {
        **({"external": True} if granted.mode is not External.OFF else {}),
        **({"public": True} if granted.mode is External.PUBLIC else {}),
    }


def files(key: bytes, job: Mapping[str, Any], *, granted: Granted, settings: Settings) -> FilesAccess | None:
    """Return the way to a task's files, whose token has the job's claims; None for a task that isn't open."""
    if granted.mode is External.OFF or settings.store.external_url is None:
        return None
    outside = {**job, "scope": "files", "exp": job["exp"] + settings.storage.external.grace_seconds}
    return FilesAccess(settings.store.external_url, tokens.sign(key, outside))


def say(draft: Draft[TaskStatus], granted: Granted) -> None:
    """Say how far the task is open, if anybody wanted it to be."""
    if granted.why:
        draft.set(ConditionType.EXTERNAL, status=False, reason=Reason.CAPPED, message=granted.why)
    elif granted.mode is External.OFF:
        draft.drop(ConditionType.EXTERNAL)
    else:
        reason, message = _SAID[granted.mode]
        draft.set(ConditionType.EXTERNAL, status=True, reason=reason, message=message)

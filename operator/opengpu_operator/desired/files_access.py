"""The Secret with which people and programs outside reach a task's files: the store's address and a token for it.

It is in the task's namespace, so that who may read Secrets there decides who has it. It stays when the task has ended,
since results are fetched after the end, and goes with the task.
"""

from __future__ import annotations

from typing import Any

from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext

Object = dict[str, Any]


def objects(context: JobContext) -> list[Object]:
    """Return the Secret; nothing for a task that isn't open to the outside."""
    if context.files is None:
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": labels.metadata(
                names.child(context.name, "files"),
                context,
                labels=labels.of_job(context),
                owner=context.owner_reference,
            ),
            "type": "Opaque",
            "stringData": {"url": context.files.url, "token": context.files.token},
        }
    ]

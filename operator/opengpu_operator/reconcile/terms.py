"""The source's terms, which bind every task, on a chain or not."""

from __future__ import annotations

from dataclasses import dataclass

from opengpu_operator.api.source import Source
from opengpu_operator.api.task import Task


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A term that a task breaks: the task's field, and a sentence that says what would be accepted."""

    field: str
    message: str


def violations(task: Task, source: Source) -> list[Violation]:
    """Return every term of ``source`` that ``task`` breaks, in the order of the fields' importance."""
    found = []
    terms = source.spec
    if terms.min_payment is not None and int(task.spec.payment or 0) < int(terms.min_payment):
        found.append(
            Violation(
                field="payment",
                message=f"payment is {task.spec.payment or 0} wei, the source asks for at least {terms.min_payment}",
            )
        )
    limit = terms.max_expiry_seconds
    if limit is not None and task.spec.expiry_seconds is not None and task.spec.expiry_seconds > limit:
        found.append(
            Violation(
                field="expirySeconds",
                message=f"expirySeconds is {task.spec.expiry_seconds}, the source allows at most {limit}",
            )
        )
    wanted = task.spec.environment or "Auto"
    offered = [str(name) for name in terms.image_envs.offered()] if terms.image_envs else []
    if wanted != "Auto" and wanted not in offered:
        found.append(
            Violation(
                field="environment",
                message=f"environment {wanted} is not offered; the source has {', '.join(offered) or 'none'}",
            )
        )
    return found

"""From the bytes of a Compose file to a Translation: the steps in order, and the seams between them.

Reading strangers' YAML is CPU work, so it runs in a thread; kompose is a process of its own. Every step adds to one
report, and a later step runs only where the earlier ones left something to read.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.compose import (
    detect,
    interpolate,
    load,
    overlay,
    plan,
    policy,
    project,
    sanitise,
    schema,
    shape,
)
from opengpu_operator.compose.findings import FindingReason, Report

PROJECT_NAME: Final = "COMPOSE_PROJECT_NAME"
_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DEFAULT_NAME: Final = "opengpu"
#: Of a translation as JSON: it is kept in one object, and its files become one, for which etcd has room.
MAX_RESULT: Final = 1024 * 1024


class Converter(Protocol):
    """What the pipeline needs of kompose."""

    async def convert(self, file: bytes) -> dict[str, dict[str, Any]]:
        """Return the Deployments that are made of a file, by name."""


def digest(text: bytes | str) -> str:
    """Return the digest that names a file's content."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def translate(text: bytes | str, options: TranslateOptions, *, kompose: Converter) -> Translation:
    """Translate one file. Raises KomposeError where kompose fails; a bad file is a refused Translation."""
    report = Report()
    planned = await asyncio.to_thread(_read, text, options, report)
    result = Translation(digest=digest(text), environment=options.environment)
    if planned is None or report.refused:
        result.findings = report.findings()
        return result
    file, intended = planned
    deployments = await kompose.convert(file)
    result.services = await asyncio.to_thread(overlay.services, intended, deployments)
    result.volumes = intended.volumes
    result.files = intended.files
    result.worker = intended.worker
    result.findings = report.findings()
    if len(result.model_dump_json()) > MAX_RESULT:
        report.add(
            FindingReason.TOO_LARGE, (), "What the file becomes is larger than an object in a cluster can be."
        )
        return Translation(digest=result.digest, environment=options.environment, findings=report.findings())
    return result


def _read(text: bytes | str, options: TranslateOptions, report: Report) -> tuple[bytes, plan.Plan] | None:
    """Do everything in front of kompose; None where the file can't be read."""
    document = _load(text, report)
    if document is None:
        return None
    variables = {PROJECT_NAME: _project_name(document.data, options.variables)} | options.variables
    options = options.model_copy(update={"variables": variables})
    data = interpolate.interpolate(document.data, variables, report)
    data = schema.mend(data, report)
    wrong = schema.check(data, report)
    if not shape.check(data, report, wrong=wrong):
        return None
    parsed = project.build(data, profiles=options.profiles, report=report, replaced=document.replaced)
    policy.check(parsed, report)
    shape.report_ignored_top(data, report)
    for service in parsed.services.values():
        shape.report_ignored(service.raw, service.path, report)
    intended = plan.make(parsed, options, report)
    if report.refused:
        return None
    return sanitise.sanitised_file(intended), intended


def _project_name(data: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Return the name of a file's project, which Compose sets as a variable: the file's own, or always the same."""
    written = data.get("name")
    if not isinstance(written, str):
        return _DEFAULT_NAME
    try:
        name = interpolate.substitute(written, variables, unset=lambda _: None)
    except ValueError:
        # It is reported where the whole file is read.
        return _DEFAULT_NAME
    return name if _PROJECT.fullmatch(name) else _DEFAULT_NAME


def _load(text: bytes | str, report: Report) -> load.Document | None:
    """Return a document that is a mapping, or None."""
    decoded = load.decode(text, report)
    if decoded is None or detect.looks_foreign(decoded, report):
        return None
    attempt = Report()
    document = load.load(decoded, attempt)
    if document is None and attempt.unreadable and detect.unreadable_is_foreign(decoded):
        report.add(
            FindingReason.NOT_A_COMPOSE_FILE, (), "This is neither YAML nor a Compose file.", at=(1, 1)
        )
        return None
    report.take(attempt)
    if document is None or not detect.check_data(document.data, report):
        return None
    report.positions = document.positions
    return document

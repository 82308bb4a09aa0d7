"""A Compose file as the operator would take it, without a cluster: read or fetched, translated, made into a job."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.findings import FileReport, Finding
from opengpu_operator.api.jobid import job_id, job_name
from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.source import Environment
from opengpu_operator.api.task import SourceRef, TaskSpec
from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.cli.places import Places
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.fetch import Fetcher, FetchError
from opengpu_operator.compose.findings import FindingReason, Report
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.job import JobObjects, build
from opengpu_operator.settings import Settings

#: The resolver's address in most clusters; the operator uses its own.
DEFAULT_NAMESERVER: Final = "10.96.0.10"


class Unusable(Exception):
    """There is nothing to judge: a file can't be had, or the target is wrong."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The task that the file is for, as far as its objects depend on it."""

    name: str | None = None
    """None: the file's."""
    namespace: str = "default"
    nameservers: Sequence[str] = (DEFAULT_NAMESERVER,)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What became of a file."""

    file: str
    environment: Environment | None
    """The hardware it is for: as told, or its GPUs'. None where a refused file wasn't told any."""
    findings: list[Finding]
    """In the file, and in a job."""
    translation: Translation | None = None
    """None where there is no text that could be a file's."""
    job: JobObjects | None = None
    """None where the file is refused."""
    places: Places
    """Where its keys are."""

    @property
    def report(self) -> FileReport:
        """The same as others have it."""
        return FileReport(
            environment=self.environment,
            digest=self.translation.digest if self.translation else None,
            findings=self.findings,
        )


async def look(
    file: str, options: TranslateOptions, *, kompose: pipeline.Converter, target: Target
) -> Looked:
    """Look at a file: a path, a URL, or - for standard input.

    Raises Unusable, and KomposeError where kompose fails.
    """
    told = Environment(options.environment) if options.environment else None
    try:
        text = await _read(file)
    except FetchError as error:
        if error.reason != Reason.NOT_A_COMPOSE_FILE:
            raise Unusable(f"{file}: {error.reason}: {error.message}") from error
        report = Report()
        report.add(FindingReason.NOT_A_COMPOSE_FILE, message=error.message)
        return Looked(file=file, environment=told, findings=report.findings(), places=Places(""))
    translation = await pipeline.translate(text, options, kompose=kompose)
    looked = Looked(
        file=file,
        environment=told,
        findings=translation.findings,
        translation=translation,
        places=Places(text),
    )
    return looked if translation.refused else _with_job(looked, translation, target)


def _with_job(looked: Looked, translation: Translation, target: Target) -> Looked:
    """Return the same with the job that is made of the translation, or with why there can't be one."""
    environment = looked.environment or _hardware(translation)
    try:
        job = build(translation, _context(looked.file, environment, target), Settings())
    except Invalid as error:
        refusal = remark(JobFinding.COMPOSE_REFUSED, path="", message=error.message)
        return replace(looked, environment=environment, findings=[*looked.findings, refusal])
    except ValueError as error:
        raise Unusable(str(error)) from error
    findings = [*looked.findings, *map(looked.places.locate, job.findings)]
    return replace(looked, environment=environment, findings=findings, job=job)


async def _read(file: str) -> bytes | str:
    if "://" in file:
        # The operator's own rules: what it wouldn't fetch isn't fetched here.
        return (await Fetcher().fetch(file)).text
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Unusable(f"{file} can't be read: {error.strerror}") from error


def _hardware(translation: Translation) -> Environment:
    vendors = [service.gpu.vendor.value for service in translation.services if service.gpu is not None]
    return Environment(vendors[0]) if vendors else Environment.CPU


def _context(file: str, environment: Environment, target: Target) -> JobContext:
    """Return the context of a task that calls the file's worker, or keeps its services running."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(file).stem.lower()).strip("-")[:63].strip("-")
    name = target.name or stem or "task"
    # No moment and no UID in particular, so that the same command prints the same manifest.
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{target.namespace}/{name}"))
    job = job_id(datetime.fromtimestamp(0, tz=UTC), uid)
    return JobContext(
        name=job_name(job),
        job_id=job,
        namespace=target.namespace,
        task=name,
        task_uid=uid,
        source=name,
        source_uid=None,
        owner_reference=None,
        source_owner_reference=None,
        environment=environment,
        spec=TaskSpec(source_ref=SourceRef(name=name)),
        resolvers=target.nameservers,
        token=None,
        call=True,
    )

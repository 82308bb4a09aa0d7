"""``opengpu translate``: show what a Compose file becomes, without a cluster.

The manifest goes to standard output, what was found in the file to standard error. Exit status: 0 translated,
1 refused, 2 the command itself is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.jobid import job_id, job_name
from opengpu_operator.api.labels import CALLBACK_PORT, WORKER_PORT
from opengpu_operator.api.source import Environment
from opengpu_operator.api.task import SourceRef, TaskSpec
from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.kompose import Kompose, KomposeError, find
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.job import build
from opengpu_operator.settings import Settings

#: What the operator itself sets, as far as it is the same for every task.
DEFAULT_VARIABLES: Final = {"PORT": str(WORKER_PORT), "CALLBACK_URL": f"http://127.0.0.1:{CALLBACK_PORT}"}
#: The resolver's address in most clusters; the operator uses its own.
DEFAULT_NAMESERVER: Final = "10.96.0.10"

TRANSLATED, REFUSED, USAGE = 0, 1, 2

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_COLOURS: Final = {Severity.ERROR: "\x1b[31m", Severity.WARNING: "\x1b[33m", Severity.INFO: "\x1b[36m"}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


def register(commands: Any) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "translate", help="show what a Compose file becomes", description=__doc__, allow_abbrev=False
    )
    command.add_argument("file", metavar="FILE", help="a Compose file, or - for standard input")
    command.add_argument(
        "--environment",
        choices=[entry.value for entry in Environment],
        help="the hardware it is for (default: its GPUs')",
    )
    command.add_argument(
        "--var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        type=_variable,
        help="a variable that the file may use",
    )
    command.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help="a profile to activate; * is all of them",
    )
    command.add_argument("--name", type=_name, help="the task's name (default: the file's)")
    command.add_argument(
        "--namespace", default="default", type=_name, help="the task's namespace (default: default)"
    )
    command.add_argument(
        "--nameserver",
        action="append",
        default=[],
        metavar="ADDRESS",
        help=f"a resolver of the cluster (default: {DEFAULT_NAMESERVER})",
    )
    command.set_defaults(run=run)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        msg = f"{text!r} is not NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name, value


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        msg = f"{text!r} is not a name: lower-case letters, digits and hyphens, at most 63"
        raise argparse.ArgumentTypeError(msg)
    return text


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    try:
        text = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
    except OSError as error:
        return _fail(f"{arguments.file} can't be read: {error.strerror}")
    options = TranslateOptions(
        environment=arguments.environment,
        variables=DEFAULT_VARIABLES | dict(arguments.var),
        profiles=arguments.profile,
    )
    try:
        translation = asyncio.run(pipeline.translate(text, options, kompose=Kompose(find())))
    except KomposeError as error:
        return _fail(str(error))
    findings = list(translation.findings)
    if translation.refused:
        show(findings, sys.stderr)
        return REFUSED
    try:
        job = build(translation, _context(arguments, translation), Settings())
    except Invalid as error:
        show(findings, sys.stderr)
        print(f"opengpu: {error.message}", file=sys.stderr)
        return REFUSED
    except ValueError as error:
        return _fail(str(error))
    show([*findings, *job.findings], sys.stderr)
    yaml.dump_all(
        job.everything,
        sys.stdout,
        Dumper=_Dumper,
        sort_keys=False,
        explicit_start=True,
        allow_unicode=True,
        width=120,
    )
    return TRANSLATED


def _fail(message: str) -> int:
    print(f"opengpu: {message}", file=sys.stderr)
    return USAGE


class _Dumper(yaml.SafeDumper):
    """Writes no aliases: people read and edit manifests."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _context(arguments: argparse.Namespace, translation: Translation) -> JobContext:
    """Return the context of a task that calls the file's worker, or keeps its services running."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(arguments.file).stem.lower()).strip("-")[:63].strip("-")
    name = arguments.name or stem or "task"
    # No moment and no UID in particular, so that the same command prints the same manifest.
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{arguments.namespace}/{name}"))
    job = job_id(datetime.fromtimestamp(0, tz=UTC), uid)
    return JobContext(
        name=job_name(job),
        job_id=job,
        namespace=arguments.namespace,
        task=name,
        task_uid=uid,
        source=name,
        source_uid=None,
        owner_reference=None,
        source_owner_reference=None,
        environment=Environment(arguments.environment or _hardware(translation)),
        spec=TaskSpec(source_ref=SourceRef(name=name)),
        resolvers=arguments.nameserver or [DEFAULT_NAMESERVER],
        token=None,
        call=True,
    )


def _hardware(translation: Translation) -> str:
    vendors = [service.gpu.vendor.value for service in translation.services if service.gpu is not None]
    return vendors[0] if vendors else Environment.CPU.value


def show(findings: Iterable[Finding], stream: TextIO) -> None:
    """Print findings as a table; in colour on a terminal."""
    rows = list(findings)
    if not rows:
        return
    colour = stream.isatty()
    places = [f"{row.line or '-'}:{row.column or '-'}" for row in rows]
    widths = (
        max(len(row.severity.value) for row in rows),
        max(len(row.reason) for row in rows),
        max(len(place) for place in places),
    )
    for row, place in zip(rows, places, strict=True):
        severity = row.severity.value.ljust(widths[0])
        if colour:
            severity = f"{_COLOURS[row.severity]}{severity}{_PLAIN}"
        where = f"{row.path}: " if row.path else ""
        advice = (
            f" {_DIM}{row.advice}{_PLAIN}"
            if colour and row.advice
            else f" {row.advice}"
            if row.advice
            else ""
        )
        print(
            f"{severity}  {row.reason.ljust(widths[1])}  {place.ljust(widths[2])}  {where}{row.message}{advice}",
            file=stream,
        )

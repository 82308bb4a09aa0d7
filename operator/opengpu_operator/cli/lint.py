"""``opengpu lint``: say what is wrong with Compose files, or would surprise, without a cluster.

Files and URLs are read, translated and made into jobs as the operator does it. Several files are taken for those of
one source, each for other hardware, and what they offer differently is said too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from opengpu_operator.api.findings import Finding
from opengpu_operator.api.source import Environment
from opengpu_operator.cli import options, sarif
from opengpu_operator.cli.look import Looked, Target, Unusable, look
from opengpu_operator.cli.table import show_in_files, summary
from opengpu_operator.compose import differences
from opengpu_operator.compose.kompose import Kompose, KomposeError, find

_EPILOG: Final = """\
exit status: 0 no file is refused, 1 one is refused, 2 the command itself is wrong or a file can't be read

examples:
  opengpu lint compose.yaml
  opengpu lint cpu=cpu.yaml nvidia=https://example.org/nvidia.yaml
  opengpu lint --format sarif compose.yaml > opengpu.sarif
"""

_Named = tuple[Environment | None, str]


def register(commands: Any) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "lint",
        help="say what is wrong with Compose files",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=_named,
        help="a Compose file or its URL, or - for standard input; cpu=FILE, nvidia=FILE and amd=FILE say what "
        "hardware it is for",
    )
    options.add(command)
    command.add_argument(
        "--format",
        choices=["table", "json", "sarif"],
        default="table",
        help="table for people (default), json, or SARIF 2.1.0",
    )
    command.set_defaults(run=run)


def _named(text: str) -> _Named:
    name, equals, file = text.partition("=")
    if equals and file and name in set(Environment):
        return Environment(name), file
    return None, text


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    told = [environment for environment, _ in arguments.files if environment is not None]
    if twice := sorted({environment.value for environment in told if told.count(environment) > 1}):
        return options.fail(f"{', '.join(twice)}: a source has one file for each environment")
    try:
        found, unusable = asyncio.run(_look(arguments))
    except KomposeError as error:
        return options.fail(str(error))
    if unusable:
        return options.fail(*unusable)
    different = _differences(found)
    _PRINTERS[arguments.format](found, different)
    return options.REFUSED if any(looked.report.refused for looked in found) else options.GOOD


async def _look(arguments: argparse.Namespace) -> tuple[list[Looked], list[str]]:
    """Look at all files; return also why some of them can't be read."""
    kompose, found, unusable = Kompose(find()), [], []
    for environment, file in arguments.files:
        try:
            read = options.read(arguments, environment)
            found.append(await look(file, read, kompose=kompose, target=Target()))
        except Unusable as error:
            unusable.append(str(error))
    return found, unusable


def _differences(found: Sequence[Looked]) -> list[tuple[Looked, Finding]]:
    """Return what the files of a source offer differently, each with the file that differs."""
    files = {looked.environment: looked for looked in found if looked.environment is not None}
    if len(files) < sum(looked.environment is not None for looked in found):
        print(
            "opengpu: several files are for the same hardware, so the files aren't compared; cpu=FILE, nvidia=FILE "
            "and amd=FILE say what each is for",
            file=sys.stderr,
        )
        return []
    translations = {
        environment: looked.translation
        for environment, looked in files.items()
        if looked.translation is not None
    }
    return [
        (files[environment], files[environment].places.locate(finding))
        for environment, findings in differences.compare(translations).items()
        for finding in findings
    ]


def _table(found: Sequence[Looked], different: Sequence[tuple[Looked, Finding]]) -> None:
    rows = [
        (looked.file, finding)
        for looked in found
        for finding in [*looked.findings, *(finding for other, finding in different if other is looked)]
    ]
    show_in_files(rows, sys.stdout)
    print(summary(finding for _, finding in rows))


def _json(found: Sequence[Looked], different: Sequence[tuple[Looked, Finding]]) -> None:
    document = {
        "files": [{"file": looked.file, **looked.report.dump()} for looked in found],
        "differences": [
            {
                "file": looked.file,
                "environment": looked.environment,
                **finding.model_dump(mode="json", by_alias=True),
            }
            for looked, finding in different
        ],
    }
    print(json.dumps(document, indent=2))


def _sarif(found: Sequence[Looked], different: Sequence[tuple[Looked, Finding]]) -> None:
    each = [(looked.file, finding) for looked in found for finding in looked.findings]
    document = sarif.document([*each, *((looked.file, finding) for looked, finding in different)])
    print(json.dumps(document, indent=2))


_PRINTERS: Final = {"table": _table, "json": _json, "sarif": _sarif}

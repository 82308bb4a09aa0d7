"""``opengpu translate``: show what a Compose file becomes, without a cluster.

The manifest goes to standard output, what was found in the file to standard error. Exit status: 0 translated,
1 refused, 2 the command itself is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from typing import Any, Final

import yaml

from opengpu_operator.cli import options
from opengpu_operator.cli.look import DEFAULT_NAMESERVER, Target, Unusable, look
from opengpu_operator.cli.table import show
from opengpu_operator.compose.kompose import Kompose, KomposeError, find

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def register(commands: Any) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "translate", help="show what a Compose file becomes", description=__doc__, allow_abbrev=False
    )
    command.add_argument("file", metavar="FILE", help="a Compose file or its URL, or - for standard input")
    options.add(command)
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


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        msg = f"{text!r} is not a name: lower-case letters, digits and hyphens, at most 63"
        raise argparse.ArgumentTypeError(msg)
    return text


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    target = Target(
        name=arguments.name,
        namespace=arguments.namespace,
        nameservers=arguments.nameserver or [DEFAULT_NAMESERVER],
    )
    try:
        kompose = Kompose(find())
        looked = asyncio.run(look(arguments.file, options.read(arguments), kompose=kompose, target=target))
    except (Unusable, KomposeError) as error:
        return options.fail(str(error))
    show(looked.findings, sys.stderr)
    if looked.job is None:
        return options.REFUSED
    yaml.dump_all(
        looked.job.everything,
        sys.stdout,
        Dumper=_Dumper,
        sort_keys=False,
        explicit_start=True,
        allow_unicode=True,
        width=120,
    )
    return options.GOOD


class _Dumper(yaml.SafeDumper):
    """Writes no aliases: people read and edit manifests."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

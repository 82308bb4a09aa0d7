"""``opengpu storage``: what of ``/gpux_usr`` there is in a cluster, whose it is, and when it goes.

It reads with the rights of whoever calls it, by their kubeconfig, and changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

from opengpu_operator.cli.options import GOOD, fail


def register(commands: Any) -> None:
    """Add the subcommand to the parser."""
    storage = commands.add_parser("storage", help="look at the volumes of owners and jobs")
    actions = storage.add_subparsers(dest="action", required=True, metavar="ACTION")
    ls = actions.add_parser(
        "ls", help="list volumes", description="Lists what there is of /gpux_usr, by owner."
    )
    where = ls.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", help="instead of the current one")
    where.add_argument(
        "-A", "--all-namespaces", action="store_true", help="of every namespace, instead of the current one"
    )
    ls.add_argument("--all", action="store_true", help="volumes of jobs and sources too")
    ls.add_argument("-o", "--output", choices=["table", "json"], default="table")
    ls.add_argument("--kubeconfig", type=Path, help="instead of $KUBECONFIG or ~/.kube/config")
    ls.add_argument("--context", help="a context of the kubeconfig other than its current one")
    ls.set_defaults(run=_ls)


def _ls(arguments: argparse.Namespace) -> int:
    # The client costs half a second, which those who only look at files needn't wait for.
    from opengpu_operator.cli.claims import ERRORS, current, read, rows, table  # noqa: PLC0415

    kubeconfig = arguments.kubeconfig or Path(
        os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"
    )
    try:
        namespace = None
        if not arguments.all_namespaces:
            namespace = arguments.namespace or current(kubeconfig, arguments.context)
        claims, tasks = asyncio.run(read(kubeconfig, arguments.context, namespace))
    except ERRORS as error:
        return fail(str(error))
    found = rows(claims, tasks, everything=arguments.all)
    if arguments.output == "json":
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(table(found, everything=arguments.all)))
    return GOOD

"""What the commands that read Compose files have in common on their command lines."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import TranslateOptions, network_variables

#: Exit statuses.
GOOD, REFUSED, USAGE = 0, 1, 2


def add(command: Any) -> None:
    """Add the options that a translation depends on."""
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


def read(arguments: argparse.Namespace, environment: str | None = None) -> TranslateOptions:
    """Return what was given of them; an environment that is told otherwise comes first."""
    return TranslateOptions.model_validate(
        {
            "environment": environment or arguments.environment,
            "variables": network_variables() | dict(arguments.var),
            "profiles": arguments.profile,
        }
    )


def fail(*messages: str) -> int:
    """Say why a command can't do its work; returns the exit status."""
    for message in messages:
        print(f"opengpu: {message}", file=sys.stderr)
    return USAGE


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        msg = f"{text!r} is not NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name, value

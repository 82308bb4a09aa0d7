"""The entry point of ``opengpu``: parses the command line and hands over to a subcommand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from opengpu_operator.cli import files, lint, owner, storage, translate


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    root = argparse.ArgumentParser(prog="opengpu", description="OpenGPU and GPUX on Kubernetes.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    translate.register(commands)
    lint.register(commands)
    files.register(commands)
    storage.register(commands)
    owner.register(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who reads has seen enough (``| head``); what is left in the buffer mustn't fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


if __name__ == "__main__":
    sys.exit(main())

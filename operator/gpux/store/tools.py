"""Look after a store by hand: ``python3 -m gpux.store check|scrub --root DIRECTORY`` and ``… drop REFERENCE``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from gpux import tokens
from gpux.files import Disk
from gpux.filestore.check import check
from gpux.filestore.layout import Layout
from gpux.filestore.scrub import scrub_now
from gpux.filestore.shelves import Shelves

TOOLS = ("check", "drop", "scrub")


def main(arguments: list[str]) -> int:
    """Do it; the exit status is 1 if anything is wrong with what is stored."""
    parser = argparse.ArgumentParser(prog="gpux-store")
    tools = parser.add_subparsers(dest="tool", required=True)
    for name, text in (
        ("check", "see whether everything is there, and right"),
        ("scrub", "move rotten files aside"),
    ):
        tool = tools.add_parser(name, help=text)
        tool.add_argument("--root", type=Path, required=True, help="directory of what is stored")
        tool.add_argument(
            "--bytes-per-second", type=float, help="read no faster (default: as fast as it goes)"
        )
    tool = tools.add_parser(
        "drop", help="have a store that is at work end a reference to all files that have it"
    )
    tool.add_argument("reference", help="task:UID, owner:NAME or keep:NAME")
    tool.add_argument("--namespace", help="only there (default: everywhere)")
    tool.add_argument("--url", default="http://127.0.0.1:8080", help="the store (default: %(default)s)")
    tool.add_argument("--key-file", type=Path, required=True, help="the key that tokens are signed with")
    options = parser.parse_args(arguments)
    return _drop(options) if options.tool == "drop" else _read(options)


def _read(options: argparse.Namespace) -> int:
    """Check or scrub."""
    layout = Layout(str(options.root))
    if not (options.root / "sha256").is_dir():
        sys.stderr.write(
            f"--root: {options.root} is no directory of a store; it should hold a folder sha256\n"
        )
        return 2

    def pause(size: int) -> bool:
        if options.bytes_per_second:
            time.sleep(size / options.bytes_per_second)
        return True

    if options.tool == "scrub":
        found = scrub_now(Shelves(layout, disk=Disk(), clock=time.time), pause=pause)
        _print(found._asdict())
        return int(bool(found.quarantined or found.unreadable))
    report = check(layout, pause=pause)
    for problem in report.problems:
        _print(problem._asdict())
    _print({**report.counts, "problems": len(report.problems)})
    return int(bool(report.problems))


def _drop(options: argparse.Namespace) -> int:
    claims = {"scope": "operator", "exp": int(time.time()) + 60}
    token = tokens.sign(tokens.load_key(options.key_file), claims)
    query = f"?{urlencode({'namespace': options.namespace})}" if options.namespace else ""
    request = Request(  # noqa: S310 a store's address is given by whoever holds its key
        f"{options.url}/v1/references/{quote(options.reference, safe=':@')}{query}",
        method="DELETE",
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        urlopen(request, timeout=600).close()  # noqa: S310 the same
    except HTTPError as error:
        sys.stderr.write(
            f"the store refused: HTTP {error.code}: {error.read(1000).decode(errors='replace')}\n"
        )
        return 1
    except OSError as error:
        sys.stderr.write(f"--url: the store can't be reached at {options.url}: {error}\n")
        return 1
    return 0


def _print(document: object) -> None:
    print(json.dumps(document))  # noqa: T201 what the command is for

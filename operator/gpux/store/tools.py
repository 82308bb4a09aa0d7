"""``python3 -m gpux.store check|scrub --root DIRECTORY``: look after a store's directory by hand."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from gpux.files import Disk
from gpux.filestore.check import check
from gpux.filestore.layout import Layout
from gpux.filestore.scrub import scrub_now
from gpux.filestore.shelves import Shelves


def main(arguments: list[str]) -> int:
    """Do it; the exit status is 1 if anything is wrong with what is stored."""
    parser = argparse.ArgumentParser(prog="gpux-store")
    parser.add_argument("tool", choices=["check", "scrub"])
    parser.add_argument("--root", type=Path, required=True, help="directory of what is stored")
    parser.add_argument(
        "--bytes-per-second", type=float, default=None, help="read no faster (default: as fast as it goes)"
    )
    options = parser.parse_args(arguments)
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
        print(json.dumps(found._asdict()))  # noqa: T201 what the command is for
        return int(bool(found.quarantined or found.unreadable))
    report = check(layout, pause=pause)
    for problem in report.problems:
        print(json.dumps(problem._asdict()))  # noqa: T201 the same
    print(json.dumps({**report.counts, "problems": len(report.problems)}))  # noqa: T201 the same
    return int(bool(report.problems))

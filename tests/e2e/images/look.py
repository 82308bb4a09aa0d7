"""Prints what a container is and sees, as one line of JSON; it then ends.

Given in variables: each ``GET_…`` is a URL to fetch, ``RESOLVE`` are names to look up, as ``name=how many addresses``.
URLs among the arguments are fetched too. Siblings may still be starting, so it tries again for a while.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
#: For all that it tries.
PATIENCE = 60
STARTED = time.time()
SHOWN_SIZE = 4096
SYSCTLS = ("net/ipv4/ip_local_port_range",)


def patiently(attempt: Callable[[], T], enough: Callable[[T], bool] = lambda _: True) -> T | str:
    """Return the first result that is enough; else, in the end, the last one or its error."""
    while True:
        result: T | str
        try:
            result = attempt()
            if enough(result):
                return result
        except (OSError, ValueError) as error:
            result = f"{type(error).__name__}: {error}"
        if time.time() > STARTED + PATIENCE:
            return result
        time.sleep(0.2)


def fetched(url: str) -> Any:
    """Return the JSON at a URL."""

    def fetch() -> Any:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)

    return patiently(fetch)


def addresses(name: str, count: int) -> list[str] | str:
    """Return the addresses of a name, once there are as many; with a count of 0, those that there are."""

    def resolve() -> list[str]:
        try:
            return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
        except socket.gaierror:
            if count:
                raise
            return []

    return patiently(resolve, lambda found: len(found) >= count)


def mounts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is mounted, without the kernel's own file systems; leaves a file in each directory."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        place = before.split()[4].encode().decode("unicode_escape")
        if place != "/dev/shm" and place.startswith(("/proc", "/sys", "/dev")):
            continue
        yield place, looked_at(Path(place)) | {"type": after.split()[0]}


def looked_at(path: Path) -> dict[str, Any]:
    """Return what can be said of a mounted file or directory."""
    status, system = path.stat(), os.statvfs(path)
    found: dict[str, Any] = {
        "mode": f"{status.st_mode & 0o7777:o}",
        "owner": f"{status.st_uid}:{status.st_gid}",
        "size": system.f_blocks * system.f_frsize,
    }
    try:
        if path.is_dir():
            (path / f"left-by-{socket.gethostname()}").touch()
        else:
            path.open("ab").close()
        found["writable"] = True
    except OSError as error:
        found["writable"] = False
        found["why"] = error.strerror
    try:
        if path.is_file() and status.st_size <= SHOWN_SIZE:
            found["content"] = path.read_text(encoding="utf-8")
    except OSError as error:
        found["content"] = error.strerror
    return found


def left_files(place: str) -> list[str]:
    """Return the files that others and we left in a directory, with their paths in it."""
    return sorted(str(path.relative_to(place)) for path in Path(place).rglob("left-by-*"))


def main() -> None:
    """Look at everything and print it."""
    found = dict(mounts())
    for place, entry in found.items():
        if place != "/" and Path(place).is_dir():
            entry["files"] = left_files(place)
    wanted = [entry.partition("=") for entry in os.environ.get("RESOLVE", "").split()]
    seen = {
        "started": STARTED,
        "argv": sys.argv[1:],
        "env": dict(os.environ),
        "cwd": str(Path.cwd()),
        "user": f"{os.getuid()}:{os.getgid()}",
        "groups": sorted(os.getgroups()),
        "terminal": [os.isatty(0), os.isatty(1)],
        "mounts": found,
        "sysctls": {name: Path("/proc/sys", name).read_text(encoding="utf-8").split() for name in SYSCTLS},
        "got": {name: fetched(url) for name, url in os.environ.items() if name.startswith("GET_")},
        "got_argv": [fetched(word) for word in sys.argv[1:] if word.startswith("http://")],
        "resolved": {name: addresses(name, int(count)) for name, _, count in wanted},
    }
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()

"""Is everything there, and right? Reads all of a store's directory and changes nothing.

For a copy that was just restored, or a store that is at rest: in one that is at work, what comes and goes meanwhile
may look like a fault.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gpux.filestore.layout import NUMBER, Layout, names, target

_PIECE = 1 << 20


class Problem(NamedTuple):
    """Something that isn't as it should be."""

    problem: str
    where: str


class Report(NamedTuple):
    """What a check has found."""

    counts: dict[str, int]
    problems: list[Problem]


def check(layout: Layout, *, pause: Callable[[int], bool]) -> Report:
    """Check a whole directory."""
    counts = dict.fromkeys(("contents", "bytes", "entries", "references", "calls"), 0)
    problems: list[Problem] = []
    number = Path(layout.number)
    if number.exists() and int(number.read_text()) > NUMBER:
        problems.append(Problem(f"a newer layout than {NUMBER}: use the store that wrote it", layout.number))
        return Report(counts, problems)
    for step in (_contents, _entries, _references, _calls):
        problems += step(layout, counts, pause)
    return Report(counts, problems)


def _contents(layout: Layout, counts: dict[str, int], pause: Callable[[int], bool]) -> Iterator[Problem]:
    for fan in layout.fans():
        for name in sorted(names(f"{layout.contents}/{fan}")):
            path = layout.content(name)
            sha1, sha256, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
            try:
                with open(path, "rb", buffering=0) as file:
                    while piece := file.read(_PIECE):
                        sha1.update(piece)
                        sha256.update(piece)
                        size += len(piece)
                        pause(len(piece))
            except OSError as error:
                yield Problem(f"can't be read: {error.strerror}", path)
                continue
            counts["contents"] += 1
            counts["bytes"] += size
            if sha256.hexdigest() != name:
                yield Problem("has other bytes than its name says", path)
                continue
            for namespace in layout.namespaces():
                entry = layout.entry(namespace, "sha256", name)
                if target(entry) not in {None, sha1.hexdigest()}:
                    yield Problem("names another SHA-1 than its content has", entry)


def _entries(layout: Layout, counts: dict[str, int], _: Callable[[int], bool]) -> Iterator[Problem]:
    for namespace in sorted(layout.namespaces()):
        for sha1 in sorted(names(f"{layout.index}/{namespace}/sha1")):
            counts["entries"] += 1
            entry = layout.entry(namespace, "sha1", sha1)
            sha256 = target(entry) or ""
            if not os.path.isfile(layout.content(sha256)):
                yield Problem("its content is missing: it is no file until it is stored again", entry)
            elif target(layout.entry(namespace, "sha256", sha256)) != sha1:
                yield Problem("the way back is missing or another one", entry)


def _references(layout: Layout, counts: dict[str, int], _: Callable[[int], bool]) -> Iterator[Problem]:
    for namespace, reference in sorted(layout.referring()):
        for sha1 in sorted(layout.referred(namespace, reference)):
            counts["references"] += 1
            path = layout.reference(namespace, reference, sha1)
            sha256 = target(layout.entry(namespace, "sha1", sha1))
            size = target(path) or ""
            if sha256 is None:
                yield Problem("refers to no entry", path)
            elif os.path.isfile(layout.content(sha256)) and size != str(
                os.stat(layout.content(sha256)).st_size
            ):
                yield Problem("counts another size than the content has", path)


def _calls(layout: Layout, counts: dict[str, int], _: Callable[[int], bool]) -> Iterator[Problem]:
    for path in sorted(Path(layout.root, "calls").glob("*/*.json")):
        counts["calls"] += 1
        try:
            record = json.loads(path.read_bytes())
            answer, namespace = record["answer"], record["namespace"]
        except (OSError, ValueError, KeyError, TypeError):
            yield Problem("is damaged", str(path))
            continue
        if not path.with_suffix(".data").exists():
            yield Problem("its input is missing", str(path))
        if answer and target(layout.entry(namespace, "sha1", answer["sha1"])) != answer["sha256"]:
            yield Problem("its answer is missing", str(path))

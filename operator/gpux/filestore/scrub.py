"""Reading again what was stored, at leisure, to find out what the disk has let rot before somebody needs it.

How far it is survives a restart: a fan of contents at a time is noted as done, so that also a store that is restarted
every day gets through.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import NamedTuple

from gpux.blobs import Scrubbed
from gpux.filestore.layout import names
from gpux.filestore.shelves import Shelves
from gpux.log import log

_PIECE = 1 << 20
_LAST = "ff"
"""The fan that is read last, whether there is one or not."""


class _Progress(NamedTuple):
    """How far a pass is."""

    done: str
    """The last fan that was read; empty at the start."""
    started: float


def scrub(shelves: Shelves, *, every: float, pause: Callable[[int], bool]) -> Scrubbed:
    """See `Blobs.scrub`."""
    progress = _load(shelves.layout.scrubbed)
    if progress is None or progress.done == _LAST:
        if progress is not None and shelves.clock() - progress.started < every:
            return Scrubbed()
        progress = _Progress("", shelves.clock())
    total = Scrubbed()
    for fan in shelves.layout.fans():
        if fan <= progress.done:
            continue
        found, whole = _read_fan(shelves, fan, pause)
        total = _sum(total, found)
        if not whole:
            return total
        progress = progress._replace(done=fan)
        _save(shelves, progress)
    _save(shelves, progress._replace(done=_LAST))
    return total


def scrub_now(shelves: Shelves, *, pause: Callable[[int], bool]) -> Scrubbed:
    """Read everything at once, whatever the progress of the pass at leisure. A server may be at work meanwhile."""
    total = Scrubbed()
    for fan in shelves.layout.fans():
        total = _sum(total, _read_fan(shelves, fan, pause)[0])
    return total


def _read_fan(shelves: Shelves, fan: str, pause: Callable[[int], bool]) -> tuple[Scrubbed, bool]:
    """Read what is in one folder of contents; what was found, and whether it was all of it."""
    total = Scrubbed()
    for sha256 in sorted(names(f"{shelves.layout.contents}/{fan}")):
        found = _check(shelves, sha256, pause)
        if found is None:
            return total, False
        total = _sum(total, found)
    return total, True


def _sum(first: Scrubbed, second: Scrubbed) -> Scrubbed:
    return Scrubbed(*map(sum, zip(first, second, strict=True)))


def _check(shelves: Shelves, sha256: str, pause: Callable[[int], bool]) -> Scrubbed | None:
    """Read one content; None if the scrub is to end."""
    path = shelves.layout.content(sha256)
    found = hashlib.sha256()
    size = 0
    try:
        with open(path, "rb", buffering=0) as file:
            identity = os.fstat(file.fileno()).st_ino
            # What is read here shall not push out of memory what others read.
            while piece := file.read(_PIECE):
                found.update(piece)
                os.posix_fadvise(file.fileno(), size, len(piece), os.POSIX_FADV_DONTNEED)
                size += len(piece)
                if not pause(len(piece)):
                    return None
    except FileNotFoundError:
        return Scrubbed()
    except OSError as error:
        log("error", "a stored file can't be read", sha256=sha256, error=str(error))
        return Scrubbed(objects=1, size=size, unreadable=1)
    if found.hexdigest() == sha256:
        return Scrubbed(objects=1, size=size)
    with shelves.lock(sha256):
        # Somebody may have brought the right bytes meanwhile.
        rotten = os.path.exists(path) and os.stat(path).st_ino == identity
        if rotten:
            shelves.set_aside(sha256)
    return Scrubbed(objects=1, size=size, quarantined=int(rotten))


def _load(path: str) -> _Progress | None:
    try:
        with open(path, "rb") as file:
            document = json.load(file)
        return _Progress(str(document["done"]), float(document["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # Never, or a damaged note: begin anew.
        return None


def _save(shelves: Shelves, progress: _Progress) -> None:
    content = json.dumps(progress._asdict()).encode()
    shelves.disk.replace(shelves.layout.scrubbed, content, temporary=f"{shelves.layout.temporary}/scrubbed")

"""Removing what nobody needs any more, and reading again what is kept. One store at a time does either.

A request that fails ends the whole, so that nothing is ever removed because something couldn't be read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gpux.blobs import PUBLIC, Blob, Retention, Scrubbed, Swept
from gpux.errors import UnavailableError
from gpux.log import log
from gpux.s3.bucket import ChangedError
from gpux.s3.shelves import DYING, GONE, LIVE, ROTTEN, Reference, Seen, Shelves, at_once

_LEASE_SECONDS = 600.0
_SAVED_SECONDS = 60.0
_PROGRESS = "leases/scrubbed"
_PIECE = 1 << 20

#: Seconds for which what no entry names may belong to an upload that is about to name it.
SETTLE = 3600.0
#: Seconds for which an entry that is gone stays: removing isn't exclusive with changing on every service, so that it
#: must meet nobody who brings the entry back.
BURIED = 7 * 86_400.0
#: Seconds after which an upload in parts has been given up.
ABANDONED = 2 * 86_400.0


class _Progress(NamedTuple):
    """How far a scrub is."""

    done: str | None
    """The key of the last entry that was read; None at the end."""
    started: float


def sweep(shelves: Shelves, retention: Retention, *, owner: str, settle: float, abandoned: float) -> Swept:
    """See `Blobs.sweep`; ``settle`` and ``abandoned`` are as `SETTLE` and `ABANDONED`."""
    if not shelves.lease("sweep", owner, seconds=_LEASE_SECONDS):
        return Swept()
    started = time.time()
    named: set[bytes] = set()
    references = entries = 0
    renew = _renewing(shelves, "sweep", owner)
    for namespace in sorted({*shelves.namespaces(), *shelves.bucket.folders("refs/")}):
        ended, removed = _namespace(
            shelves, namespace, retention, named=named, settled=started - settle, renew=renew
        )
        references, entries = references + ended, entries + removed
    for name in [listed.key.rpartition("/")[2] for listed in shelves.bucket.listing("quarantine/")]:
        named.add(bytes.fromhex(name))
    objects = size = 0
    for name, listed in shelves.contents():
        renew()
        # Names come only to contents that were completed since: the age tells.
        if bytes.fromhex(name) not in named and listed.modified < started - settle:
            shelves.bucket.delete(listed.key)
            objects, size = objects + 1, size + listed.size
    for upload in list(shelves.bucket.uploads("data/")):
        if upload.started < started - abandoned:
            shelves.bucket.abort(upload.key, upload.upload)
    return Swept(references, entries, objects, size)


def forget(shelves: Shelves, namespace: str, blobs: Sequence[Blob]) -> None:
    """See `Blobs.forget`. The way of the sweep, without its grace, and beside it: no lease is needed.

    The contents stay until they are as old as the sweep wants them: an upload elsewhere may be about to name them.
    """
    for place in (namespace, PUBLIC):

        def read(blob: Blob, place: str = place) -> tuple[Blob, Seen | None]:
            return blob, shelves.read(place, blob.sha1)

        found = {
            blob.sha1: seen
            for blob, seen in at_once(read, blobs)
            if seen is not None and seen.entry.state != GONE and seen.entry.sha256 == blob.sha256
        }
        # Not even marked, or nobody else could refer to them meanwhile.
        for sha1 in _referred(shelves, place, found):
            del found[sha1]
        _bury(shelves, place, found)


def _renewing(shelves: Shelves, what: str, owner: str) -> Callable[[], None]:
    """Return what keeps a lease when it is called often. It raises UnavailableError if another store has it now."""
    renewed = time.monotonic()

    def renew() -> None:
        nonlocal renewed
        if time.monotonic() - renewed > _LEASE_SECONDS / 10:
            if not shelves.lease(what, owner, seconds=_LEASE_SECONDS):
                raise UnavailableError(f"another store has taken over the {what}")
            renewed = time.monotonic()

    return renew


def _namespace(
    shelves: Shelves,
    namespace: str,
    retention: Retention,
    *,
    named: set[bytes],
    settled: float,
    renew: Callable[[], None],
) -> tuple[int, int]:
    """Sweep the references and entries of one namespace; how many of each went."""
    referred: dict[str, list[Reference]] = {}
    for reference in shelves.references(namespace):
        referred.setdefault(reference.sha1, []).append(reference)
    ended = 0
    unneeded: dict[str, Seen] = {}
    for sha1, seen in shelves.read_all(namespace):
        renew()
        references = referred.pop(sha1, [])
        entry = seen.entry
        idle = shelves.clock() - entry.used
        if entry.state == GONE:
            if idle > BURIED:
                _remove(shelves, namespace, sha1, seen)
            continue
        if retention.unused is not None and idle > retention.unused:
            for reference in [other for other in references if other.name.startswith("owner:")]:
                # It counts as used now: its grace begins.
                shelves.let_go(reference)
                references.remove(reference)
                ended, idle = ended + 1, 0.0
        if references or (entry.state != DYING and idle <= retention.grace):
            named.add(bytes.fromhex(entry.data))
            if entry.state == DYING:
                _change(shelves, namespace, sha1, seen, LIVE)
        else:
            unneeded[sha1] = seen
    # References to nothing: of uploads that ended before their entry.
    for references in referred.values():
        for reference in references:
            if reference.modified < settled and shelves.read(namespace, reference.sha1) is None:
                shelves.bucket.delete(reference.key)
                ended += 1
    gone = _bury(shelves, namespace, unneeded)
    named.update(bytes.fromhex(seen.entry.data) for sha1, seen in unneeded.items() if sha1 not in gone)
    return ended, len(gone)


def _bury(shelves: Shelves, namespace: str, unneeded: Mapping[str, Seen]) -> set[str]:
    """Remove those of the entries that nothing refers to and nobody changes meanwhile; which they were.

    Several stores may do so at once. One that ends midway leaves the rest to the next sweep.
    """

    def mark(item: tuple[str, Seen]) -> tuple[str, Seen | None]:
        sha1, seen = item
        # On what has rotted nobody relies, so it needs no mark; nor may it live again.
        return sha1, _change(shelves, namespace, sha1, seen, DYING) if seen.entry.state == LIVE else seen

    marked = {sha1: seen for sha1, seen in at_once(mark, unneeded.items()) if seen is not None}
    referred = _referred(shelves, namespace, marked)

    def end(item: tuple[str, Seen]) -> str | None:
        sha1, seen = item
        if sha1 not in referred:
            return sha1 if _change(shelves, namespace, sha1, seen, GONE) is not None else None
        if seen.entry.state == DYING:
            _change(shelves, namespace, sha1, seen, LIVE)
        return None

    return {sha1 for sha1 in at_once(end, marked.items()) if sha1 is not None}


def _referred(shelves: Shelves, namespace: str, entries: Mapping[str, Seen]) -> set[str]:
    """To which of the entries something refers."""
    if not entries:
        return set()
    return {reference.sha1 for reference in shelves.references(namespace) if reference.sha1 in entries}


def _remove(shelves: Shelves, namespace: str, sha1: str, seen: Seen) -> None:
    """Remove what is left of an entry that has been gone for long."""
    key = f"hashes/{namespace}/{seen.entry.sha256}"
    back = shelves.bucket.get(key)
    if back is not None:
        # An upload that brings the entry back writes this after it, with another ETag.
        shelves.bucket.remove(key, match=back.etag)
    shelves.bucket.remove(f"entries/{namespace}/{sha1}", match=seen.etag)


def _change(shelves: Shelves, namespace: str, sha1: str, seen: Seen, state: str) -> Seen | None:
    """Give an entry another state; None if it has changed meanwhile, which is somebody else's doing."""
    # One that comes to life again isn't the same as before: whoever else had marked it must not take it for that.
    used = shelves.clock() if state in {LIVE, GONE} else seen.entry.used
    entry = seen.entry._replace(state=state, used=used)
    try:
        return Seen(entry, shelves.write(namespace, sha1, entry, match=seen.etag))
    except ChangedError:
        return None


def scrub(shelves: Shelves, *, owner: str, every: float, pause: Callable[[int], bool]) -> Scrubbed:
    """See `Blobs.scrub`."""
    if not shelves.lease("scrub", owner, seconds=_LEASE_SECONDS):
        return Scrubbed()
    progress = _load(shelves)
    if progress is None or progress.done is None:
        if progress is not None and shelves.clock() - progress.started < every:
            return Scrubbed()
        progress = _Progress("", shelves.clock())
    total = Scrubbed()
    renew = _renewing(shelves, "scrub", owner)
    saved = time.monotonic()
    for listed in shelves.bucket.listing("entries/", after=progress.done or ""):
        renew()
        _, namespace, sha1 = listed.key.split("/")
        checked = _check(shelves, namespace, sha1, pause)
        if checked is None:
            return total
        total = Scrubbed(*(sum(pair) for pair in zip(total, checked, strict=True)))
        progress = progress._replace(done=listed.key)
        if time.monotonic() - saved > _SAVED_SECONDS:
            _save(shelves, progress)
            saved = time.monotonic()
    _save(shelves, progress._replace(done=None))
    return total


def _load(shelves: Shelves) -> _Progress | None:
    found = shelves.bucket.get(_PROGRESS)
    return None if found is None else _Progress(**json.loads(found.body))


def _save(shelves: Shelves, progress: _Progress) -> None:
    shelves.bucket.put(_PROGRESS, json.dumps(progress._asdict()).encode())


def _check(shelves: Shelves, namespace: str, sha1: str, pause: Callable[[int], bool]) -> Scrubbed | None:
    """Read one entry's content; None if the scrub is to end."""
    seen = shelves.read(namespace, sha1)
    if seen is None or seen.entry.state != LIVE:
        return Scrubbed()
    entry = seen.entry
    if not entry.size:
        return Scrubbed(1)
    hashed = hashlib.sha256()
    size = 0
    try:
        with shelves.bucket.open(f"data/{entry.data}", start=0, end=entry.size) as response:
            if response is None:
                log("error", "a content is missing", namespace=namespace, sha1=sha1)
                return Scrubbed(unreadable=1)
            while piece := response.read(_PIECE):
                hashed.update(piece)
                size += len(piece)
                if not pause(len(piece)):
                    return None
    except UnavailableError as error:
        log("warning", "a content can't be read", namespace=namespace, sha1=sha1, error=str(error))
        return Scrubbed(unreadable=1)
    if hashed.hexdigest() == entry.sha256:
        return Scrubbed(1, size)
    log("error", "a content isn't what its name says", namespace=namespace, sha1=sha1, data=entry.data)
    note = {"namespace": namespace, "sha1": sha1, "sha256": entry.sha256, "found": hashed.hexdigest()}
    shelves.bucket.put(f"quarantine/{entry.data}", json.dumps(note).encode())
    _change(shelves, namespace, sha1, seen, ROTTEN)
    return Scrubbed(1, size, quarantined=1)

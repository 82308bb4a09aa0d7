"""Removing what nobody needs any more: references of owners, then entries, then contents.

A sweep reads whole directories and remembers of each only a bit, so that it takes little memory however much there
is. What the bits leave as doubtful is looked at once more under the content's lock, which an upload of the same bytes
holds too: it comes before, and the sweep sees its reference; or after, and brings its bytes again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

from gpux.blobs import PUBLIC, Blob, Retention, Swept
from gpux.filestore.layout import names, target
from gpux.filestore.shelves import Shelves

_BITS = 1 << 24
_DIGITS = 6


class _Seen:
    """Which digests have been seen: no false "no", few false "yes", and other ones in the next sweep."""

    def __init__(self) -> None:
        self._bits = bytearray(_BITS // 8)
        self._from = random.randrange(2, 40 - _DIGITS)  # noqa: S311 no secret

    def add(self, digest: str) -> None:
        bit = self._bit(digest)
        self._bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, digest: str) -> bool:
        bit = self._bit(digest)
        return bool(self._bits[bit >> 3] & 1 << (bit & 7))

    def _bit(self, digest: str) -> int:
        return int(digest[self._from : self._from + _DIGITS], 16)


def sweep(shelves: Shelves, retention: Retention) -> Swept:
    """See `Blobs.sweep`."""
    references = _references(shelves, retention)
    named = _Seen()
    entries = sum(
        _entries(shelves, namespace, retention, named=named) for namespace in shelves.layout.namespaces()
    )
    objects, size = _contents(shelves, named)
    return Swept(references, entries, objects, size)


def forget(shelves: Shelves, namespace: str, blobs: Sequence[Blob]) -> None:
    """See `Blobs.forget`. The way of the sweep, without its grace."""
    layout = shelves.layout
    gone = []
    for place in (namespace, PUBLIC):
        removed = [
            blob.sha256
            for blob in blobs
            if target(layout.entry(place, "sha1", blob.sha1)) == blob.sha256
            and _remove_entry(shelves, place, blob.sha1, blob.sha256, grace=None)
        ]
        if removed:
            shelves.sync(f"{layout.index}/{place}/{algorithm}" for algorithm in ("sha1", "sha256"))
        gone += removed
    for sha256 in gone:
        if _remove_content(shelves, sha256) is not None:
            shelves.sync([os.path.dirname(layout.content(sha256))])


def _references(shelves: Shelves, retention: Retention) -> int:
    """End the references of owners who haven't used a file for long, and those that lead nowhere."""
    layout = shelves.layout
    count = 0
    for namespace, reference in list(layout.referring()):
        ended = 0
        for sha1 in layout.referred(namespace, reference):
            sha256 = target(layout.entry(namespace, "sha1", sha1))
            if sha256 is None:
                # An upload makes the entry first, and an entry stays while something refers to it: so this is what
                # a crash has left of an upload that nobody was told of.
                ended += shelves.let_go(namespace, reference, sha1)
            elif retention.unused is not None and reference.startswith("owner:"):
                with shelves.lock(sha256):
                    used = layout.used(namespace, sha1)
                    if used is not None and shelves.clock() - used > retention.unused:
                        ended += shelves.let_go(namespace, reference, sha1)
        if ended:
            shelves.sync([f"{layout.references}/{namespace}/{reference}"])
        if next(layout.referred(namespace, reference), None) is None:
            shelves.remove_folder(namespace, reference)
        count += ended
    return count


def _entries(shelves: Shelves, namespace: str, retention: Retention, *, named: _Seen) -> int:
    """Remove a namespace's entries that nothing refers to; note the contents of all others."""
    layout = shelves.layout
    referred = _Seen()
    for reference in names(f"{layout.references}/{namespace}"):
        for sha1 in layout.referred(namespace, reference):
            referred.add(sha1)
    count = 0
    changed = False
    folders = [f"{layout.index}/{namespace}/{algorithm}" for algorithm in ("sha1", "sha256")]
    for sha1 in names(folders[0]):
        sha256 = target(f"{folders[0]}/{sha1}")
        if sha256 is None:
            continue
        if sha1 not in referred and _remove_entry(shelves, namespace, sha1, sha256, grace=retention.grace):
            count += 1
        else:
            named.add(sha256)
            changed |= _complete(shelves, namespace, sha1, sha256)
    for sha256 in names(folders[1]):
        sha1 = target(f"{folders[1]}/{sha256}") or ""
        if os.path.lexists(f"{folders[0]}/{sha1}"):
            continue
        with shelves.lock(sha256):
            # The way back without the entry: a crash's. It goes at once; nobody was told of it.
            if not os.path.lexists(f"{folders[0]}/{sha1}"):
                shelves.disk.unlink(f"{folders[1]}/{sha256}")
    if count or changed:
        shelves.sync(folders)
    return count


def _remove_entry(shelves: Shelves, namespace: str, sha1: str, sha256: str, *, grace: float | None) -> bool:
    layout = shelves.layout
    with shelves.lock(sha256):
        used = layout.used(namespace, sha1)
        if used is None or (grace is not None and shelves.clock() - used <= grace):
            return False
        if layout.references_to(namespace, sha1):
            return False
        # The entry last: while it is there, the next sweep finds the rest.
        shelves.disk.unlink(layout.entry(namespace, "sha256", sha256))
        shelves.disk.unlink(layout.entry(namespace, "sha1", sha1))
        return True


def _complete(shelves: Shelves, namespace: str, sha1: str, sha256: str) -> bool:
    """Make the way back where a crash has left an entry without one; whether that was so."""
    path = shelves.layout.entry(namespace, "sha256", sha256)
    if os.path.lexists(path):
        return False
    with shelves.lock(sha256):
        lost = not os.path.lexists(path) and shelves.layout.used(namespace, sha1) is not None
        if lost:
            shelves.disk.symlink(sha1, path)
    return lost


def _contents(shelves: Shelves, named: _Seen) -> tuple[int, int]:
    """Remove contents that no entry names; how many, and their bytes."""
    layout = shelves.layout
    objects = size = 0
    for fan in layout.fans():
        before = objects
        for sha256 in names(f"{layout.contents}/{fan}"):
            if sha256 in named:
                continue
            removed = _remove_content(shelves, sha256)
            if removed is not None:
                objects, size = objects + 1, size + removed
        if objects > before:
            shelves.sync([f"{layout.contents}/{fan}"])
    return objects, size


def _remove_content(shelves: Shelves, sha256: str) -> int | None:
    """Remove a content unless an entry names it; its bytes, or None."""
    layout = shelves.layout
    path = layout.content(sha256)
    with shelves.lock(sha256):
        named = any(
            os.path.lexists(layout.entry(namespace, "sha256", sha256)) for namespace in layout.namespaces()
        )
        if named or not os.path.exists(path):
            return None
        size = os.stat(path).st_size
        shelves.disk.unlink(path)
        shelves.count(-1, -size)
        return size

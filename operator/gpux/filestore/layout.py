"""Where what lies in the store's directory, and how to read it. Changing it is for `shelves`.

    tmp/                                   uploads under way; nothing at start
    sha256/ab/ab12…                        contents
    index/NAMESPACE/sha1/SHA1 → SHA256     entries; the symbolic link's own time is when it was last used
    index/NAMESPACE/sha256/SHA256 → SHA1   the way back; its time is when the entry was made
    refs/NAMESPACE/REFERENCE/SHA1 → SIZE   references, ``task:…``, ``owner:…`` or ``keep:…``, with what they count
    quarantine/                            contents that weren't what their name says
    scrubbed                               how far the scrub is
    layout                                 the number of this layout

A symbolic link is there whole or not at all, so an entry needs no temporary file; what it holds are words and numbers,
not paths. Before layout 2 there were no references.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from gpux.hashes import FileHash

NUMBER = 2


class Layout:
    """The paths below one root, and what is there."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.temporary = f"{root}/tmp"  # noqa: S108 below the root
        self.contents = f"{root}/sha256"
        self.index = f"{root}/index"
        self.references = f"{root}/refs"
        self.quarantine = f"{root}/quarantine"
        self.scrubbed = f"{root}/scrubbed"
        self.number = f"{root}/layout"

    def content(self, sha256: str) -> str:
        """Path of a content."""
        return f"{self.contents}/{sha256[:2]}/{sha256}"

    def entry(self, namespace: str, algorithm: str, digest: str) -> str:
        """Path of an entry, or of the way back."""
        return f"{self.index}/{namespace}/{algorithm}/{digest}"

    def reference(self, namespace: str, reference: str, sha1: str) -> str:
        """Path of a reference to an entry."""
        return f"{self.references}/{namespace}/{reference}/{sha1}"

    # ------------------------------------------------------------------------------------------------ reading

    def find(self, namespace: str, name: FileHash) -> tuple[str, str] | None:
        """SHA-1 and SHA-256 of what a namespace calls so."""
        other = target(self.entry(namespace, *name))
        if other is None:
            return None
        return (name.hex, other) if name.algorithm == "sha1" else (other, name.hex)

    def namespaces(self) -> list[str]:
        """Who has entries."""
        return list(names(self.index))

    def fans(self) -> list[str]:
        """The folders that contents are spread over, sorted."""
        return sorted(name for name in names(self.contents) if len(name) == 2)

    def referring(self) -> Iterator[tuple[str, str]]:
        """Yield namespace and reference of all references that there are."""
        for namespace in names(self.references):
            for reference in names(f"{self.references}/{namespace}"):
                yield namespace, reference

    def referred(self, namespace: str, reference: str) -> Iterator[str]:
        """Yield the SHA-1 of everything that it refers to."""
        return names(f"{self.references}/{namespace}/{reference}")

    def references_to(self, namespace: str, sha1: str) -> list[str]:
        """Who refers to an entry."""
        return [
            reference
            for reference in sorted(names(f"{self.references}/{namespace}"))
            if os.path.lexists(self.reference(namespace, reference, sha1))
        ]

    def used(self, namespace: str, sha1: str) -> float | None:
        """When an entry was last used, in Unix seconds; None if there is no entry."""
        return changed(self.entry(namespace, "sha1", sha1))


def names(directory: str) -> Iterator[str]:
    """Yield what is in a directory, however much, in little memory; nothing if there is none."""
    with suppress(FileNotFoundError), os.scandir(directory) as found:
        for entry in found:
            yield entry.name


def target(path: str) -> str | None:
    """What a symbolic link holds; None if there is none."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None


def changed(path: str) -> float | None:
    """A name's own time, in Unix seconds; None if there is no such name."""
    with suppress(FileNotFoundError):
        return os.lstat(path).st_mtime
    return None

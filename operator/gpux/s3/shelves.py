"""What the store's files are in a bucket, and the changes that can be made to them, whichever stores make them.

    data/ID                          contents, each under a random name that is used once
    entries/NAMESPACE/SHA1           an entry: which content it is, its hashes, size and times
    hashes/NAMESPACE/SHA256          the way back: the SHA-1
    refs/NAMESPACE/REFERENCE/SHA1.SIZE   references, ``task:…``, ``owner:…`` or ``keep:…``, with what they count
    quarantine/ID                    contents that weren't what their entry says
    leases/…                         which store sweeps or scrubs

Objects have no locks. An entry is changed by compare-and-swap alone; a content is never changed, and no other may ever
have its name, so it can be removed without looking back. What protects an entry is the order: whoever needs it makes
the reference first and looks at the entry then; who removes it marks the entry first, and looks for references then. So
one of the two sees the other.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from gpux.blobs import Blob, Entry, HashConflictError, over_quota
from gpux.hashes import FileHash
from gpux.log import log
from gpux.s3.bucket import Bucket, ChangedError, Listed

T = TypeVar("T")
R = TypeVar("R")

_DAY = 86_400.0
_AT_ONCE = 8
_PAGE = 256

#: States of an entry. Only "live" ones are there for everybody.
LIVE = "live"
DYING = "dying"
"""Somebody wants to remove it, and looks for references once more."""
GONE = "gone"
"""Nothing is left of it; only an upload brings it back, with a content of its own."""
ROTTEN = "rotten"
"""The content isn't what it was; an upload of the right bytes mends it."""


class Stored(NamedTuple):
    """An entry as it is in the bucket."""

    sha256: str
    size: int
    data: str
    """The name of the content."""
    created: float
    used: float
    """When it was last used; of one that is gone, since when it is."""
    state: str = LIVE


class Seen(NamedTuple):
    """An entry, and the ETag by which it can be changed."""

    entry: Stored
    etag: str


class Entered(NamedTuple):
    """What became of an attempt to make an entry."""

    new: bool
    """Whether the namespace hadn't it."""
    ours: bool
    """Whether the entry names the content that was offered."""


class Reference(NamedTuple):
    """A reference to an entry, as a listing shows it."""

    namespace: str
    name: str
    sha1: str
    size: int
    modified: float

    @property
    def key(self) -> str:
        """Of its object."""
        return f"refs/{self.namespace}/{self.name}/{self.sha1}.{self.size}"


class Shelves:
    """The bucket's files. Everything blocks and raises UnavailableError."""

    def __init__(self, bucket: Bucket, *, clock: Callable[[], float] = time.time) -> None:
        self.bucket = bucket
        self.clock = clock
        self._quotas = threading.Lock()

    # ------------------------------------------------------------------------------------------------ entries

    def read(self, namespace: str, sha1: str) -> Seen | None:
        """One entry, whatever its state."""
        found = self.bucket.get(f"entries/{namespace}/{sha1}")
        if found is None:
            return None
        try:
            return Seen(Stored(**json.loads(found.body)), found.etag)
        except (ValueError, TypeError) as error:
            log("error", "an entry is damaged", namespace=namespace, sha1=sha1, error=str(error))
            return None

    def read_all(self, namespace: str) -> Iterator[tuple[str, Seen]]:
        """Yield SHA-1 and entry of all entries of a namespace, several read at once."""
        names = (listed.key.rpartition("/")[2] for listed in self.bucket.listing(f"entries/{namespace}/"))
        for sha1, seen in at_once(lambda sha1: (sha1, self.read(namespace, sha1)), names):
            if seen is not None:
                yield sha1, seen

    def find(self, namespace: str, name: FileHash) -> tuple[str, Seen] | None:
        """SHA-1 and entry of what a namespace calls so, if it can be read."""
        sha1 = name.hex
        if name.algorithm != "sha1":
            back = self.bucket.get(f"hashes/{namespace}/{name.hex}")
            if back is None:
                return None
            sha1 = str(json.loads(back.body)["sha1"])
        seen = self.read(namespace, sha1)
        return (sha1, seen) if seen is not None and seen.entry.state in {LIVE, DYING} else None

    def present(self, namespace: str, blob: Blob) -> bool:
        """Whether a namespace has a content, whole; notes that it is used. Raises HashConflictError.

        Whoever refers to it already can rely on it from now on.
        """
        seen = self.read(namespace, blob.sha1)
        if seen is None or seen.entry.state == GONE:
            return False
        if seen.entry.sha256 != blob.sha256:
            raise HashConflictError
        if seen.entry.state != LIVE or self.bucket.size(f"data/{seen.entry.data}") != blob.size:
            return False
        self.use(namespace, blob.sha1, seen)
        return True

    def enter(self, namespace: str, blob: Blob, data: str, *, like: Entry | None = None) -> Entered:
        """Make a content the namespace's, unless it has it already. Raises HashConflictError.

        ``like`` is an entry elsewhere, whose times it gets.
        """
        now = self.clock()
        created, used = (now, now) if like is None else (like.created, like.used)
        entry = Stored(blob.sha256, blob.size, data, created, used)
        while True:
            seen = self.read(namespace, blob.sha1)
            if seen is not None and self.present(namespace, blob):
                return Entered(new=False, ours=False)
            try:
                # What lies there can't be read, and here is what it should be.
                self.write(namespace, blob.sha1, entry, match=seen and seen.etag)
            except ChangedError:
                continue
            # Of one that is dying, too, nothing else will stay.
            return Entered(new=seen is None or seen.entry.state in {DYING, GONE}, ours=True)

    def write(self, namespace: str, sha1: str, entry: Stored, *, match: str | None) -> str:
        """Write an entry over the one with an ETag, or where there is none; its ETag. Raises ChangedError."""
        body = json.dumps(entry._asdict()).encode()
        return self.bucket.put(f"entries/{namespace}/{sha1}", body, match=match, absent=match is None)

    def point_back(self, namespace: str, blob: Blob) -> None:
        """Let an entry be found by its SHA-256. Written each time, so that its ETag tells how old it is."""
        body = json.dumps({"sha1": blob.sha1, "at": self.clock(), "nonce": secrets.token_hex(4)}).encode()
        self.bucket.put(f"hashes/{namespace}/{blob.sha256}", body)

    def use(self, namespace: str, sha1: str, seen: Seen, *, least: float = _DAY) -> None:
        """Note that an entry is used, unless that was noted less than `least` seconds ago."""
        while self.clock() - seen.entry.used > least:
            try:
                self.write(namespace, sha1, seen.entry._replace(used=self.clock()), match=seen.etag)
            except ChangedError:
                again = self.read(namespace, sha1)
                if again is None:
                    return
                seen = again
                continue
            return

    # ------------------------------------------------------------------------------------------------ references

    def references(self, namespace: str, name: str | None = None) -> Iterator[Reference]:
        """Yield a namespace's references; those of one name, if it is given."""
        below = f"refs/{namespace}/" if name is None else f"refs/{namespace}/{name}/"
        for listed in self.bucket.listing(below):
            yield parse_reference(listed)

    def refer(self, namespace: str, name: str, blob: Blob, *, limit: int | None) -> Reference | None:
        """Refer to what is or will be an entry; the reference, None if it was there. Raises QuotaError.

        The bytes are counted after the reference is there, so that of two stores that give the last ones away at once
        none goes too far.
        """
        reference = Reference(namespace, name, blob.sha1, blob.size, 0.0)
        # Other than any other's, so that a reference that was there isn't taken for this one.
        body = secrets.token_hex(8).encode()
        if limit is None or not blob.size:
            try:
                self.bucket.put(reference.key, body, absent=True)
            except ChangedError:
                return None
            return reference
        with self._quotas:
            there = {other.sha1: other.size for other in self.references(namespace, name)}
            if blob.sha1 in there:
                return None
            if sum(there.values()) + blob.size > limit:
                raise over_quota(name, limit)
            try:
                self.bucket.put(reference.key, body, absent=True)
            except ChangedError:
                return None
            if sum(other.size for other in self.references(namespace, name)) > limit:
                self.bucket.delete(reference.key)
                raise over_quota(name, limit)
        return reference

    def let_go(self, reference: Reference) -> None:
        """End a reference; what it was to counts as used now, so that its grace begins."""
        seen = self.read(reference.namespace, reference.sha1)
        if seen is not None and seen.entry.state == LIVE:
            self.use(reference.namespace, reference.sha1, seen, least=1.0)
        self.bucket.delete(reference.key)

    # ------------------------------------------------------------------------------------------------ contents

    def contents(self) -> Iterator[tuple[str, Listed]]:
        """Yield the names of all contents, and how a listing shows them."""
        for listed in self.bucket.listing("data/"):
            yield listed.key.removeprefix("data/"), listed

    def namespaces(self) -> list[str]:
        """Who has entries."""
        return list(self.bucket.folders("entries/"))

    def lease(self, what: str, owner: str, *, seconds: float) -> bool:
        """Have a task to oneself for so long; False if another store has it."""
        key = f"leases/{what}"
        found = self.bucket.get(key)
        held: dict[str, Any] = {} if found is None else json.loads(found.body)
        now = self.clock()
        if held.get("owner") not in {None, owner} and held["until"] > now:
            return False
        body = json.dumps({"owner": owner, "until": now + seconds}).encode()
        try:
            self.bucket.put(key, body, match=found and found.etag, absent=found is None)
        except ChangedError:
            return False
        return True


def at_once(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what a function makes of each item, in their order, while it works on several."""
    rest = iter(items)
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        while page := list(islice(rest, _PAGE)):
            yield from workers.map(function, page)


def parse_reference(listed: Listed) -> Reference:
    """Read a reference from its key."""
    _, namespace, name, last = listed.key.split("/")
    sha1, _, size = last.partition(".")
    return Reference(namespace, name, sha1, int(size), listed.modified)

"""The `Blobs` of a bucket, for any number of stores at once."""

from __future__ import annotations

import io
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO, TypeVar

import urllib3

from gpux.blobs import Blob, Content, Entry, Keeper, Retention, Scrubbed, Swept, Upload, Usage
from gpux.errors import UnavailableError
from gpux.hashes import FileHash
from gpux.s3 import upkeep
from gpux.s3.bucket import Bucket, rest_of
from gpux.s3.cache import Cache, Wanted
from gpux.s3.shelves import LIVE, Shelves, Stored
from gpux.s3.upload import S3Upload, places_of, refer
from gpux.splice import Pipe, SpliceUnsupportedError

T = TypeVar("T")

_PIECE = 1 << 19
_RESUMED = 5
_SENDERS = 16

#: There is no telling how much room a bucket has; its owner's bill does.
_PLENTY = 1 << 60


class S3Blobs:
    """See `Blobs`. All of it may raise UnavailableError."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        clock: Callable[[], float] = time.time,
        spool: str | None = None,
        cache: Cache | None = None,
        settle: float = upkeep.SETTLE,
        abandoned: float = upkeep.ABANDONED,
    ) -> None:
        """Look at what there is. `spool` is where parts of uploads wait; None for the system's temporary directory.

        What is read often is kept in the `cache`.
        """
        self._bucket = bucket
        self._shelves = Shelves(bucket, clock=clock)
        self._spool = spool
        self._cache = cache
        self._settle = settle
        self._abandoned = abandoned
        self._owner = secrets.token_hex(8)
        self._senders = ThreadPoolExecutor(_SENDERS, thread_name_prefix="parts")
        self._lock = threading.Lock()
        self._usage = self._count()

    def begin(self, *, size: int | None) -> Upload:  # noqa: ARG002 the interface's; a bucket has room
        """See `Blobs`."""
        return S3Upload(self._shelves, self._senders, spool=self._spool, stored=self._add)

    def open(self, namespace: str, name: FileHash) -> tuple[Blob, Content] | None:
        """See `Blobs`."""
        found = self._shelves.find(namespace, name)
        if found is None:
            return None
        sha1, seen = found
        content = self._content(seen.entry)
        if content is None:
            return None
        with ExitStack() as undo:
            undo.callback(content.close)
            self._shelves.use(namespace, sha1, seen)
            undo.pop_all()
        return Blob(sha1, seen.entry.sha256, seen.entry.size), content

    def _content(self, entry: Stored) -> Content | None:
        """Open what an entry names, here or in the bucket; None if it isn't there, or not whole."""
        cache, key = self._cache, f"data/{entry.data}"
        if cache is not None and (here := cache.open(entry.data, entry.size)):
            return here
        if self._bucket.size(key) != entry.size:
            return None
        if cache is None:
            return _S3Content(self._bucket, key)
        read = partial(_S3Content(self._bucket, key).read, 0, entry.size)
        wanted = Wanted(entry.data, entry.sha256, entry.size, read)
        return _S3Content(self._bucket, key, begun=partial(cache.miss, wanted))

    def refer(self, keeper: Keeper, blobs: Sequence[Blob]) -> None:
        """See `Blobs`."""
        different = list({blob.sha1: blob for blob in blobs}.values())
        with ExitStack() as undo:
            refer(self._shelves, keeper, different, undo=undo)
            # After the references, so that the sweep sees them if it has marked an entry.
            for place in places_of(keeper):
                for blob in different:
                    seen = self._shelves.read(place, blob.sha1)
                    if seen is None or seen.entry.state != LIVE or seen.entry.sha256 != blob.sha256:
                        raise KeyError(blob.sha1)
            undo.pop_all()

    def forget(self, namespace: str, blobs: Sequence[Blob]) -> None:
        """See `Blobs`."""
        upkeep.forget(self._shelves, namespace, blobs)

    def drop(self, reference: str, *, namespace: str | None = None) -> int:
        """See `Blobs`."""
        places = list(self._bucket.folders("refs/")) if namespace is None else [namespace]
        count = 0
        for place in places:
            found = list(self._shelves.references(place, reference))
            count += sum(1 for _ in self._senders.map(self._shelves.let_go, found))
        return count

    def entries(
        self, namespace: str, *, references: Sequence[str] | None = None, after: str = "", limit: int
    ) -> list[Entry]:
        """See `Blobs`."""
        held: dict[str, list[str]] = {}
        for reference in self._shelves.references(namespace):
            if reference.sha1 > after:
                held.setdefault(reference.sha1, []).append(reference.name)
        found: list[Entry] = []
        for sha1 in self._names(namespace, held, references, after):
            if len(found) == limit:
                break
            seen = self._shelves.read(namespace, sha1)
            if seen is not None and seen.entry.state == LIVE:
                entry = seen.entry
                blob = Blob(sha1, entry.sha256, entry.size)
                found.append(Entry(blob, entry.created, entry.used, sorted(held.get(sha1, []))))
        return found

    def _names(
        self, namespace: str, held: dict[str, list[str]], references: Sequence[str] | None, after: str
    ) -> Iterator[str]:
        if references is not None:
            wanted = set(references)
            yield from sorted(sha1 for sha1, names in held.items() if wanted.intersection(names))
            return
        below = f"entries/{namespace}/"
        for listed in self._bucket.listing(below, after=below + after if after else ""):
            yield listed.key.removeprefix(below)

    def holders(self, kind: str) -> list[tuple[str, str]]:
        """See `Blobs`."""
        prefix = f"{kind}:"
        return [
            (namespace, name.removeprefix(prefix))
            for namespace in self._bucket.folders("refs/")
            for name in self._bucket.folders(f"refs/{namespace}/")
            if name.startswith(prefix)
        ]

    def sweep(self, retention: Retention) -> Swept:
        """See `Blobs`."""
        swept = upkeep.sweep(
            self._shelves, retention, owner=self._owner, settle=self._settle, abandoned=self._abandoned
        )
        usage = self._count()
        with self._lock:
            self._usage = usage
        return swept

    def scrub(self, *, every: float, pause: Callable[[int], bool]) -> Scrubbed:
        """See `Blobs`."""
        return upkeep.scrub(self._shelves, owner=self._owner, every=every, pause=pause)

    def usage(self) -> Usage:
        """See `Blobs`: what there was at the last sweep, and what came here since."""
        return self._usage

    def free_bytes(self) -> int:
        """See `Blobs`."""
        return _PLENTY

    def _count(self) -> Usage:
        """List all contents, which also tells what the cache has of those that are gone."""
        # What comes there from now on may be younger than the listing.
        gone = set() if self._cache is None else self._cache.names()
        objects = size = 0
        for name, listed in self._shelves.contents():
            gone.discard(name)
            objects, size = objects + 1, size + listed.size
        # A listing that breaks off doesn't come to this.
        if self._cache is not None:
            self._cache.drop(gone)
        return Usage(objects, size)

    def _add(self, size: int) -> None:
        with self._lock:
            self._usage = Usage(self._usage.objects + 1, self._usage.size + size)


class _S3Content:
    """See `Content`."""

    def __init__(self, bucket: Bucket, key: str, *, begun: Callable[[], None] | None = None) -> None:
        """``begun`` is told when somebody reads it from its beginning."""
        self._bucket = bucket
        self._key = key
        self._begun = begun

    def file(self) -> BinaryIO | None:
        return None

    def read(self, start: int, end: int) -> Generator[bytes]:
        return self._pieces(start, end, read=_read)

    def stream(self, start: int, end: int, pipe: Pipe) -> Generator[bytes | None]:
        def read(response: urllib3.BaseHTTPResponse, size: int) -> Iterator[tuple[int, bytes | None]]:
            return _splice(response, size, pipe)

        return self._pieces(start, end, read=read)

    def _pieces(
        self,
        start: int,
        end: int,
        *,
        read: Callable[[urllib3.BaseHTTPResponse, int], Iterator[tuple[int, T]]],
    ) -> Generator[T]:
        broken = 0
        # Neither who asks for the size alone, nor who goes on with what broke off, is another reader.
        if start == 0 and self._begun is not None:
            self._begun()
        while start < end:
            try:
                with self._bucket.open(self._key, start=start, end=end) as response:
                    if response is None:
                        return
                    for count, piece in read(response, end - start):
                        start += count
                        broken = 0
                        yield piece
            except (UnavailableError, urllib3.exceptions.HTTPError):
                # Gone on where it broke off: the reader may have had most of it.
                broken += 1
                if broken > _RESUMED:
                    raise

    def close(self) -> None:
        """Nothing is held between reads."""


def _read(response: urllib3.BaseHTTPResponse, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the next bytes of an answer, with how many they are."""
    while size and (piece := response.read(min(_PIECE, size))):
        size -= len(piece)
        yield len(piece), piece


def _splice(response: urllib3.BaseHTTPResponse, size: int, pipe: Pipe) -> Iterator[tuple[int, bytes | None]]:
    """As `_read`, but what the kernel can move is taken into the pipe, and None in its place."""
    # What came with the headers is in a buffer, which this empties.
    if first := response.read1(min(io.DEFAULT_BUFFER_SIZE, size)):
        size -= len(first)
        yield len(first), first
    source = rest_of(response)
    while size and source is not None:
        try:
            count = pipe.fill(source, size)
        except SpliceUnsupportedError:
            break
        if not count:
            raise ConnectionResetError("the body broke off")
        size -= count
        yield count, None
    yield from _read(response, size)

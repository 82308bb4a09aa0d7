"""``python3 -m gpux.store move --from file:DIRECTORY --to s3://BUCKET[/PREFIX]``: from a directory to a bucket.

Nothing is changed in the directory but that nobody else may use it meanwhile. What is in the bucket already isn't sent
again, so a move that was interrupted is run again, and one may be made in advance for what there is so far. Every file
is hashed while it is read, and its parts are checked by the service; what isn't what its name says stays behind.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpux.blobs import Entry
from gpux.calls import CallBook
from gpux.errors import UnavailableError
from gpux.filestore.backend import DirectoryLock, FileBlobs
from gpux.filestore.layout import Layout
from gpux.hashes import FileHash
from gpux.store.backend import add_s3_options, open_bucket

if TYPE_CHECKING:
    from gpux.s3.bucket import Bucket
    from gpux.s3.shelves import Shelves

_PAGE = 1000
_REPORT_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """Do it; the exit status is 1 if something couldn't be moved."""
    parser = argparse.ArgumentParser(prog="gpux-store move")
    add: Any = parser.add_argument
    add(
        "--from",
        dest="source",
        required=True,
        metavar="file:DIRECTORY",
        help="the directory of a store at rest",
    )
    add("--to", required=True, metavar="s3://BUCKET[/PREFIX]", help="where to")
    add_s3_options(add)
    options = parser.parse_args(arguments)
    kind, _, path = options.source.partition(":")
    root = Path(path)
    if kind != "file" or not (root / "sha256").is_dir():
        return _refuse(
            f"--from: {options.source!r} is no store's directory; it should be file: and one with a folder sha256"
        )
    lock = DirectoryLock(str(root / "lock"))
    if not lock.try_acquire():
        return _refuse(f"--from: a store uses {root}; stop it first (scale its Deployment to 0)")
    bucket = open_bucket(options.to, options)
    if bucket is None:
        return 1
    try:
        return _Move(str(root), bucket).run()
    except UnavailableError as error:
        return _refuse(f"{error}; nothing is lost: run the same command again")


def _refuse(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 1


class _Move:
    """One run of it."""

    def __init__(self, root: str, bucket: Bucket) -> None:
        from gpux.s3.shelves import Shelves  # noqa: PLC0415 only here the library is needed

        self._root = root
        self._bucket = bucket
        self._blobs = FileBlobs(root)
        self._shelves: Shelves = Shelves(bucket)
        self._namespaces = Layout(root).namespaces()
        self._files = self._sent = self._bytes = self._broken = 0
        self._reported = 0.0
        self._all = 0

    def run(self) -> int:
        """Move everything; the exit status."""
        self._all = sum(1 for namespace in self._namespaces for _ in self._entries(namespace))
        with ThreadPoolExecutor(4) as senders:
            for namespace in self._namespaces:
                for entry in self._entries(namespace):
                    self._move(namespace, entry, senders)
                    self._report()
            calls = asyncio.run(self._calls(senders))
        self._report(last=True)
        sys.stdout.write(f"{calls} calls are there\n")
        if self._broken:
            return _refuse(f"{self._broken} files aren't what their names say and stayed behind; see above")
        return 0

    def _entries(self, namespace: str) -> Iterator[Entry]:
        after = ""
        while page := self._blobs.entries(namespace, after=after, limit=_PAGE):
            yield from page
            after = page[-1].blob.sha1

    def _move(self, namespace: str, entry: Entry, senders: ThreadPoolExecutor) -> None:
        blob = entry.blob
        self._files += 1
        # The references first, as for an upload: they protect it from a sweep.
        for reference in entry.references:
            self._shelves.refer(namespace, reference, blob, limit=None)
        if not self._shelves.present(namespace, blob):
            # Named by its hash, so that it is found again, and sent once for all namespaces.
            name = blob.sha256[:32]
            if self._bucket.size(f"data/{name}") != blob.size and not self._send(
                namespace, entry, name, senders
            ):
                self._broken += 1
                return
            self._shelves.enter(namespace, blob, name, like=entry)
        self._shelves.point_back(namespace, blob)

    def _send(self, namespace: str, entry: Entry, name: str, senders: ThreadPoolExecutor) -> bool:
        """Send a content; False if it isn't what its entry says."""
        from gpux.s3.parts import Parts  # noqa: PLC0415 as above

        blob, key = entry.blob, f"data/{name}"
        for former in list(self._bucket.uploads(key)):
            self._bucket.abort(former.key, former.upload)
        opened = self._blobs.open(namespace, FileHash("sha1", blob.sha1))
        if opened is None:
            sys.stderr.write(f"{namespace}: {blob.sha1} is missing\n")
            return False
        hashes = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
        with closing(opened[1]) as content, closing(Parts(self._bucket, key, senders, spool=None)) as parts:
            for piece in content.read(0, blob.size):
                for hashed in hashes:
                    hashed.update(piece)
                parts.write(piece)
                self._bytes += len(piece)
                self._report()
            if tuple(hashed.hexdigest() for hashed in hashes) != (blob.sha1, blob.sha256):
                sys.stderr.write(f"{namespace}: {blob.sha1} has other bytes than its name says\n")
                return False
            parts.finish()
        self._sent += 1
        return True

    async def _calls(self, executor: ThreadPoolExecutor) -> int:
        from gpux.s3.calls import copy  # noqa: PLC0415 as above

        book = CallBook(self._root, executor=executor)
        for call in book.all():
            data = json.dumps(await book.data(call)).encode()
            await asyncio.to_thread(copy, self._bucket, call, data)
        return len(book.all())

    def _report(self, *, last: bool = False) -> None:
        if last or time.monotonic() - self._reported > _REPORT_SECONDS:
            self._reported = time.monotonic()
            sys.stdout.write(
                f"{self._files} of {self._all} entries, {self._sent} files sent with {self._bytes / 1e6:.1f} MB\n"
            )
            sys.stdout.flush()

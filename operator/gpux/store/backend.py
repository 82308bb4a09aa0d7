"""Where the store keeps everything: a directory of its own, or a bucket that it shares with other stores."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gpux.blobs import Blobs
from gpux.calls import CallBook, Calls
from gpux.errors import UnavailableError
from gpux.filestore.backend import DirectoryLock, FileBlobs
from gpux.log import log

if TYPE_CHECKING:
    from gpux.s3.bucket import Bucket
    from gpux.s3.cache import Cache

_WAIT_SECONDS = 60.0


class Backend(NamedTuple):
    """A place that is ready to be used."""

    open: Callable[[Executor], tuple[Blobs, Calls]]
    """Load what is there; the executor is for calls."""
    held: object = None
    """What mustn't be let go before the end."""
    cache: Cache | None = None
    """Of what is read often from a bucket."""


def add_options(add: Any) -> None:
    """Add the options that say where it is, with an ArgumentParser's method."""
    add("--root", type=Path, help="directory of what is stored; on one file system")
    add("--reserve", type=int, default=64 << 20, help="bytes that files leave free for records of calls")
    add("--s3", metavar="s3://BUCKET[/PREFIX]", help="keep it there instead of in a directory")
    add_s3_options(add)
    add(
        "--s3-cache",
        metavar="DIRECTORY",
        help="keep there what is read often; a directory of its own, emptied",
    )
    add("--s3-cache-bytes", type=int, default=2 << 30, metavar="N", help="most bytes there (default: 2 GiB)")


def add_s3_options(add: Any) -> None:
    """Add the options that say how to reach a bucket."""
    add("--s3-endpoint", metavar="URL", help="the service; default: AWS, in the region")
    add("--s3-region", default="us-east-1", help="region that requests are signed for (default: us-east-1)")
    add(
        "--s3-credentials",
        type=Path,
        metavar="DIRECTORY",
        help="a mounted Secret: access-key-id, secret-access-key and maybe session-token",
    )
    add("--s3-ca", type=Path, metavar="FILE", help="certificates to trust instead of the system's")
    add(
        "--s3-virtual-host",
        action="store_true",
        help="the bucket is part of the host's name, not of the path",
    )


def prepare(options: argparse.Namespace) -> Backend | None:
    """Take possession of the place that the options name; None, after saying why, where that isn't possible."""
    if (options.root is None) == (options.s3 is None):
        sys.stderr.write("either --root or --s3 is needed: a directory, or a bucket\n")
        return None
    if options.s3 is not None:
        bucket = open_bucket(options.s3, options)
        if bucket is None:
            return None
        cache = _open_cache(options)
        return Backend(lambda executor: _in_bucket(bucket, executor, cache=cache), cache=cache)
    root = str(options.root)
    options.root.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(f"{root}/lock")
    deadline = time.monotonic() + _WAIT_SECONDS
    while not lock.try_acquire():
        # The former process of a rolling restart may still be finishing.
        if time.monotonic() > deadline:
            log("error", "another store has this directory", root=root)
            return None
        time.sleep(0.2)
    return Backend(
        lambda executor: (FileBlobs(root, reserve=options.reserve), CallBook(root, executor=executor)), lock
    )


def open_bucket(location: str, options: argparse.Namespace) -> Bucket | None:
    """Reach a bucket, and make sure that it can hold a store; None, after saying why, if not."""
    # Only here, so that a store in a directory needs neither the library nor its memory.
    from gpux.s3.bucket import Bucket, Options, parse_location  # noqa: PLC0415

    if options.s3_credentials is None:
        sys.stderr.write("--s3-credentials is needed: the directory of a mounted Secret\n")
        return None
    try:
        name, prefix = parse_location(location)
        bucket = Bucket(
            Options(
                endpoint=options.s3_endpoint or f"https://s3.{options.s3_region}.amazonaws.com",
                bucket=name,
                prefix=prefix,
                region=options.s3_region,
                credentials=options.s3_credentials,
                path_style=not options.s3_virtual_host,
                ca=options.s3_ca,
            )
        )
        _check(bucket)
    except (ValueError, OSError, UnavailableError) as error:
        log("error", "the bucket can't be used", location=location, error=str(error))
        return None
    return bucket


def _check(bucket: Bucket) -> None:
    """See `Bucket.check`; a service that isn't there yet is waited for."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return bucket.check()
        except UnavailableError as error:
            if time.monotonic() > deadline:
                raise
            log("warning", "the bucket isn't ready", error=str(error))
        time.sleep(1.0)


def _open_cache(options: argparse.Namespace) -> Cache | None:
    """Open the cache that the options ask for; without one the store is slower, but works."""
    from gpux.s3.cache import Cache  # noqa: PLC0415 as above

    if options.s3_cache is None:
        return None
    try:
        return Cache(options.s3_cache, options.s3_cache_bytes)
    except OSError as error:
        log("warning", "--s3-cache: the directory can't be used; nothing is kept there", error=str(error))
        return None


def _in_bucket(bucket: Bucket, executor: Executor, *, cache: Cache | None) -> tuple[Blobs, Calls]:
    from gpux.s3.blobs import S3Blobs  # noqa: PLC0415 as above
    from gpux.s3.calls import S3CallBook  # noqa: PLC0415 the same

    return S3Blobs(bucket, cache=cache), S3CallBook(bucket, executor=executor)

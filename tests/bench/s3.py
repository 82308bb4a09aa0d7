"""The gpux store over a bucket, held against a client that talks to the same S3 server itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from gpux.s3.bucket import Bucket
from gpux.s3.parts import Parts
from gpux.tokens import sign
from tests.bench.row import Figure, Row
from tests.bench.store import BLOCK, CLAIMS, KEY, SIZE, Served, serve
from tests.support.s3 import s3_server
from tests.support.stack import eventually

HEADERS = {"Authorization": f"Bearer {sign(KEY, CLAIMS)}"}


@contextmanager
def over_s3(*more: str) -> Iterator[tuple[Served, Bucket]]:
    """Run a server and a store over it, with more options; what reaches the store, and what the store has."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, s3_server(Path(folder) / "s3") as server:
        options = server.options()
        with (
            serve(Path(folder), *server.arguments(options), *more) as served,
            server.bucket(options) as bucket,
        ):
            yield served, bucket


def _body(seed: bytes) -> Iterator[bytes]:
    yield seed + BLOCK[len(seed) :]
    for _ in range(SIZE // len(BLOCK) - 1):
        yield BLOCK


def _post(served: Served) -> tuple[str, float]:
    """SHA-1, and bytes per second."""
    start = time.perf_counter()
    headers = HEADERS | {"Content-Length": str(SIZE)}
    served.connection.request("POST", "/v1/files", body=_body(os.urandom(8)), headers=headers)
    answer = served.connection.getresponse()
    document = json.loads(answer.read())
    assert answer.status == 201, document
    return document["sha1"], SIZE / (time.perf_counter() - start)


def _post_plainly(bucket: Bucket) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(4) as sender:
        parts = Parts(bucket, "plain", sender, spool=None)
        for block in _body(b""):
            parts.write(block)
        parts.finish()
        parts.close()
    return SIZE / (time.perf_counter() - start)


def _get(served: Served, sha1: str) -> float:
    start = time.perf_counter()
    served.connection.request("GET", f"/v1/files/{sha1}", headers=HEADERS)
    answer = served.connection.getresponse()
    size = 0
    while piece := answer.read(len(BLOCK)):
        size += len(piece)
    assert size == SIZE
    return SIZE / (time.perf_counter() - start)


def _get_plainly(bucket: Bucket) -> float:
    start = time.perf_counter()
    size = 0
    with bucket.open("plain", start=0, end=SIZE) as answer:
        assert answer is not None
        while piece := answer.read(len(BLOCK)):
            size += len(piece)
    assert size == SIZE
    return SIZE / (time.perf_counter() - start)


def post() -> Figure:
    with over_s3() as (served, bucket):
        # Before and after, since the disk under the server is slower after so much.
        reference = _post_plainly(bucket)
        _, value = _post(served)
        reference = (reference + _post_plainly(bucket)) / 2
        return Figure(value=value / 1e6, reference=reference / 1e6, unit="MB/s")


def _by_turns(value: Callable[[], float], reference: Callable[[], float]) -> Figure:
    values, references = zip(*((value(), reference()) for _ in range(9)), strict=True)
    return Figure(value=median(values) / 1e6, reference=median(references) / 1e6, unit="MB/s")


def get() -> Figure:
    """Read what two have read before, and by turns the bucket itself."""
    with (
        tempfile.TemporaryDirectory(dir=Path.home()) as cache,
        over_s3(f"--s3-cache={cache}") as (served, bucket),
    ):
        sha1, _ = _post(served)
        _post_plainly(bucket)
        for _ in range(2):
            _get(served, sha1)
        eventually(
            lambda: [path.suffix for path in Path(cache).iterdir()] == [""],
            within=120,
            otherwise="the cache stays empty",
        )
        return _by_turns(lambda: _get(served, sha1), lambda: _get_plainly(bucket))


@contextmanager
def _relayed(bucket: Bucket) -> Iterator[Bucket]:
    """The same bucket through a process that does nothing but splice."""
    options = bucket._options
    command = [sys.executable, "-m", "tests.bench.relay", str(urlsplit(options.endpoint).port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        relayed = Bucket(options._replace(endpoint=f"http://127.0.0.1:{process.stdout.readline().strip()}"))
        try:
            yield relayed
        finally:
            relayed.close()
            process.terminate()


def get_first() -> Figure:
    """Read from the bucket, as each first reader does."""
    with over_s3() as (served, bucket), _relayed(bucket) as relayed:
        sha1, _ = _post(served)
        _post_plainly(bucket)
        return _by_turns(lambda: _get(served, sha1), lambda: _get_plainly(relayed))


def memory() -> Figure:
    """The store's peak, after one file has gone in and out, and that of a store over a directory."""

    def peak(served: Served) -> float:
        sha1, _ = _post(served)
        _get(served, sha1)
        status = Path(f"/proc/{served.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024

    with over_s3() as (served, _):
        value = peak(served)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        (Path(folder) / "data").mkdir()
        with serve(Path(folder), f"--root={folder}/data") as served:
            return Figure(value=value, reference=peak(served), unit="MiB")


ROWS = [
    Row(
        name="store-s3-post-256MiB",
        measure=post,
        target=0.8,
        better="higher",
        why="sending the same parts to the same server, without hashing",
    ),
    Row(
        name="store-s3-get-256MiB",
        measure=get,
        target=0.8,
        better="higher",
        why="what several jobs read, the third time: reading the same bytes from the same server",
    ),
    Row(
        name="store-s3-first-get-256MiB",
        measure=get_first,
        target=0.9,
        better="higher",
        why="reading the same bytes from the same server through a process that only splices",
    ),
    Row(name="store-s3-memory", measure=memory, target=1.5, why="a store over a directory, doing the same"),
]

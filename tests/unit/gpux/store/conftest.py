"""The store's API, served in this process on loopback."""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
import pytest

from gpux import tokens
from gpux.calls import CallBook
from gpux.s3.blobs import S3Blobs
from gpux.store.calls import CallApi
from gpux.store.connection import Listener
from gpux.store.files import FileApi
from gpux.store.folders import FolderApi
from gpux.store.links import LinkApi
from gpux.store.metrics import Metrics
from gpux.store.pulls import Pulls
from gpux.store.resume import KEEP_SECONDS, ResumeApi
from gpux.store.routes import FILES, Api
from gpux.store.server import Server, bearer
from gpux.store.storage import PullApi
from gpux.store.tasks import TaskApi
from gpux.store.transfer import Limits, Transfer
from tests.support.s3 import s3_server
from tests.unit.gpux.filestore.kit import Clock, FullDisk, store
from tests.unit.gpux.s3.kit import WarmBlobs

KEY = b"a key for tests, of thirty-two b"


def token(scope="job", *, namespace="a", task="t", **claims) -> str:
    return tokens.sign(
        KEY,
        {"scope": scope, "namespace": namespace, "task": task, "exp": int(time.time()) + 3600, **claims},
    )


class Service:
    """A server, and requests to it."""

    def __init__(self, session, url, *, blobs, calls, metrics, disk, clock):
        self.session, self.url = session, url
        self.blobs, self.calls, self.metrics = blobs, calls, metrics
        self.disk, self.clock = disk, clock

    async def ask(self, method, path, *, bearer=None, body=None, headers=None):
        """Status, headers and content; ``bearer`` is a job's token if none is given."""
        if isinstance(body, bytes) and len(body) > 1 << 20:
            body = io.BytesIO(body)
        async with self.session.request(
            method,
            f"{self.url}{path}",
            data=body,
            headers={"Authorization": f"Bearer {token() if bearer is None else bearer}", **(headers or {})},
        ) as response:
            return response.status, response.headers, await response.read()

    async def status(self, *arguments, **options):
        return (await self.ask(*arguments, **options))[0]


@asynccontextmanager
async def serving(root, *, blobs=None, upload_seconds=KEEP_SECONDS, **limits):
    """Files are in the directory, unless other `blobs` are given; calls are."""
    disk, clock = FullDisk(), Clock()
    with ThreadPoolExecutor(8) as files, ThreadPoolExecutor(2) as records:
        blobs = blobs or store(root, disk=disk, clock=clock)
        calls = CallBook(str(root), executor=records)
        metrics = Metrics(free_bytes=blobs.free_bytes, usage=blobs.usage, calls=calls.counts)
        transfer = Transfer(blobs=blobs, executor=files, metrics=metrics, limits=Limits(**limits))
        resume = ResumeApi(transfer, seconds=upload_seconds)
        links = LinkApi(transfer, key=lambda: KEY, url="https://files.test")
        apis: list[Api] = [FileApi(transfer), resume, FolderApi(transfer), links]
        server = Listener(
            Server(
                [*apis, CallApi(calls, transfer), TaskApi(calls, transfer), PullApi(Pulls())],
                authenticate=bearer(lambda: KEY, scopes=FILES | {"link"}),
                metrics=metrics,
            )
        )
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()[:2]
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                yield Service(
                    session,
                    f"http://{host}:{port}",
                    blobs=blobs,
                    calls=calls,
                    metrics=metrics,
                    disk=disk,
                    clock=clock,
                )
        finally:
            calls.close()
            listener.close()
            server.pre_shutdown()
            await server.shutdown(1.0)
            resume.close()


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
async def service(root):
    async with serving(root) as made:
        yield made


def over(bucket, kind, folder):
    """The files of a bucket: "s3", or "cached" when nobody reads the bucket itself."""
    spool = folder / "spool"
    spool.mkdir()
    if kind == "s3":
        return S3Blobs(bucket, spool=str(spool))
    return WarmBlobs(bucket, folder=folder / "cache", spool=str(spool))


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as running:
        yield running


@pytest.fixture(params=["file", "s3", "cached"])
async def either(request, root, tmp_path):
    """A server over each of the backends."""
    if request.param == "file":
        async with serving(root) as made:
            yield made
        return
    with request.getfixturevalue("bucket_server").bucket() as bucket:
        async with serving(root, blobs=over(bucket, request.param, tmp_path)) as made:
            yield made

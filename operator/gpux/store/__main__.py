"""Run the store: ``python3 -m gpux.store --root DIRECTORY --key-file FILE``, or one of its `tools`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from gpux.blobs import Retention
from gpux.filestore.backend import FileBlobs
from gpux.log import log
from gpux.store import move, tools
from gpux.store.backend import Backend, add_options, prepare
from gpux.store.calls import CallApi
from gpux.store.connection import Connection, Listener
from gpux.store.external import ExternalApi, Outsider, outsider
from gpux.store.fastlane import Lane
from gpux.store.files import FileApi
from gpux.store.folders import FolderApi
from gpux.store.keyfile import KeyFile
from gpux.store.links import LinkApi
from gpux.store.metrics import Metrics
from gpux.store.pulls import Pulls
from gpux.store.resume import KEEP_SECONDS, ResumeApi
from gpux.store.routes import Api
from gpux.store.server import Server, bearer
from gpux.store.storage import PullApi, StorageApi
from gpux.store.tasks import TaskApi
from gpux.store.transfer import Limits, Transfer
from gpux.store.upkeep import Habits, Upkeep

_SHUTDOWN_SECONDS = 12.0
"""Twice that, for uploads that don't end, is less than the pod's period of grace."""
_BACKLOG = 2048
_DAY = 86_400.0


class _Lines(logging.Handler):
    """Has aiohttp's own complaints come out as our log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        log(level, record.getMessage(), error=repr(record.exc_info[1]) if record.exc_info else None)


async def _serve(options: argparse.Namespace, backend: Backend) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    key = KeyFile(options.key_file)
    # Two pools: the commit of a large file may take seconds of its threads, and calls don't wait for that.
    files = ThreadPoolExecutor(16, thread_name_prefix="files")
    records = ThreadPoolExecutor(8, thread_name_prefix="records")
    blobs, calls = backend.open(records)
    metrics = Metrics(
        free_bytes=blobs.free_bytes,
        usage=blobs.usage,
        calls=calls.counts,
        cache=None if backend.cache is None else backend.cache.figures,
    )
    limits = Limits(file_bytes=options.max_file_bytes)
    transfer = Transfer(blobs=blobs, executor=files, metrics=metrics, limits=limits)
    pulls = Pulls()
    resume = ResumeApi(transfer, seconds=options.upload_seconds)
    apis: list[Api] = [
        FileApi(transfer),
        resume,
        FolderApi(transfer),
        LinkApi(transfer, key=key, url=options.external_url),
    ]
    store = Server(
        [*apis, CallApi(calls, transfer), TaskApi(calls, transfer), PullApi(pulls)],
        authenticate=bearer(key),
        metrics=metrics,
    )
    outside = Server(
        [*apis, ExternalApi(transfer), StorageApi(pulls)],
        authenticate=outsider(key),
        metrics=metrics,
    )

    # A bucket would have to be asked over the network whether a file is still there.
    lane = Lane(blobs.watch, key=key, metrics=metrics) if isinstance(blobs, FileBlobs) else None

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.request_came()
        return await store(request)

    async def handle_outside(request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.request_came()
        return await outside(request)

    async def observe(request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.request_came()
        if request.path == "/metrics":
            return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})
        return web.Response(text="ok\n") if request.path == "/healthz" else web.Response(status=404)

    upkeep = Upkeep(
        blobs,
        metrics,
        Habits(
            sweep_seconds=options.sweep_seconds,
            retention=Retention(
                grace=options.grace_seconds,
                unused=options.unused_days * _DAY if options.unused_days else None,
            ),
            scrub_days=options.scrub_days,
            scrub_rate=options.scrub_bytes_per_second,
        ),
    )
    upkeep.start()
    following = asyncio.create_task(calls.follow())

    servers = [(Listener(handle, lane=lane), options.listen)]
    if options.metrics_listen is not None:
        servers.append((Listener(observe), options.metrics_listen))
    if options.external_listen is not None:
        servers.append((Listener(handle_outside, request_factory=Outsider.made), options.external_listen))
    listeners = [
        await loop.create_server(server, host, port, backlog=_BACKLOG, reuse_address=True)
        for server, (host, port) in servers
    ]
    addresses = [":".join(map(str, listener.sockets[0].getsockname()[:2])) for listener in listeners]
    log(
        "info", "the store serves", addresses=addresses, calls=len(calls.all()), free_bytes=blobs.free_bytes()
    )
    await stop.wait()
    log("info", "the store ends")
    for listener in listeners:
        listener.close()
    upkeep.stop()
    following.cancel()
    calls.close()
    for server, _ in servers:
        server.pre_shutdown()
        await server.shutdown(_SHUTDOWN_SECONDS)
    resume.close()
    files.shutdown()
    records.shutdown()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1 << 40:
        raise ValueError
    return number


def _rate(text: str) -> float:
    if rate := _number(text):
        return rate
    raise ValueError


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, or look after a store's directory."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] and given[0] in tools.TOOLS:
        return tools.main(given)
    if given[:1] == ["move"]:
        return move.main(given[1:])
    parser = argparse.ArgumentParser(prog="gpux-store", description="The store of files and calls.")
    add: Any = parser.add_argument
    add_options(add)
    add("--listen", type=_address, default=("0.0.0.0", 8080), help="ADDRESS:PORT of the API")
    add("--metrics-listen", type=_address, default=None, help="ADDRESS:PORT of /metrics; none if absent")
    add("--external-listen", type=_address, default=None, help="ADDRESS:PORT for the outside; none if absent")
    add("--external-url", default=None, help="the URL of that port as seen from outside, for links")
    add("--key-file", type=Path, required=True, help="the key that tokens are signed with")
    add("--max-file-bytes", type=int, default=1 << 40, help="largest file taken")
    add("--upload-seconds", type=_rate, default=KEEP_SECONDS, help="how long broken uploads are kept")
    add("--sweep-seconds", type=_number, default=3600.0, help="time between sweeps; 0: none")
    add("--grace-seconds", type=_number, default=7 * _DAY, help="how long files without references stay")
    add("--unused-days", type=_number, default=90.0, help="when owners lose files they don't use; 0: never")
    add("--scrub-days", type=_number, default=30.0, help="time in which all files are read again; 0: never")
    add("--scrub-bytes-per-second", type=_rate, default=20.0 * (1 << 20), help="how fast they are read")
    options = parser.parse_args(given)
    backend = prepare(options)
    if backend is None:
        return 1
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve(options, backend))
    return 0


if __name__ == "__main__":
    sys.exit(main())

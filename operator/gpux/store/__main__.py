"""Run the store: ``python3 -m gpux.store --root DIRECTORY --key-file FILE``, or one of its `tools`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from gpux import tokens
from gpux.blobs import Retention
from gpux.calls import CallBook
from gpux.filestore.backend import DirectoryLock, FileBlobs
from gpux.log import log
from gpux.store import tools
from gpux.store.calls import CallApi
from gpux.store.files import FileApi
from gpux.store.folders import FolderApi
from gpux.store.http import reply
from gpux.store.metrics import Metrics
from gpux.store.server import Server, bearer
from gpux.store.tasks import TaskApi
from gpux.store.transfer import Limits, Transfer
from gpux.store.upkeep import Habits, Upkeep

_LOCK_SECONDS = 60.0
_SHUTDOWN_SECONDS = 20.0
_FIRST_REQUEST_SECONDS = 30.0
_KEEPALIVE_SECONDS = 75.0
_BACKLOG = 2048
_DAY = 86_400.0


class _Lines(logging.Handler):
    """Has aiohttp's own complaints come out as our log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        log(level, record.getMessage(), error=repr(record.exc_info[1]) if record.exc_info else None)


class _Protocol(web.RequestHandler):
    """A connection that must make its first request soon: aiohttp bounds only the time between requests."""

    __slots__ = ("_first",)

    _first: asyncio.TimerHandle | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._first = loop.call_later(_FIRST_REQUEST_SECONDS, transport.close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.request_came()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 the same
        message: str | None = None,  # noqa: ARG002 the same
    ) -> web.StreamResponse:
        """Answer what is no HTTP as everything else, without repeating it to its sender."""
        response = reply(
            {"error": "the request is malformed" if status < 500 else "internal error"}, status=status
        )
        response.force_close()
        return response

    def request_came(self) -> None:
        if self._first is not None:
            self._first.cancel()
            self._first = None


class _Listener(web.Server):
    """aiohttp's server with our connections."""

    def __call__(self) -> web.RequestHandler:
        return _Protocol(
            self,
            loop=asyncio.get_running_loop(),
            # What a job uploads is stored as it is, whatever encoding it says it has.
            auto_decompress=False,
            keepalive_timeout=_KEEPALIVE_SECONDS,
        )


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Looked at once now, so that a key that is no good is seen at the start.
    tokens.load_key(options.key_file)
    # Two pools: the commit of a large file may take seconds of its threads, and calls don't wait for that.
    files = ThreadPoolExecutor(16, thread_name_prefix="files")
    records = ThreadPoolExecutor(4, thread_name_prefix="records")
    root = str(options.root)
    blobs = FileBlobs(root, reserve=options.reserve)
    calls = CallBook(root, executor=records)
    metrics = Metrics(free_bytes=blobs.free_bytes, usage=blobs.usage, calls=calls.counts)
    limits = Limits(file_bytes=options.max_file_bytes)
    transfer = Transfer(blobs=blobs, executor=files, metrics=metrics, limits=limits)
    store = Server(
        [FileApi(transfer), FolderApi(transfer), CallApi(calls, transfer), TaskApi(calls, transfer)],
        authenticate=bearer(lambda: tokens.load_key(options.key_file)),
        metrics=metrics,
    )

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _Protocol):
            request.protocol.request_came()
        return await store(request)

    async def observe(request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _Protocol):
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

    servers = [(_Listener(handle), options.listen)]
    if options.metrics_listen is not None:
        servers.append((_Listener(observe), options.metrics_listen))
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
    calls.close()
    for server, _ in servers:
        server.pre_shutdown()
        await server.shutdown(_SHUTDOWN_SECONDS)
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
    parser = argparse.ArgumentParser(prog="gpux-store", description="The store of files and calls.")
    add: Any = parser.add_argument
    add("--root", type=Path, required=True, help="directory of what is stored; on one file system")
    add("--listen", type=_address, default=("0.0.0.0", 8080), help="ADDRESS:PORT of the API")
    add("--metrics-listen", type=_address, default=None, help="ADDRESS:PORT of /metrics; none if absent")
    add("--key-file", type=Path, required=True, help="the key that tokens are signed with")
    add("--max-file-bytes", type=int, default=1 << 40, help="largest file taken")
    add("--reserve", type=int, default=64 << 20, help="bytes that files leave free for records of calls")
    add("--sweep-seconds", type=_number, default=3600.0, help="time between sweeps; 0: none")
    add("--grace-seconds", type=_number, default=7 * _DAY, help="how long files without references stay")
    add("--unused-days", type=_number, default=90.0, help="when owners lose files they don't use; 0: never")
    add("--scrub-days", type=_number, default=30.0, help="time in which all files are read again; 0: never")
    add("--scrub-bytes-per-second", type=_rate, default=20.0 * (1 << 20), help="how fast they are read")
    options = parser.parse_args(given)
    options.root.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(str(options.root / "lock"))
    deadline = time.monotonic() + _LOCK_SECONDS
    while not lock.try_acquire():
        # The former process of a rolling restart may still be finishing.
        if time.monotonic() > deadline:
            log("error", "another store has this directory", root=str(options.root))
            return 1
        time.sleep(0.2)
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())

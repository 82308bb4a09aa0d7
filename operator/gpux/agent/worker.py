"""The serving process: everything the agent does but hold the sockets."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from gpux.agent.api import FileApi
from gpux.agent.callback import CallbackApi, Deliverer
from gpux.agent.caller import Caller
from gpux.agent.config import Config
from gpux.agent.link import Link
from gpux.agent.serving import serve
from gpux.agent.spool import Spool
from gpux.log import log

_API_CONNECTIONS = 32
_CALLBACK_CONNECTIONS = 8
_STACK = 256 * 1024
_DATA_LIMIT = 48 << 20
"""Cap on private memory: whatever a job does, this process fails alone and the pod's cgroup doesn't."""
_DRAIN_SECONDS = 25.0


class Listeners(NamedTuple):
    """What the first process holds for us."""

    api: socket.socket
    callback: socket.socket | None
    lifeline: int
    """The read end of a pipe that the first process holds open as long as it lives."""


def work(config: Config, listeners: Listeners, fault: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM, then until the store knows everything. Ends the process."""
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_LIMIT, _DATA_LIMIT))
    threading.stack_size(_STACK)
    stop = {signal.SIGTERM, signal.SIGINT}
    # Blocked before there are threads, so that only the main one hears them.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    _start("lifeline", lambda: _end_with(listeners.lifeline))
    link = Link(config.store, config.token_file)
    files = FileApi(link)
    _start("api", lambda: serve(listeners.api, files.handle, connections=_API_CONNECTIONS, name="api"))
    spool = None
    if listeners.callback is not None:
        spool = Spool(config.spool)
        _start_calls(config, listeners.callback, spool, link, fault)
    if config.storage:
        from gpux.agent.pulls import Puller  # noqa: PLC0415 only tasks that are open to the outside pay for it

        puller = Puller(link, task=config.task, stores=config.stores, roots=config.storage)
        _start("puller", puller.run)
    log("info", "the agent serves", pid=os.getpid(), calls=config.calls, storage=sorted(config.storage))
    signal.sigwait(stop)
    deadline = time.monotonic() + _DRAIN_SECONDS
    while spool is not None and not spool.settled() and time.monotonic() < deadline:
        # The app containers have ended before us, so nothing new comes: what is here has to go out.
        spool.answer_gone.wait(1.0)
    log("info", "the agent ends", settled=spool is None or spool.settled())
    os._exit(0)


def _start_calls(
    config: Config, listener: socket.socket, spool: Spool, link: Link, fault: Callable[[str], None]
) -> None:
    callbacks = CallbackApi(spool, fault=fault)
    deliverer = Deliverer(spool, link, task=config.task, fault=fault)
    caller = Caller(config, spool, link, fault=fault)
    _start(
        "callback",
        lambda: serve(listener, callbacks.handle, connections=_CALLBACK_CONNECTIONS, name="callback"),
    )
    _start("deliverer", deliverer.run)
    _start("caller", caller.run)


def _start(name: str, run: Callable[[], None]) -> None:
    """Run something that never ends; if it does, so does the process, and the next one starts afresh."""

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 nothing may end silently
            log("error", "a part of the agent failed", part=name, error=repr(error))
        os._exit(70)

    threading.Thread(target=guarded, name=name, daemon=True).start()


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    log("error", "the agent's first process is gone")

"""The agent's first process: holds the listening sockets, and starts the serving process again whenever it ends.

The socket file is mounted into the job's containers, so a new socket would be one that nobody sees: it must outlive
every crash of what serves it. This process therefore does nothing else, and imports as little as that needs. The
serving process is a fork of it, which imports the rest.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from gpux.agent.config import Address, Config
from gpux.log import log

_BACKLOG = 256
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 10.0
_STEADY_SECONDS = 30.0
_STOP_SECONDS = 28.0
_HANDLED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def listen_unix(path: str) -> socket.socket:
    """Listen on a socket file that everybody may connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # One left by a former container of the pod leads nowhere.
    with suppress(FileNotFoundError):
        os.unlink(path)
    before = os.umask(0)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    os.chmod(path, 0o666)  # noqa: S103 jobs run as any user; who may see the file is the pod's business
    listener.listen(_BACKLOG)
    return listener


def listen_tcp(address: Address) -> socket.socket:
    """Listen on loopback."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(_BACKLOG)
    return listener


class Supervisor:
    """Keeps one serving process running."""

    def __init__(self, config: Config, *, fault: Callable[[str], None] = lambda _: None) -> None:
        """Open the sockets. ``fault`` is told each step of a call, so that tests can end the process there."""
        self._config = config
        self._fault = fault
        os.makedirs(config.spool, exist_ok=True)
        self._api = listen_unix(config.socket)
        self._callback = listen_tcp(config.callback) if config.calls else None
        # Never written to: the serving process sees its end when this one is gone, however that came.
        self._lifeline, self._held = os.pipe()
        self._stopping = False

    def run(self) -> int:
        """Supervise until SIGTERM; the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        pause = _FIRST_PAUSE
        while not self._stopping:
            started = time.monotonic()
            pid = self._fork()
            status = self._wait(pid)
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            # Jitter, so that the agents of a node don't come back in step.
            jittered = pause * (0.5 + os.urandom(1)[0] / 512)
            if not self._stopping:
                log("warning", "the serving process ended", status=status, again_in=round(jittered, 3))
                self._sleep(jittered)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return 0

    def _fork(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            os.close(self._held)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            from gpux.agent import worker  # noqa: PLC0415 only the serving process pays for it

            listeners = worker.Listeners(self._api, self._callback, self._lifeline)
            worker.work(self._config, listeners, self._fault)
        except BaseException as error:  # noqa: BLE001 a fork must never return into the supervisor
            log("error", "the serving process failed", error=repr(error))
        os._exit(70)

    def _wait(self, pid: int) -> int:
        """Wait for the serving process, reaping whatever else ends; pass a wish to stop on to it."""
        deadline: float | None = None
        while True:
            while True:
                try:
                    ended, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return 0
                if ended == pid:
                    return os.waitstatus_to_exitcode(status)
                if not ended:
                    break
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0.0:
                os.kill(pid, signal.SIGKILL)
                deadline = left = None
            if self._heard(left):
                self._stopping = True
                deadline = time.monotonic() + _STOP_SECONDS
                os.kill(pid, signal.SIGTERM)

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            self._stopping = self._heard(left)

    def _heard(self, seconds: float | None) -> bool:
        """Wait for a signal; whether it was one to stop."""
        if seconds is None:
            return signal.sigwait(_HANDLED) != signal.SIGCHLD
        heard = signal.sigtimedwait(_HANDLED, seconds)
        return heard is not None and heard.si_signo != signal.SIGCHLD


def main() -> int:
    """Run the agent."""
    try:
        config = Config.of_environment(os.environ)
    except ValueError as error:
        log("error", "the agent's environment is wrong", error=str(error))
        return 2
    return Supervisor(config).run()


if __name__ == "__main__":
    sys.exit(main())

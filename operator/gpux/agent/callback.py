"""Takes the worker's answer, on the pod's loopback.

The worker's runtime calls once, never again, and takes 200 and nothing else for success. So the answer is on disk
before it hears that, and everything that could fail comes later, out of its sight.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
from collections.abc import Callable

from gpux.agent.http1 import BUFFER, ProtocolError
from gpux.agent.link import Backoff, Link, StoreAwayError
from gpux.agent.serving import Exchange
from gpux.agent.spool import Spool
from gpux.files import Disk
from gpux.jsontext import is_json
from gpux.log import log

ANSWER_LIMIT = 16 << 20
_PATH = re.compile(r"/([A-Za-z0-9_-]{1,128})/?")
_FINAL = {200, 201, 400, 404, 409, 413}


class CallbackApi:
    """Handles what comes to the callback address."""

    def __init__(
        self, spool: Spool, *, disk: Disk | None = None, fault: Callable[[str], None] = lambda _: None
    ) -> None:
        self._spool = spool
        self._disk = disk or Disk()
        self._fault = fault

    def handle(self, exchange: Exchange) -> None:
        """Take one callback."""
        found = _PATH.fullmatch(exchange.request.path)
        if exchange.request.method != "POST":
            exchange.fail(405, "allowed: POST", {"Allow": "POST"})
        elif not found or self._spool.expects(found[1]) == "unknown":
            exchange.fail(404, "no call with this address is outstanding")
        elif (exchange.body.length or 0) > ANSWER_LIMIT:
            exchange.fail(413, f"larger than {ANSWER_LIMIT} bytes")
        else:
            self._take(exchange, found[1])

    def _take(self, exchange: Exchange, address: str) -> None:
        exchange.proceed()
        temporary = self._spool.temporary()
        try:
            try:
                self._receive(exchange, temporary)
                self._fault("callback-received")
                result = self._spool.take_answer(address, temporary)
            except OSError as error:
                if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
                    raise
                log("error", "an answer could not be kept", error=str(error))
                exchange.fail(507, "the answer could not be kept")
                return
        finally:
            self._disk.unlink(temporary)
        self._fault("callback-spooled")
        if result == "unknown":
            exchange.fail(404, "no call with this address is outstanding")
            return
        log("info", "the worker answered", address=address, result=result)
        exchange.reply(200, {"status": "ok"})

    def _receive(self, exchange: Exchange, path: str) -> None:
        fd = self._disk.create(path)
        try:
            size = 0
            view = memoryview(bytearray(BUFFER))
            while count := exchange.body.read_into(view):
                size += count
                if size > ANSWER_LIMIT:
                    raise ProtocolError(413, f"larger than {ANSWER_LIMIT} bytes")
                self._disk.write(fd, view[:count])
            if not size or not _is_json(fd):
                raise ProtocolError(400, "the body is not JSON")
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)


def _is_json(fd: int) -> bool:
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as text:
        return is_json(text)


class Deliverer:
    """Brings answers to the store, however long that takes."""

    def __init__(
        self, spool: Spool, link: Link, *, task: str, fault: Callable[[str], None] = lambda _: None
    ) -> None:
        self._spool = spool
        self._link = link
        self._task = task
        self._fault = fault
        self._never = threading.Event()

    def run(self) -> None:
        """Deliver for ever."""
        backoff = Backoff(first=0.2, longest=10.0)
        while True:
            self._spool.answer_came.wait()
            waiting = self._spool.undelivered()
            if waiting is None:
                continue
            attempt, path = waiting
            answer = os.stat(path)
            # When the worker gave it counts, however late the store hears of it.
            query = f"answeredAt={answer.st_mtime:.3f}"
            try:
                self._fault("deliver-before")
                reply = self._link.send_file("PUT", f"/v1/calls/{self._task}/{attempt}/answer?{query}", path)
                self._fault("deliver-after")
            except StoreAwayError as error:
                log("warning", "an answer waits for the store", attempt=attempt, error=str(error))
                backoff.pause(until=self._never)
                continue
            if reply.status not in _FINAL:
                log("warning", "the store gave an answer that isn't known", status=reply.status)
                backoff.pause(until=self._never)
                continue
            level = "info" if reply.status < 300 else "error"
            self._spool.mark_delivered(attempt)
            log(level, "an answer was delivered", attempt=attempt, status=reply.status, size=answer.st_size)
            backoff.reset()

"""Calls the worker: at most once per attempt, whatever dies when.

The order is the whole point. Connect (the worker may load models for many minutes) → note the attempt → claim it at
the store → note "sent" → send. After the note "sent" nothing is ever sent again for the attempt; what became of a
call that was cut off is unknown, and said so. Whoever finds an attempt claimed by its own pod without having a note
of it has lost the notes, and takes it for sent.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gpux.agent.config import Config
from gpux.agent.http1 import ProtocolError, Reader, head
from gpux.agent.link import Backoff, Link, StoreAwayError
from gpux.agent.spool import Spool
from gpux.log import log

_POLL_SECONDS = 25
_RESPONSE_SECONDS = 600.0
_DETAIL_LIMIT = 4096
_CONNECT_SECONDS = 2.0


class Call(NamedTuple):
    """What the store wants called."""

    attempt: int
    function: str
    address: str
    data: Any
    deadline: float | None
    state: str
    claimed_by: str | None

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> Call:
        """Read the store's answer."""
        return cls(
            attempt=document["attempt"],
            function=document["function"],
            address=document["address"],
            data=document["data"],
            deadline=document["deadline"],
            state=document["state"],
            claimed_by=document["claimedBy"],
        )


class Caller:
    """Follows the calls of one task."""

    def __init__(
        self, config: Config, spool: Spool, link: Link, *, fault: Callable[[str], None] = lambda _: None
    ) -> None:
        self._config = config
        self._spool = spool
        self._link = link
        self._fault = fault
        self._never = threading.Event()
        self._base = f"/v1/calls/{config.task}"
        self._after = 0

    def run(self) -> None:
        """Call for ever."""
        entry = self._spool.entry()
        if entry is not None:
            if entry.step == "sent" and entry.state is None:
                # The process before this one ended between the note and the worker's response.
                self._spool.mark_state("unknown", detail="the agent was restarted while it called the worker")
            self._report()
            self._after = entry.attempt - 1 if entry.step == "claiming" else entry.attempt
        while True:
            call = self._next()
            # One answer at a time: the former one must be safe in the store before its place is taken.
            self._spool.answer_gone.wait()
            self._handle(call)
            self._report()
            self._after = max(self._after, call.attempt)

    # ------------------------------------------------------------------------------------------------ the store

    def _next(self) -> Call:
        backoff = Backoff(first=0.2, longest=10.0)
        while True:
            path = f"{self._base}?wait={_POLL_SECONDS}&after={self._after}"
            try:
                reply = self._link.request("GET", path, seconds=_POLL_SECONDS + 15.0)
                if reply.status == 200:
                    return Call.of_document(reply.document)
                if reply.status == 204:
                    backoff.reset()
                    continue
                log("error", "the store refuses to tell the call", status=reply.status)
            except (StoreAwayError, KeyError, TypeError) as error:
                log("warning", "the call can't be asked for", error=str(error))
            backoff.pause(until=self._never)

    def _claim(self, call: Call) -> bool:
        backoff = Backoff(first=0.2, longest=10.0)
        while True:
            try:
                reply = self._link.request(
                    "POST", f"{self._base}/{call.attempt}/claim", {"pod": self._config.pod}
                )
            except StoreAwayError as error:
                log("warning", "the call can't be claimed", error=str(error))
                backoff.pause(until=self._never)
                continue
            if reply.status == 200:
                return True
            log("info", "the call is not ours", attempt=call.attempt, status=reply.status)
            return False

    def _report(self) -> None:
        """Tell the store what became of the call, until it has heard."""
        entry = self._spool.entry()
        if entry is None or entry.state is None or entry.reported:
            return
        backoff = Backoff(first=0.2, longest=10.0)
        body = {"state": entry.state, "status": entry.status, "detail": entry.detail, "sentAt": entry.sent_at}
        while True:
            try:
                reply = self._link.request("POST", f"{self._base}/{entry.attempt}/state", body)
                break
            except StoreAwayError as error:
                log("warning", "a state waits for the store", state=entry.state, error=str(error))
                backoff.pause(until=self._never)
        log("info", "reported", attempt=entry.attempt, state=entry.state, status=reply.status)
        self._spool.mark_reported(entry.attempt)

    def _report_sent(self, call: Call, sent_at: float) -> None:
        """Say that the call has left: a courtesy, since the outcome will say so too. One try, and a short one."""
        try:
            body = {"state": "sent", "sentAt": sent_at}
            self._link.request("POST", f"{self._base}/{call.attempt}/state", body, seconds=2.0)
        except StoreAwayError as error:
            log("warning", "the store didn't hear that the call was sent", error=str(error))

    # ------------------------------------------------------------------------------------------------ the worker

    def _handle(self, call: Call) -> None:
        entry = self._spool.entry()
        noted = entry is not None and entry.attempt == call.attempt and entry.step == "claiming"
        if not noted:
            if call.claimed_by == self._config.pod:
                self._spool.lost(call.attempt, call.address)
                return
            if call.state != "queued":
                return
        connection = self._connect(call)
        if connection is None:
            log("info", "the call's deadline is over", attempt=call.attempt)
            return
        self._fault("connected")
        if not noted:
            self._spool.begin(call.attempt, call.address)
        self._fault("noted")
        if not self._claim(call):
            connection.close()
            self._spool.drop()
            return
        self._fault("claimed")
        if _is_closed(connection):
            # It was idle while the store was asked. Nothing has been sent, so another one is as good.
            connection.close()
            connection = self._connect(call)
            if connection is None:
                self._spool.drop()
                return
        with connection:
            self._send(call, connection)

    def _connect(self, call: Call) -> socket.socket | None:
        """Wait until the worker listens. None when the call's deadline is over first."""
        backoff = Backoff(first=0.1, longest=1.0)
        while call.deadline is None or time.time() < call.deadline:
            try:
                return socket.create_connection(self._config.worker, timeout=_CONNECT_SECONDS)
            except OSError:
                backoff.pause(until=self._never)
        return None

    def _send(self, call: Call, connection: socket.socket) -> None:
        content = json.dumps(call.data).encode()
        request = head(
            f"POST /run/{call.function}/{call.address} HTTP/1.1",
            {
                "Host": f"{self._config.worker.host}:{self._config.worker.port}",
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                "Accept": "application/json",
                "Connection": "close",
            },
        )
        connection.settimeout(_RESPONSE_SECONDS)
        sent_at = time.time()
        self._spool.mark_sent(sent_at)
        self._fault("sent-noted")
        try:
            connection.sendall(request + content)
            self._fault("sent")
            self._report_sent(call, sent_at)
            reader = Reader(connection)
            response = reader.response(seconds=_RESPONSE_SECONDS)
        except (OSError, ProtocolError) as error:
            detail = (
                f"no answer from the worker after the call was sent: {str(error) or type(error).__name__}"
            )
            self._spool.mark_state("unknown", detail=detail)
            return
        self._fault("responded")
        state = _state_of(response.status)
        explanation: str | None = None
        if state != "accepted":
            try:
                body = reader.response_body(response, method="POST")
                explanation = _prefix(body.read_into, _DETAIL_LIMIT).decode(errors="replace")
            except (OSError, ProtocolError):
                explanation = "the worker's explanation broke off"
        self._spool.mark_state(state, status=response.status, detail=explanation)
        self._fault("state-noted")


def _state_of(status: int) -> str:
    if 200 <= status < 300:
        return "accepted"
    return "busy" if status in {409, 503} else "refused"


def _prefix(read_into: Callable[[memoryview], int], limit: int) -> bytes:
    view = memoryview(bytearray(limit))
    size = 0
    while size < limit and (count := read_into(view[size:])):
        size += count
    return bytes(view[:size])


def _is_closed(connection: socket.socket) -> bool:
    """Whether the peer has hung up, or talks before it is asked."""
    connection.settimeout(0)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True

"""What the agent must not forget, on disk: whether the worker was called, and its answer until the store has it.

One record for the attempt in hand, replaced as it moves on, and one file with its answer. Each change is durable
before the step that relies on it: "sent" before a byte of the call leaves, the answer before the worker hears 200.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from typing import NamedTuple

from gpux.files import Disk

#: Outcomes after which the worker may still call back.
_OPEN = {None, "accepted", "unknown"}


class Entry(NamedTuple):
    """The attempt in hand."""

    attempt: int
    address: str
    step: str
    """claiming: nothing was sent. sent: the call may have left. dropped: it never will."""
    sent_at: float | None = None
    state: str | None = None
    """What became of the call, as the store is told; None as long as that is open."""
    status: int | None = None
    detail: str | None = None
    reported: bool = False
    """Whether the store knows the state."""
    delivered: bool = False
    """Whether the store has the answer (or has refused it for good)."""


class Spool:
    """The directory. Its methods may be called from any thread."""

    def __init__(self, directory: str, *, disk: Disk | None = None) -> None:
        """Take possession, waiting for a predecessor that is just dying, and read what it left."""
        self._directory = directory
        self._disk = disk or Disk()
        self._lock_file = os.open(f"{directory}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        self._lock = threading.Lock()
        self._entry: Entry | None = None
        self.answer_came = threading.Event()
        self.answer_gone = threading.Event()
        for name in os.listdir(directory):
            if name.endswith(".tmp"):
                self._disk.unlink(f"{directory}/{name}")
        try:
            with open(self._record(), "rb") as file:
                self._entry = Entry(**json.loads(file.read()))
        except FileNotFoundError:
            pass
        self._signal()

    def entry(self) -> Entry | None:
        """The attempt in hand, None if there has been none."""
        with self._lock:
            return self._entry

    def begin(self, attempt: int, address: str) -> None:
        """Take an attempt in hand, before it is claimed. The former one is over."""
        with self._lock:
            self._save(Entry(attempt, address, "claiming"))

    def lost(self, attempt: int, address: str) -> None:
        """Take in hand an attempt that this pod claimed before its spool was lost: it may have been sent."""
        with self._lock:
            self._save(Entry(attempt, address, "sent", state="unknown", detail="the agent's spool was lost"))

    def drop(self) -> None:
        """The attempt in hand is not ours; nothing was sent and nothing will be."""
        self._change(step="dropped", reported=True)

    def mark_sent(self, now: float) -> None:
        """From here on the call may have reached the worker."""
        self._change(step="sent", sent_at=now)

    def mark_state(self, state: str, *, status: int | None = None, detail: str | None = None) -> None:
        """Record what became of the call."""
        self._change(state=state, status=status, detail=detail, reported=False)

    def mark_reported(self, attempt: int) -> None:
        """The store knows the state."""
        with self._lock:
            if self._entry is not None and self._entry.attempt == attempt:
                self._save(self._entry._replace(reported=True))

    def expects(self, address: str) -> str:
        """What a callback for the address would be: `wanted`, `duplicate` or `unknown`."""
        with self._lock:
            return self._expects(address)

    def temporary(self) -> str:
        """A name for an answer on its way in."""
        return f"{self._directory}/{os.urandom(12).hex()}.tmp"

    def take_answer(self, address: str, temporary: str) -> str:
        """Keep a durable temporary file as the answer, if it is the first one wanted; as `expects`."""
        with self._lock:
            expected = self._expects(address)
            if expected == "wanted" and self._entry is not None:
                self._disk.link(temporary, self._answer(self._entry.attempt))
                self._disk.sync_directory(self._directory)
                self._signal()
            return expected

    def undelivered(self) -> tuple[int, str] | None:
        """Attempt and file of an answer that the store doesn't have yet."""
        with self._lock:
            if self._entry is None or not self._waits():
                return None
            return self._entry.attempt, self._answer(self._entry.attempt)

    def mark_delivered(self, attempt: int) -> None:
        """The store has the answer, or will never take it."""
        with self._lock:
            if self._entry is not None and self._entry.attempt == attempt:
                self._save(self._entry._replace(delivered=True))
                self._disk.unlink(self._answer(attempt))
                self._signal()

    def settled(self) -> bool:
        """Whether the store knows everything that is here."""
        with self._lock:
            entry = self._entry
            return entry is None or (not self._waits() and (entry.reported or entry.state is None))

    def _change(self, **fields: object) -> None:
        with self._lock:
            if self._entry is None:
                raise ValueError("no attempt is in hand")
            self._save(self._entry._replace(**fields))  # type: ignore[arg-type]

    def _save(self, entry: Entry) -> None:
        path = self._record()
        self._disk.replace(path, json.dumps(entry._asdict()).encode(), temporary=f"{path}.tmp")
        self._entry = entry

    def _expects(self, address: str) -> str:
        entry = self._entry
        if entry is None or address != entry.address or entry.step != "sent":
            return "unknown"
        if entry.delivered or os.path.exists(self._answer(entry.attempt)):
            return "duplicate"
        return "wanted" if entry.state in _OPEN else "unknown"

    def _waits(self) -> bool:
        entry = self._entry
        return entry is not None and not entry.delivered and os.path.exists(self._answer(entry.attempt))

    def _signal(self) -> None:
        if self._waits():
            self.answer_gone.clear()
            self.answer_came.set()
        else:
            self.answer_came.clear()
            self.answer_gone.set()

    def _record(self) -> str:
        return f"{self._directory}/call.json"

    def _answer(self, attempt: int) -> str:
        return f"{self._directory}/answer-{attempt}.json"

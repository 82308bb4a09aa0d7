"""Job ids in GPUX's form, derived so that a crash between two writes can't change one."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime


def job_id(created: datetime, uid: str) -> str:
    """Return the id of the task created at ``created`` with ``uid``: 16 characters of ``0-9a-v``.

    The form is GPUX's: lowercase base32hex of a 48-bit big-endian Unix time in milliseconds and 32 more bits,
    which sorts by time. GPUX's 32 bits were random; ours are the head of sha256(uid), so the id is a function of
    the object alone.

    >>> from datetime import UTC
    >>> job_id(datetime(2022, 9, 9, 18, 19, 42, tzinfo=UTC), "")[:9]
    '061i6uk43'
    """
    milliseconds = int(created.timestamp() * 1000)
    raw = milliseconds.to_bytes(6, "big") + hashlib.sha256(uid.encode()).digest()[:4]
    return base64.b32hexencode(raw).decode().lower()


def job_name(job: str) -> str:
    """Return the DNS label that every child of the job starts with (a Service's name must start with a letter)."""
    return f"j-{job}"


def task_address(uid: str, attempt: int) -> str:
    """Return the address that a worker is told for an attempt of a task that is on no chain.

    Shape of an EVM address (``0x`` + 40 hex digits), unique per attempt, so that a late answer to an attempt that
    was given up can't be taken for the answer to the next one.
    """
    return "0x" + hashlib.sha256(f"{uid}/{attempt}".encode()).digest()[:20].hex()

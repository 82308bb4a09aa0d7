"""Logs on standard error: one JSON object per line for machines, or text for people.

Every line of a reconcile carries the object it is about and the id of the run, without anybody passing them on.
Credentials are masked wherever they turn up, in exceptions too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from typing import Final, Literal

from opengpu_operator.settings import LogSettings

#: What the current coroutine works on, and the id of its run.
_about: ContextVar[tuple[str, str] | None] = ContextVar("opengpu_about", default=None)
_runs = count(1)

_MASK: Final = "***"
_SECRETS: Final = (
    # Authorization headers, of any scheme.
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {_MASK}"),
    # JSON Web Tokens (service accounts) and our own job and operator tokens.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), _MASK),
    (re.compile(r"\bv1\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"), _MASK),
    # user:password@ in URLs.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s:@]+:[^/\s@]+@"), rf"\1{_MASK}@"),
)

_LEVELS: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "error",
}


def redact(text: str) -> str:
    """Return a text with credentials masked."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Have every line that is logged inside say what it is about, and which run it belongs to."""
    token = _about.set((what, f"{next(_runs):x}"))
    try:
        yield
    finally:
        _about.reset(token)


class _Formatter(logging.Formatter):
    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        fields = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "msg": redact(record.getMessage()),
        }
        context = _about.get()
        if context is not None:
            fields["object"], fields["reconcile"] = context
        if record.exc_info:
            fields["error"] = redact(self.formatException(record.exc_info))
        return fields


class JsonFormatter(_Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(self._fields(record), ensure_ascii=False)


class TextFormatter(_Formatter):
    """Lines for people; exceptions over several."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = self._fields(record)
        where = f" {fields['object']}#{fields['reconcile']}" if "object" in fields else ""
        line = f"{fields['ts']} {fields['level']:<7}{where} {fields['msg']}"
        return f"{line}\n{fields['error']}" if "error" in fields else line


def setup(settings: LogSettings) -> None:
    """Send all logs to standard error in the form that the settings ask for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    level: Literal[10, 20, 30, 40] = {"debug": 10, "info": 20, "warning": 30, "error": 40}[settings.level]  # type: ignore[assignment]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # kopf tells at info of each of its tasks, and aiohttp of each probe.
    for name in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))

"""One JSON object per line on standard error.

Not the logging package: the agent counts every megabyte, and nothing here needs handlers or hierarchies.
"""

from __future__ import annotations

import json
import os
import time

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def log(level: str, message: str, **fields: object) -> None:
    """Write one line, if GPUX_LOG_LEVEL (default info) lets it through. Never raises: a log must not stop work."""
    if _LEVELS[level] < _LEVELS.get(os.environ.get("GPUX_LOG_LEVEL", "info"), 20):
        return
    record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "message": message}
    line = json.dumps(record | fields, default=str) + "\n"
    try:
        # One write per line, unbuffered, so that lines of several processes and threads don't mix.
        os.write(2, line.encode(errors="backslashreplace"))
    except OSError:
        return

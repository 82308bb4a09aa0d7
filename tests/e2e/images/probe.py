"""A worker that does what a test asks for: functions ``run``, ``work`` and ``fail``; ``probe.py serve`` is a page.

Every call of ``work`` leaves a file behind in ``/gpux_usr``, which outlives the task, so that a test can count the
calls that a worker really got, whatever the cluster says about them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tests.e2e.images.devices import devices

PAGE_PORT = 8080
USER = Path("/gpux_usr")


class Script(BaseModel):
    """A shell script to run inside the job."""

    script: str
    timeout: int = 600


class Ended(BaseModel):
    """How a script ended."""

    exit_code: int
    stdout: str
    stderr: str
    devices: dict[str, str]
    pod: str


class Work(BaseModel):
    """Some work: wait ``seconds``, and until a file is there, and answer ``value``; ``key`` names the call's record."""

    seconds: float = 0
    until: Path | None = None
    value: Any = None
    key: str | None = None


class Done(BaseModel):
    """What ``work`` was given, and how often this process was called."""

    value: Any
    calls: int
    devices: dict[str, str]
    pod: str


def run(data: Script) -> Ended:
    """Run a script with bash."""
    ended = subprocess.run(
        ["bash", "-c", data.script], capture_output=True, text=True, timeout=data.timeout, check=False
    )
    return Ended(
        exit_code=ended.returncode,
        stdout=ended.stdout,
        stderr=ended.stderr,
        devices=devices(),
        pod=os.uname().nodename,
    )


_calls: list[float] = []


def work(data: Work) -> Done:
    """Record the call, wait, answer."""
    _calls.append(time.time())
    if data.key is not None:
        record = USER / "calls" / data.key
        record.mkdir(parents=True, exist_ok=True)
        (record / uuid.uuid4().hex).touch()
    time.sleep(data.seconds)
    while data.until is not None and not data.until.exists():
        time.sleep(0.1)
    return Done(value=data.value, calls=len(_calls), devices=devices(), pod=os.uname().nodename)


def fail(_data: Work) -> Done:
    """Raise, as a worker's own mistake would: the runtime then never calls back."""
    message = "asked to fail"
    raise RuntimeError(message)


class _Page(BaseHTTPRequestHandler):
    """Answers every GET with who answers, for whom, and with which devices."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {
                "pod": os.uname().nodename,
                "path": self.path,
                "host": self.headers.get("Host"),
                "devices": devices(),
                "name": os.environ.get("NAME"),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve the page, or the worker."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.argv[1:] == ["serve"]:
        ThreadingHTTPServer(("", PAGE_PORT), _Page).serve_forever()

    from ogpu.service import expose, start  # type: ignore[import-not-found]

    for function in (run, work, fail):
        expose()(function)
    start()


if __name__ == "__main__":
    main()

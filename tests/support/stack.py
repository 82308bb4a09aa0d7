"""The operator, the translator and the store as real processes beside a control plane.

There is no node behind that API server, so tests (and benchmarks) play the kubelet's and the agent's part: they write
pod statuses, and they talk to the store with the token that the operator put into the job's Secret.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.patience import PATIENCE
from tests.support.ports import free_port

BIN = Path(sys.executable).parent
#: Requests that change something.
WRITES = {"create", "patch", "update", "delete"}
_REQUESTS = re.compile(
    r'^opengpu_operator_kube_api_requests_total\{code="\d+",kind="(\w+)",verb="(\w+)"\} (\S+)'
)
_BUSY = re.compile(r"^opengpu_operator_queue_(?:depth|running) (\S+)")
_RECONCILES = re.compile(r'^opengpu_operator_reconcile_total\{kind="opengputasks".*\} (\S+)')


def eventually(
    condition: Callable[[], Any], *, within: float, otherwise: Callable[[], str] | str = ""
) -> Any:
    """Return the first true value of ``condition``; fail if there is none in time.

    ``within`` is what a machine of its own needs, in seconds.
    """
    within *= PATIENCE
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = otherwise() if callable(otherwise) else otherwise
            raise AssertionError(f"not within {within:.0f} s: {text}")
        time.sleep(0.02)  # between two looks


class Process:
    """A child process with a log file."""

    def __init__(self, name: str, arguments: list[str], *, directory: Path) -> None:
        self.name = name
        self._arguments = arguments
        self.log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; its output is appended to the log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._arguments, stdout=log, stderr=log, start_new_session=True)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
        try:
            self._process.wait(timeout=20 * PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def tail(self, lines: int = 40) -> str:
        """Return the end of its log."""
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )


class Stack:
    """The three processes, and what a test needs to reach them."""

    def __init__(self, directory: Path, kubeconfig: Path, **settings: Any) -> None:
        self.directory = directory
        self.probe_port, self.metrics_port, self.store_port = free_port(), free_port(), free_port()
        store_metrics = free_port()
        key = directory / "key"
        key.write_text(secrets.token_hex(32))
        socket_path = directory / "t.sock"
        self.store_url = f"http://127.0.0.1:{self.store_port}"
        self.config: dict[str, Any] = {
            "clusterId": "test",
            "namespace": "opengpu-system",
            "routes": {"domain": "gpux.localhost", "ingressClassName": "skipper"},
            "pods": {"nameservers": ["10.96.0.10"]},
            "store": {"url": self.store_url, "keyFile": str(key)},
            "agent": {"image": "localhost/opengpu-agent:dev"},
            "logs": {"format": "text", "level": "info"},
            "translatorSocket": str(socket_path),
            "probePort": self.probe_port,
            "metricsPort": self.metrics_port,
            **settings,
        }
        file = self._config_file = directory / "config.yaml"
        self.configure()
        program = str(BIN / "opengpu-operator")
        self.operator = Process(
            "operator",
            [program, "run", "--config", str(file), "--kubeconfig", str(kubeconfig)],
            directory=directory,
        )
        self.translator = Process(
            "translator",
            [program, "translator", "--config", str(file), "--socket", str(socket_path)],
            directory=directory,
        )
        self.store = Process(
            "store",
            [
                *[
                    sys.executable,
                    "-m",
                    "gpux.store",
                    "--root",
                    str(directory / "data"),
                    "--key-file",
                    str(key),
                ],
                *[
                    "--listen",
                    f"127.0.0.1:{self.store_port}",
                    "--metrics-listen",
                    f"127.0.0.1:{store_metrics}",
                ],
            ],
            directory=directory,
        )

    def configure(self, **settings: Any) -> None:
        """Write the settings file, with some settings changed; a process reads it when it starts."""
        self.config = {**self.config, **settings}
        self._config_file.write_text(yaml.safe_dump(self.config))

    def restart_operator(self, **settings: Any) -> None:
        """Kill the operator and start it again, with some settings changed."""
        self.operator.stop(signal.SIGKILL)
        self.configure(**settings)
        self.operator.start()
        eventually(self.ready, within=60, otherwise=self.logs)

    def ready(self) -> bool:
        """Return whether the operator says that it is ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.probe_port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _metrics(self, pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
        """Return what a pattern finds in the lines of the operator's metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return [match.groups() for line in lines if (match := pattern.match(line))]

    def requests(self) -> dict[tuple[str, str], float]:
        """Return how many requests the operator has sent to the API server, by verb and kind."""
        sent: dict[tuple[str, str], float] = {}
        for kind, verb, count in self._metrics(_REQUESTS):
            sent[verb, kind] = sent.get((verb, kind), 0) + float(count)
        return sent

    def settle(self) -> None:
        """Wait until the operator has had no task to look at for a second."""
        seen = [-1.0, 0.0]

        def quiet() -> bool:
            busy = any(float(value) for (value,) in self._metrics(_BUSY))
            done, now = sum(float(value) for (value,) in self._metrics(_RECONCILES)), time.monotonic()
            if busy or done != seen[0]:
                seen[:] = done, now
            return now - seen[1] > 1

        eventually(quiet, within=120, otherwise=self.logs)

    def start(self) -> None:
        """Start everything and wait for the operator to be ready."""
        for process in (self.store, self.translator, self.operator):
            process.start()
        eventually(self.ready, within=60, otherwise=self.logs)

    def stop(self) -> None:
        """Stop everything."""
        for process in (self.operator, self.translator, self.store):
            process.stop()

    def logs(self) -> str:
        """Return the ends of all logs."""
        parts = [
            f"--- {process.name}\n{process.tail()}"
            for process in (self.operator, self.translator, self.store)
        ]
        return "\n".join(parts)

    def ask_store(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
        """Send a request to the store as an agent does."""
        request = urllib.request.Request(
            self.store_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Run a stack for as long as the block lasts."""
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def decode(value: str) -> str:
    """Return the text of a Secret's value."""
    return base64.b64decode(value).decode()

"""Real processes of store, agent and worker, for tests that let them meet, and kill them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpux import tokens
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "operator"
CONSTRAINTS = ROOT / "demo" / "worker" / "constraints.txt"  # the versions of the worker image
HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("OPENGPU_TEST_CACHE", "~/.cache/opengpu-tests")).expanduser()
KEY = b"a key for tests, of thirty-two b"
TASK = "task-1"


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 60.0) -> Any:
    """Return the first true value of ``condition``; ``seconds`` is what a machine of its own needs."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} took longer than {seconds} s")


def wait_for_end(pid: int, *, seconds: float = 60.0) -> None:
    """Wait until a process that isn't our child is gone, with its sockets and locks."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([process], [], [], seconds)[0], f"process {pid} lives"
    finally:
        os.close(process)


def token(
    *, scope: str = "job", namespace: str = "tenant", task: str = TASK, seconds: int = 3600, **more: Any
) -> str:
    claims = {"scope": scope, "namespace": namespace, "task": task, "exp": int(time.time()) + seconds}
    return tokens.sign(KEY, claims | more)


OPERATOR = token(scope="operator")


class Process:
    """A process, its log and its end."""

    def __init__(self, command: list[str], *, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def kill(self, *, group: bool = False) -> None:
        """Kill it, and with `group` whatever it has started, too."""
        if group:
            os.killpg(self.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()

    def stop(self, *, seconds: float = 60.0) -> int:
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def rss_kib(pid: int, field: str = "VmRSS") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {field}")


class UnixConnection(http.client.HTTPConnection):
    """A connection to an agent."""

    def __init__(self, path: Path) -> None:
        super().__init__("dontcare", timeout=60 * PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Lab:
    """One store, one agent, one worker, on loopback."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store_port, self.metrics_port, self.external_port = free_port(), free_port(), free_port()
        self.worker_port, self.callback_port = free_port(), free_port()
        self.socket = root / "run" / "api.sock"
        self.spool = root / "spool"
        self.data = root / "data"
        self.journal = root / "journal"
        self.held = root / "held"
        self.job_storage = root / "job"
        for directory in (self.socket.parent, self.spool, self.data, self.job_storage):
            directory.mkdir()
        (root / "key").write_bytes(KEY + b"\n")
        self.token_file = root / "token"
        self.token_file.write_text(token())
        self.store: Any = None
        self.agent: Any = None
        self.worker: Any = None

    def close(self) -> None:
        for process in (self.agent, self.worker, self.store):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    # ---------------------------------------------------------------------------------------------- processes

    def start_store(self, *options: str, wrapper: tuple[str, ...] = ()) -> None:
        command = [
            *(*wrapper, sys.executable, "-m", "gpux.store", "--root", str(self.data)),
            *(
                "--listen",
                f"127.0.0.1:{self.store_port}",
                "--metrics-listen",
                f"127.0.0.1:{self.metrics_port}",
                "--external-listen",
                f"127.0.0.1:{self.external_port}",
                "--external-url",
                self.external_url,
            ),
            *("--key-file", str(self.root / "key"), *options),
        ]
        self.store = Process(command, environment={"PYTHONPATH": str(SOURCE)}, log=self.root / "store.log")
        wait_for(lambda: accepts(self.store_port), "the store's start")

    def start_agent(
        self, *, fault: str | None = None, whole: bool = False, calls: bool = True, storage: bool = False
    ) -> None:
        """`fault` names a step at which the serving process kills itself, once, and with `whole` all of the agent.

        With `storage` it reads the job's folder for people outside.
        """
        environment = {
            "PYTHONPATH": str(SOURCE),
            "GPUX_STORE_URL": f"http://127.0.0.1:{self.store_port}",
            "GPUX_TOKEN_FILE": str(self.token_file),
            "GPUX_SOCKET": str(self.socket),
            "GPUX_SPOOL": str(self.spool),
            "GPUX_TASK_UID": TASK,
            "GPUX_POD_UID": "pod-1",
            "GPUX_WORKER_URL": f"http://127.0.0.1:{self.worker_port}",
            "GPUX_CALLBACK_LISTEN": f"127.0.0.1:{self.callback_port}",
            "GPUX_CALLS": "1" if calls else "0",
            **({"GPUX_JOB_STORAGE": str(self.job_storage)} if storage else {}),
        }
        if fault is None:
            command = [sys.executable, "-S", "-m", "gpux.agent"]
        else:
            command = [sys.executable, "-S", str(HERE / "faulty_agent.py"), fault, "all" if whole else "one"]
        self.agent = Process(command, environment=environment, log=self.root / "agent.log")
        wait_for(self.agent_accepts, "the agent's start")

    def agent_accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    def kill_agent(self) -> None:
        """As the end of the container: all of its processes at once, gone before another one starts."""
        assert self.agent is not None
        children = self.agent.children()
        self.agent.kill(group=True)
        for pid in children:
            wait_for_end(pid)

    def kill_serving_process(self) -> None:
        """Kill what serves, if something does just now."""
        assert self.agent is not None
        for pid in self.agent.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_worker(self, python: Path) -> None:
        """The published worker runtime, from its own environment."""
        environment = {
            "CALLBACK_URL": f"http://127.0.0.1:{self.callback_port}",
            "WORKER_PORT": str(self.worker_port),
            "WORKER_JOURNAL": str(self.journal),
            "WORKER_HOLD": str(self.held),
            "PATH": os.environ["PATH"],
        }
        self.worker = Process(
            [str(python), str(HERE / "ogpu_worker.py")], environment=environment, log=self.root / "worker.log"
        )

    def wait_for_worker(self) -> None:
        wait_for(lambda: accepts(self.worker_port), "the worker's start")

    def hold_worker(self) -> None:
        """Keep the worker busy with whatever it is called for, until it is released."""
        self.held.touch()

    def release_worker(self) -> None:
        self.held.unlink()

    def posts(self, text: str) -> int:
        """How often the worker was called with this text."""
        if not self.journal.exists():
            return 0
        return self.journal.read_text().splitlines().count(text)

    # ---------------------------------------------------------------------------------------------- the store

    @property
    def external_url(self) -> str:
        return f"http://127.0.0.1:{self.external_port}"

    def outside(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], bytes]:
        """Ask from outside, without a token unless one is given."""
        return self.ask(method, path, port=self.external_port, **{"bearer": None, **options})

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        bearer: str | None = OPERATOR,
        headers: dict[str, str] | None = None,
        port: int | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        fixed = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", port or self.store_port, timeout=60 * PATIENCE)
        ) as connection:
            connection.request(method, path, body=content, headers=fixed | (headers or {}))
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()

    def ask_agent(
        self, method: str, path: str, *, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        with contextlib.closing(UnixConnection(self.socket)) as connection:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()

    def metrics(self) -> str:
        """What the store tells Prometheus."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=60)
        ) as connection:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    def metric(self, name: str) -> float | None:
        """The value of a metric without labels, if the store has it."""
        found = (line.split() for line in self.metrics().splitlines() if line.startswith(f"{name} "))
        return next((float(value) for _, value in found), None)

    def call(self, attempt: int, text: str, *, seconds: float = 0.0, deadline: float | None = None) -> str:
        address = f"0x{attempt:040x}"
        body = {
            "namespace": "tenant",
            "function": "reverse",
            "address": address,
            "data": {"text": text, "seconds": seconds},
            "deadline": deadline,
        }
        status, _, content = self.ask("PUT", f"/v1/calls/{TASK}/{attempt}", body=body)
        assert status in {200, 201}, content
        return address

    def record(self, attempt: int) -> dict[str, Any]:
        status, _, content = self.ask("GET", f"/v1/calls/{TASK}/{attempt}")
        assert status == 200, content
        record: dict[str, Any] = json.loads(content)
        return record

    def wait_for_state(self, attempt: int, *states: str, seconds: float = 60.0) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            record = self.record(attempt)
            return record if record["state"] in states else None

        record: dict[str, Any] = wait_for(reached, f"attempt {attempt} reaching {states}", seconds=seconds)
        return record

    def wait_for_end_of_call(self, attempt: int, text: str, *, what: str) -> dict[str, Any]:
        """Wait until an attempt is answered, or will never be: what the runtime tells once, it tells nobody again."""

        def over() -> dict[str, Any] | None:
            record = self.record(attempt)
            unheard = f"[0x{attempt:040x}] Error in" in self.said_by_worker()
            uncalled = record["state"] == "unknown" and self.posts(text) == 0
            return record if record["state"] == "answered" or unheard or uncalled else None

        record: dict[str, Any] = wait_for(over, f"the end of attempt {attempt} {what}")
        return record

    def was_heard(self, attempt: int) -> bool:
        """Whether the worker was told that its answer was taken."""
        sent = f"Callback sent to http://127.0.0.1:{self.callback_port}/0x{attempt:040x}"
        return sent in self.said_by_worker()

    def said_by_worker(self) -> str:
        """The worker's log."""
        return (self.root / "worker.log").read_text()


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def laboratory(root: Path) -> Iterator[Lab]:
    lab = Lab(root)
    try:
        yield lab
    finally:
        lab.close()


def ogpu_python() -> Path:
    """The interpreter of an environment with the published worker runtime, made once and kept."""
    key = hashlib.sha256(f"{sys.version}\n{CONSTRAINTS.read_text()}".encode()).hexdigest()[:12]
    home = CACHE / f"ogpu-{key}"
    ready = home / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        install = (str(home / "bin/pip"), "install", "--quiet", "-c", str(CONSTRAINTS))
        subprocess.run([*install, "ogpu[service]"], check=True)
        ready.touch()
    return home / "bin" / "python"

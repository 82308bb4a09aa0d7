"""Other programs: run them, and fail with what they said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / ".venv" / "bin"


class DemoError(Exception):
    """The demo can't go on; the message says why, and what helps where that is known."""


class Shell:
    """Runs programs with one environment: ours first on PATH, and the cluster's kubeconfig once it is known."""

    def __init__(self, provider: str) -> None:
        self.environment = {
            **os.environ,
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "LOCALCLUSTER_PROVIDER": provider,
        }

    def use(self, kubeconfig: Path) -> None:
        """Let kubectl and helm talk to a cluster."""
        self.environment["KUBECONFIG"] = str(kubeconfig)

    def run(self, *argv: str | Path, stdin: str | None = None) -> str:
        """Return a program's standard output; raise with its standard error if it fails."""
        try:
            done = subprocess.run(
                [str(arg) for arg in argv],
                input=stdin,
                capture_output=True,
                text=True,
                env=self.environment,
                cwd=ROOT,
                check=False,
            )
        except FileNotFoundError as error:
            message = f"{argv[0]} is not installed: run `make` first"
            raise DemoError(message) from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-2000:]
            message = f"`{' '.join(str(arg) for arg in argv)[:200]}` failed:\n{said}"
            raise DemoError(message)
        return done.stdout

    def stream(self, *argv: str | Path) -> None:
        """Run a program that may take long, and show what it says, indented."""
        process = subprocess.Popen(
            [str(arg) for arg in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            cwd=ROOT,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            print(f"      {line.rstrip()}", flush=True)
        self._require(argv, process.wait())

    def interact(self, *argv: str | Path) -> None:
        """Run a program that may ask the user something."""
        done = subprocess.run([str(arg) for arg in argv], env=self.environment, cwd=ROOT, check=False)
        self._require(argv, done.returncode)

    @staticmethod
    def _require(argv: Sequence[str | Path], code: int) -> None:
        if code != 0:
            message = f"`{' '.join(str(arg) for arg in argv)[:200]}` failed ({code}); its words are above"
            raise DemoError(message)

    def succeeds(self, *argv: str | Path) -> bool:
        """Return whether a program ends well."""
        try:
            self.run(*argv)
        except DemoError:
            return False
        return True

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """Run kubectl."""
        return self.run("kubectl", *argv, stdin=stdin)

    def get(self, *argv: str) -> dict[str, Any]:
        """Return an object, or a list, as the API server has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *argv, "-o", "json"))
        return found

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or update objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """Make a port of a pod reachable from here, and give its local number."""
        process = subprocess.Popen(
            ["kubectl", "-n", namespace, "port-forward", target, f":{port}"],
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            text=True,
            env=self.environment,
        )
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            # "Forwarding from 127.0.0.1:PORT -> 8080", or nothing if kubectl gave up.
            first = process.stdout.readline()
            if "127.0.0.1:" not in first:
                message = f"kubectl port-forward to {target} failed: {first.strip()}"
                raise DemoError(message)
            yield int(first.split("127.0.0.1:")[1].split()[0])
        finally:
            process.terminate()
            process.wait()

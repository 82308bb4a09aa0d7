"""What the tests of the local cluster share: kubectl, and waiting with a deadline."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.support.patience import PATIENCE

T = TypeVar("T")


class Cluster:
    """kubectl against the running cluster, with a deadline on everything that is waited for."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.status = found
        self._kubectl = [f"{found['binaries']}/kubectl", f"--kubeconfig={found['kubeconfig']}"]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._kubectl, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        )

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def python(self, namespace: str, pod: str, program: str) -> str:
        """Run a program inside a pod and return what it prints."""
        return self("exec", "-n", namespace, pod, "--", "python3", "-c", program).strip()


def eventually(what: str, condition: Callable[[], T | None], seconds: float = 60) -> T:
    """Return the first true value of a condition, or fail when the time is up."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)

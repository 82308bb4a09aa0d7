"""What the end-to-end tests talk to: the API server directly, kubectl and curl where a user would type them."""

from __future__ import annotations

import base64
import collections
import http.client
import json
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from tests.support.patience import PATIENCE

Object = dict[str, Any]
T = TypeVar("T")
GROUP = "opengpu.network"
TASKS = f"apis/{GROUP}/v1alpha1/opengputasks"
SOURCES = f"apis/{GROUP}/v1alpha1/opengpusources"
DOMAIN = "gpux.localhost"

#: Everything that a task may make, as API paths without the namespace.
CHILD_KINDS = {
    "deployments": "apis/apps/v1",
    "jobs": "apis/batch/v1",
    "services": "api/v1",
    "persistentvolumeclaims": "api/v1",
    "configmaps": "api/v1",
    "secrets": "api/v1",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "ingresses": "apis/networking.k8s.io/v1",
    "pods": "api/v1",
}


def until(what: str, condition: Callable[[], T | None], *, timeout: float = 30, interval: float = 0.2) -> T:
    """Return the first truthy value of ``condition``; fail with what was waited for, and the last value.

    ``timeout`` is what a machine of its own needs, here and wherever else something is waited for.
    """
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s for {what}; the last look gave {value!r}")
        time.sleep(interval)


def condition(obj: Object, kind: str) -> Object:
    """Return a condition of an object; an empty one if it isn't there."""
    conditions = obj.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == kind), {})


def is_true(obj: Object, kind: str) -> bool:
    """Return whether a condition is True."""
    return condition(obj, kind).get("status") == "True"


def reasons(obj: Object) -> set[str]:
    """Return the reasons of all conditions."""
    return {entry["reason"] for entry in obj.get("status", {}).get("conditions", [])}


def describe(obj: Object) -> str:
    """Return an object's status, for the message of a failed assertion."""
    return f"{obj['metadata']['name']}: {json.dumps(obj.get('status', {}), indent=1)}"


class Failed(AssertionError):
    """A task ended in another way than the test waits for."""


@dataclass
class Api:
    """The API server, over one connection at a time."""

    server: str
    context: ssl.SSLContext

    @classmethod
    def connect(cls, kubeconfig: Path) -> Api:
        """Read a kubeconfig with embedded certificates, as the local cluster's is."""
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
            for name in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(user[name]).decode())
            pem.flush()
            context.load_cert_chain(pem.name)
        return cls(cluster["server"], context)

    def _connection(self, timeout: float) -> http.client.HTTPSConnection:
        parts = urlsplit(self.server)
        assert parts.hostname
        return http.client.HTTPSConnection(parts.hostname, parts.port, context=self.context, timeout=timeout)

    def request(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> tuple[int, Object]:
        """Return the status and the body of one request."""
        connection = self._connection(30 * PATIENCE)
        try:
            connection.request(
                method,
                f"/{path}",
                body=None if body is None else json.dumps(body),
                headers={"Content-Type": content_type, "Accept": "application/json"},
            )
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, {"raw": content.decode(errors="replace")}

    def watch(self, path: str, *, name: str, timeout: float) -> Iterator[Object | None]:
        """Yield an object now and at each of its changes, None once it is gone, until the time is over."""
        deadline = time.monotonic() + timeout * PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            selector = {"fieldSelector": f"metadata.name={name}"}
            status, found = self.request("GET", f"{path}?{urlencode(selector)}")
            assert status == 200, f"GET {path}: {status} {found}"
            yield found["items"][0] if found["items"] else None
            query = selector | {
                "watch": "1",
                "resourceVersion": found["metadata"]["resourceVersion"],
                "timeoutSeconds": str(max(1, int(left))),
            }
            connection = self._connection(left + 1)
            try:
                connection.request("GET", f"/{path}?{urlencode(query)}")
                for line in connection.getresponse():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break  # the resource version is too old: list again
                    yield None if event["type"] == "DELETED" else event["object"]
            except TimeoutError:
                return
            finally:
                connection.close()


@dataclass
class Cluster:
    """The running cluster."""

    info: Object
    environment: dict[str, str]
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api.connect(Path(self.info["kubeconfig"]))
        self.environment = {**self.environment, "KUBECONFIG": self.info["kubeconfig"]}

    @property
    def audit_log(self) -> Path:
        """Where the API server writes down every request."""
        return Path(self.info["auditLog"])

    # ------------------------------------------------------------------------------------------- as a user would type

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 600) -> str:
        """Return what kubectl prints; fail with its error."""
        done = self.try_kubectl(*argv, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(argv)}: {done.stderr.strip()} {done.stdout.strip()}"
        return done.stdout

    def try_kubectl(
        self, *argv: str, stdin: str | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, whatever comes of it."""
        return subprocess.run(
            ["kubectl", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout,
            check=False,
        )

    def apply(self, namespace: str, *objects: Object) -> None:
        """Create or update objects with kubectl."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(items))

    def curl(self, url: str, *arguments: str, timeout: int = 10) -> tuple[int, str]:
        """Return the status (0: no answer) and the body that curl gets."""
        done = subprocess.run(
            [
                "curl",
                "--silent",
                "--show-error",
                "--max-time",
                str(timeout),
                "-w",
                "\n%{http_code}",
                "--cacert",
                self.info["ingressCA"],
                *arguments,
                url,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body

    # ------------------------------------------------------------------------------------------------------- objects

    def node_names(self) -> list[str]:
        """Return the names of the nodes, which are their host names too."""
        status, found = self.api.request("GET", "api/v1/nodes")
        assert status == 200, found
        return sorted(node["metadata"]["name"] for node in found["items"])

    def get(self, path: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        status, found = self.api.request("GET", f"{_in(path, namespace)}/{name}")
        assert status in {200, 404}, found
        return found if status == 200 else None

    def objects(self, path: str, namespace: str, selector: str = "") -> list[Object]:
        """Return the objects of a namespace."""
        status, found = self.api.request("GET", f"{_in(path, namespace)}?labelSelector={quote(selector)}")
        assert status == 200, found
        items: list[Object] = found["items"]
        return items

    def task(self, namespace: str, name: str) -> Object:
        """Return a task."""
        found = self.get(TASKS, namespace, name)
        assert found is not None, f"there is no task {namespace}/{name}"
        return found

    def wait(
        self,
        path: str,
        namespace: str,
        name: str,
        *,
        what: str,
        met: Callable[[Object], Any],
        timeout: float = 120,
        never: Callable[[Object], Any] = lambda _: False,
    ) -> Object:
        """Watch an object until ``met``; fail at once if it is ``never`` going to be."""
        last: Object | None = None
        for last in self.api.watch(_in(path, namespace), name=name, timeout=timeout):
            if last is None:
                continue
            if met(last):
                return last
            if never(last):
                raise Failed(f"no {what}: {describe(last)}")
        shown = "it doesn't exist" if last is None else describe(last)
        raise AssertionError(f"no {what} of {namespace}/{name} after {timeout * PATIENCE:.0f} s; {shown}")

    def wait_task(self, namespace: str, name: str, kind: str = "Complete", *, timeout: float = 120) -> Object:
        """Wait until a condition of a task is True; fail early if the task ends otherwise."""
        other = {"Complete": "Failed", "Failed": "Complete"}.get(kind)
        return self.wait(
            TASKS,
            namespace,
            name,
            what=kind,
            met=lambda task: is_true(task, kind),
            never=lambda task: other is not None and is_true(task, other),
            timeout=timeout,
        )

    def answer(self, namespace: str, name: str, *, timeout: float = 120) -> Any:
        """Wait for a task's answer and return it."""
        return self.wait_task(namespace, name, timeout=timeout)["status"]["responses"][0]["inline"]

    def wait_reason(
        self, path: str, namespace: str, name: str, reason: str, *, timeout: float = 30
    ) -> Object:
        """Wait until some condition of an object has a reason; return that condition, Ready first."""
        found = self.wait(
            path, namespace, name, what=reason, met=lambda obj: reason in reasons(obj), timeout=timeout
        )
        having: list[Object] = [entry for entry in found["status"]["conditions"] if entry["reason"] == reason]
        return min(having, key=lambda entry: entry["type"] != "Ready")

    def children(self, namespace: str, task: Object) -> list[str]:
        """Return what belongs to a task, as ``kind/name``."""
        selector = f"{GROUP}/task-uid={task['metadata']['uid']}"
        return [
            f"{kind}/{item['metadata']['name']}"
            for kind, group in CHILD_KINDS.items()
            for item in self.objects(f"{group}/{kind}", namespace, selector)
        ]

    def pods(self, namespace: str, task: Object, service: str | None = None) -> list[Object]:
        """Return a task's pods."""
        selector = f"{GROUP}/job={task['status']['jobId']}"
        if service:
            selector += f",app.kubernetes.io/component={service}"
        return self.objects("api/v1/pods", namespace, selector)

    def printed(self, namespace: str, pod: Object, container: str | None = None) -> Any:
        """Return what a pod's container has printed: as JSON if it is that, else as text; None if the pod is gone."""
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        query = urlencode({"container": container or labels["app.kubernetes.io/component"]})
        path = f"api/v1/namespaces/{namespace}/pods/{name}/log?{query}"
        found: Any
        status, found = self.api.request("GET", path)
        assert status in {200, 404}, found
        if status == 404:
            return None
        return found.get("raw", found) if isinstance(found, dict) else found

    def events(self, namespace: str, name: str | None = None) -> list[Object]:
        """Return the events of our kinds, oldest first."""
        found = [
            event
            for event in self.objects("apis/events.k8s.io/v1/events", namespace)
            if event["regarding"].get("apiVersion", "").startswith(GROUP)
            and name in {None, event["regarding"]["name"]}
        ]
        return sorted(found, key=lambda event: event["metadata"]["creationTimestamp"])

    def url(self, task: Object, port: int) -> str:
        """Return the URL that a job's port must have."""
        return f"https://{task['status']['jobId']}-{port}.{DOMAIN}:{self.info['ingressTLSPort']}"


def _in(path: str, namespace: str) -> str:
    group, _, plural = path.rpartition("/")
    return f"{group}/namespaces/{namespace}/{plural}"


@dataclass(frozen=True)
class Audit:
    """What the API server was asked since a moment."""

    path: Path
    offset: int

    @classmethod
    def now(cls, path: Path) -> Audit:
        """Start here."""
        return cls(path, path.stat().st_size)

    def requests(self) -> Iterator[Object]:
        """Yield the finished requests."""
        with self.path.open() as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith("\n"):
                    return  # is being written
                event = json.loads(line)
                if event["stage"] == "ResponseComplete":
                    yield event

    def creations(self, *, user: str, namespaces: Iterable[str]) -> collections.Counter[tuple[str, str, str]]:
        """Count the creations that succeeded, by resource, namespace and name."""
        wanted = set(namespaces)
        found: collections.Counter[tuple[str, str, str]] = collections.Counter()
        for event in self.requests():
            target = event.get("objectRef", {})
            if (
                event["verb"] == "create"
                and event["user"]["username"].startswith(user)
                and target.get("namespace") in wanted
                and not target.get("subresource")
                and event.get("responseStatus", {}).get("code") == 201
            ):
                found[target["resource"], target["namespace"], target.get("name", "")] += 1
        return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as lines of text, for what a test prints."""
    return "\n".join(" ".join(f"{key}={value}" for key, value in row.items()) for row in rows)

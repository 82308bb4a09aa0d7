"""The store in a bucket as pods: moved there from its volume as docs/operations.md says, read from both, one killed.

The service is versitygw, in the namespace of the tests and with a disk that goes with its pod; the store may reach that
and nothing else. In the end the release is as it was, on the volume that it had.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster import archive, binaries
from tests.e2e.fixtures import CLUSTER, OPERATOR_IMAGES, OPERATOR_NAMESPACE, RELEASE, ROOT, program
from tests.e2e.kit import TASKS, Cluster, Object, is_true, until
from tests.e2e.objects import compose, run, shell, source, task, worker
from tests.e2e.test_operator_kill import process_of
from tests.e2e.test_reboot import FETCHING, STORE, python
from tests.e2e.test_store_away import called, spooled
from tests.unit.build.test_docs import blocks

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

IMAGE = "localhost/opengpu-e2e-s3:dev"
PAGE = ROOT / "docs" / "operations.md"
STORES = "app.kubernetes.io/component=store"
PORT = 7070
UPLOADERS, UPLOADS = 4, 12
SIZE = 3_000_000
LIGHT = {"resources": {"cpu": "20m"}, "maxAttempts": 10, "expirySeconds": 900}
#: As docs/files.md has it, of bytes that nobody has stored before.
UPLOAD = """
cd /gpux_job; head -c {size} /dev/urandom > out.zip
curl --unix-socket /gpux_api --data-binary @out.zip "http://dontcare/api/file/upload/" | jq -r .sha1
"""
#: A line per file that the store has acknowledged, in `FILES` of the test of reboots.
UPLOADING = """
with open("/gpux_job/acknowledged", "a") as notes:
    for number in range(%(uploads)d):
        told = json.loads(persistently("POST", "/api/file/upload/", content(%(job)r, number)))
        print(number, told["sha1"], file=notes, flush=True)
        time.sleep(1)
"""
#: What a store answers to the operator, asked in its own pod: nothing stands between that could ask another.
ASK = """
import hashlib, sys, time, urllib.request
from gpux.tokens import load_key, sign
from pathlib import Path

key = load_key(Path("/etc/opengpu/store-key/key"))
token = sign(key, {"scope": "operator", "exp": int(time.time()) + 60})

def read(namespace, sha1):
    url = f"http://127.0.0.1:8080/v1/files/{sha1}?namespace={namespace}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return hashlib.sha1(answer.read()).hexdigest()

def metric(name):
    with urllib.request.urlopen("http://127.0.0.1:9090/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"gpux_store_{name} "))
"""
READ = ASK + "print(read(*sys.argv[1:]))"
#: The first read of a content notes its name, the second has it fetched, and then it is sent from the disk.
READ_OFTEN = (
    ASK
    + """
hits, deadline = metric("cache_hits_total"), time.monotonic() + 60
found = [read(*sys.argv[1:3]) for _ in range(2)]
def kept():
    return int(sys.argv[3]) in (path.stat().st_size for path in Path("/cache").iterdir() if not path.suffix)
while not kept() and time.monotonic() < deadline:
    time.sleep(0.1)
found.append(read(*sys.argv[1:3]))
print(*found, kept(), metric("cache_hits_total") > hits)
"""
)
#: What a job has in its folder, as a store is told by the job's agent, which asks all stores what they want.
LIST = (
    ASK
    + """
import json
namespace, task = sys.argv[1:]
claims = {"scope": "files", "namespace": namespace, "task": task, "exp": int(time.time()) + 60}
url = f"http://127.0.0.1:8081/api/job/storage/list/{task}"
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {sign(key, claims)}"})
with urllib.request.urlopen(request, timeout=30) as answer:
    print(*(entry["name"] for entry in json.load(answer)["entries"]))
"""
)
WRITE = """
import os
for place in ("/here", "/etc/here", "/cache/here", "/tmp/here"):
    try:
        open(place, "w").close()
        os.unlink(place)
        print(place)
    except OSError:
        pass
"""


def stores(operator: Cluster) -> list[Object]:
    """Return the pods of the store that aren't going."""
    pods = operator.objects("api/v1/pods", OPERATOR_NAMESPACE, STORES)
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def within(operator: Cluster, pod: Object, script: str, *arguments: str) -> str:
    """Return what a script prints in a pod of the store."""
    command = ("exec", pod["metadata"]["name"], "-c", "store", "--", "python3", "-c", script, *arguments)
    return operator.kubectl("-n", OPERATOR_NAMESPACE, *command).strip()


def in_job(operator: Cluster, namespace: str, name: str, script: str) -> str:
    """Return what a script prints in a job's container, once there is one."""

    def running() -> str | None:
        found = operator.get(TASKS, namespace, name)
        pods = operator.pods(namespace, found) if found and found.get("status", {}).get("jobId") else []
        ready = [pod for pod in pods if is_true(pod, "Ready")]
        return ready[0]["metadata"]["name"] if ready else None

    pod = until(f"a pod of {name}", running, timeout=120)
    return operator.kubectl("-n", namespace, "exec", pod, "-c", "main", "--", "bash", "-c", script)


def service(operator: Cluster, namespace: str, image: Path) -> str:
    """Run the S3 server with an empty bucket; where it is."""
    archive.write(
        image,
        IMAGE,
        {"bin/versitygw": binaries.ensure(["versitygw"]) / "versitygw"},
        ["/bin/versitygw", "--port", f":{PORT}", "--keep-alive", "--quiet", "posix", "/buckets"],
    )
    program("localcluster", "load", "--name", CLUSTER, str(image))
    meta, labels = {"name": "s3"}, {"app": "s3"}
    account = {"ROOT_ACCESS_KEY": "access-key-id", "ROOT_SECRET_KEY": "secret-access-key"}
    container: Object = {
        "name": "s3",
        "image": IMAGE,
        "env": [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": "account", "key": key}}}
            for name, key in account.items()
        ],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        # A bucket is a directory.
        "volumeMounts": [{"name": "bucket", "mountPath": "/buckets/opengpu"}],
    }
    pod: Object = {"containers": [container], "volumes": [{"name": "bucket", "emptyDir": {}}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    operator.apply(
        namespace,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": PORT}]},
        },
    )
    operator.kubectl("-n", namespace, "rollout", "status", "deployment/s3", "--timeout=120s")
    return f"http://s3.{namespace}.svc.cluster.local:{PORT}"


class Page:
    """What the page says on the bucket and the way there, with the values of this cluster."""

    def __init__(
        self, endpoint: str, account: tuple[str, str], egress: list[Object], directory: Path
    ) -> None:
        section = PAGE.read_text().partition("## Keep the store in a bucket")[2].partition("\n## ")[0]
        (manifest,) = re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        manifest = manifest.replace("REGISTRY/opengpu-operator:0.1.0", OPERATOR_IMAGES[0])
        self._directory, self._endpoint = directory, endpoint
        (directory / "move.yaml").write_text(self._here(manifest))
        (self.secret, self.upgrade), self.move = (lines for _, lines in blocks(section))
        for place, value in zip(("access-key-id=…", "secret-access-key=…"), account, strict=True):
            assert place in self.secret
            self.secret = self.secret.replace(place, place.replace("…", value))
        narrowed = shlex.quote(f"networkPolicy.storeEgress={json.dumps(egress)}")
        self.upgrade += f" --wait --timeout 5m --set-json {narrowed}"

    def _here(self, text: str) -> str:
        assert "https://s3.example.org" in text
        return text.replace("https://s3.example.org", self._endpoint)

    def run(self, command: str) -> str:
        """Run a command as it is typed."""
        command = command.replace("https://s3.example.org", self._endpoint).replace("24h", "5m")
        words = shlex.split(command)
        words = [str(self._directory / word) if word == "move.yaml" else word for word in words]
        return program(*words)


@pytest.fixture(scope="module")
def moved(
    operator: Cluster,
    namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
    measured: Callable[[str], None],
) -> Iterator[str]:
    """The store over a bucket, moved there in the midst of a call; the hash of a file that was stored before."""
    directory, start = tmp_path_factory.mktemp("s3"), time.monotonic()
    account = ("e2e", secrets.token_hex(16))
    operator.apply(
        namespace,
        *source("probe", cpu=compose(worker=worker())),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "account"},
            "stringData": dict(zip(("access-key-id", "secret-access-key"), account, strict=True)),
        },
        *source("shows", cpu=compose(main=shell("touch /gpux_job/shown; exec sleep 900", restart="no"))),
        task("shows", "shows", storage={"jobSize": "1Gi", "external": "Links"}, resources=LIGHT["resources"]),
        run("patient", "probe", "until test -e /gpux_job/go; do sleep 0.1; done; echo patient", **LIGHT),
    )
    endpoint = service(operator, namespace, directory / "s3.tar")
    egress: list[Object] = [
        {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
        {
            "ports": [{"port": PORT}],
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}],
        },
    ]
    page = Page(endpoint, account, egress, directory)
    # More than one part in the bucket.
    sha1 = in_job(operator, namespace, "shows", UPLOAD.format(size=20 << 20)).strip()
    assert re.fullmatch("[0-9a-f]{40}", sha1), sha1
    patient = operator.wait(TASKS, namespace, "patient", what="call", met=called)
    (waiting,) = (pod["metadata"]["name"] for pod in operator.pods(namespace, patient, "worker"))
    history = ("helm", "history", RELEASE, "-n", OPERATOR_NAMESPACE, "-o", "json", "--max", "1")
    (former,) = json.loads(program(*history))
    until_moved = time.monotonic()
    try:
        page.run(page.secret)
        for command in page.move:
            said = page.run(command)
            if command.startswith("kubectl logs"):
                assert re.search(r"\d+ calls are there", said), said
                measured(f"moved to the bucket: {said.splitlines()[-2]}")
            if " wait pod " in command:
                # While there is no store at all.
                operator.kubectl(
                    "-n", namespace, "exec", waiting, "-c", "worker", "--", "touch", "/gpux_job/go"
                )
                until("the answer at the agent", lambda: spooled(operator, namespace, waiting))
        page.run(page.upgrade)
        operator.apply(namespace, run("called", "probe", UPLOAD.format(size=SIZE), **LIGHT))
        now = time.monotonic()
        measured(
            f"S3 ready after {until_moved - start:.0f} s, store moved and up in {now - until_moved:.0f} s more"
        )
        yield sha1
    finally:
        back = ("helm", "rollback", RELEASE, str(former["revision"]), "-n", OPERATOR_NAMESPACE)
        program(*back, "--wait", "--timeout", "5m")
        operator.kubectl("-n", OPERATOR_NAMESPACE, "delete", "secret", "opengpu-s3", "--ignore-not-found")
    (pod,) = until("the former store alone", lambda: found if len(found := stores(operator)) == 1 else None)
    assert within(operator, pod, READ, namespace, sha1) == sha1, "the volume isn't as it was"


def test_there_are_two_that_can_write_only_where_they_should(operator: Cluster, moved: str) -> None:
    pods = stores(operator)
    assert len(pods) == 2
    assert all(is_true(pod, "Ready") for pod in pods)
    for pod in pods:
        assert within(operator, pod, WRITE).split() == ["/cache/here", "/tmp/here"]


def test_what_was_stored_on_the_volume_is_had_from_each(
    operator: Cluster, namespace: str, moved: str
) -> None:
    assert [within(operator, pod, READ, namespace, moved) for pod in stores(operator)] == [moved] * 2


def test_an_answer_that_was_given_during_the_move_arrives(
    operator: Cluster, namespace: str, moved: str
) -> None:
    status = operator.wait_task(namespace, "patient", timeout=60)["status"]
    (response,) = status["responses"]
    assert (response["inline"]["stdout"], status["attempts"]) == ("patient\n", 1)


def test_what_was_acknowledged_outlives_the_loss_of_each_store(
    operator: Cluster, namespace: str, moved: str, measured: Callable[[str], None]
) -> None:
    """One process is killed, and when it is back, the other pod is removed as when a node is drained."""
    names = [f"uploads-{number}" for number in range(UPLOADERS)]
    for name in names:
        script = python(UPLOADING % {"job": name, "uploads": UPLOADS}) + "; exec sleep 900"
        file = compose(main=shell(script, restart="no"))
        operator.apply(namespace, *source(name, cpu=file), task(name, name, resources=LIGHT["resources"]))

    def acknowledged() -> list[tuple[str, int, str]]:
        notes = [
            (name, line.split())
            for name in names
            for line in in_job(operator, namespace, name, "cat /gpux_job/acknowledged || true").splitlines()
        ]
        return [(name, int(number), sha1) for name, (number, sha1) in notes]

    def both() -> bool:
        pods = stores(operator)
        return len(pods) == 2 and all(is_true(pod, "Ready") for pod in pods)

    until("uploads to be under way", lambda: {name for name, _, _ in acknowledged()} == {*names}, timeout=90)
    start = time.monotonic()
    killed, other = stores(operator)
    pid = until("its process", lambda: process_of(killed, STORE))
    os.kill(pid, signal.SIGKILL)
    until("another process", lambda: process_of(killed, STORE) not in {None, pid}, timeout=60)
    until("both to be ready", both, timeout=60)
    so_far = len(acknowledged())
    operator.kubectl("-n", OPERATOR_NAMESPACE, "delete", "pod", other["metadata"]["name"], "--wait=false")
    until("both to be ready again", both, timeout=90)
    until("all to be uploaded", lambda: len(acknowledged()) == UPLOADERS * UPLOADS, timeout=180)

    wanted = acknowledged()
    assert {place[:2] for place in wanted} == {(name, number) for name in names for number in range(UPLOADS)}
    measured(
        f"two stores, one killed, the other removed when {so_far} of {len(wanted)} files were acknowledged: "
        f"the rest was {time.monotonic() - start:.0f} s after the first loss"
    )
    script = f"echo '{json.dumps(wanted)}' | {python(FETCHING)} && echo none"
    assert in_job(operator, namespace, "shows", script) == "none\n"


def test_a_jobs_folder_is_had_through_stores_that_came_after_the_job(
    operator: Cluster, namespace: str, moved: str
) -> None:
    uid = operator.task(namespace, "shows")["metadata"]["uid"]
    for pod in stores(operator):
        command = (
            "exec",
            pod["metadata"]["name"],
            "-c",
            "store",
            "--",
            "python3",
            "-c",
            LIST,
            namespace,
            uid,
        )

        def listed(command: tuple[str, ...] = command) -> bool:
            return "shown" in operator.try_kubectl("-n", OPERATOR_NAMESPACE, *command).stdout.split()

        until(f"the folder from {pod['metadata']['name']}", listed, timeout=60)


def test_a_call_is_answered_with_a_file_that_is_had_from_each_and_soon_from_the_cache(
    operator: Cluster, namespace: str, moved: str
) -> None:
    sha1 = operator.answer(namespace, "called")["stdout"].strip()
    first, second = stores(operator)
    assert within(operator, first, READ, namespace, sha1) == sha1
    found = within(operator, second, READ_OFTEN, namespace, sha1, str(SIZE)).split()
    assert found == [sha1, sha1, sha1, "True", "True"]

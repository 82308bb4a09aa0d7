"""What lasts and what doesn't: owners' storage outlives tasks, tasks' volumes leave nothing on the nodes' disks.

The shared class is a directory of the machine that both nodes see at the same place; why, docs/local-cluster.md says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.paths import Layout
from opengpu_operator.desired.names import owner_value, user_volume
from tests.e2e.fixtures import CLUSTER, OPERATOR_NAMESPACE, RELEASE, program
from tests.e2e.kit import TASKS, Cluster, Object, until
from tests.e2e.objects import HOSTNAME, PROBE, amd, compose, on, run, shell, source, task, worker

pytestmark = pytest.mark.e2e

OPERATOR = "deployment/opengpu-operator"
RETAINED = {"volumes": {"data": {"scope": "Task", "storageClass": "local-path-retain"}}}
#: A person who looks has been promised no more. Ten of them are Compose's own, which a shell that hears no SIGTERM is
#: given to stop; the others are Kubernetes' and the provisioner's, which removes each volume with a pod of its own.
GONE_SECONDS = 30
POLICY = "persistentVolumeReclaimPolicy"


@pytest.fixture(scope="module")
def probe(operator: Cluster, namespace: str) -> str:
    operator.apply(namespace, *source("probe", cpu=compose(worker=worker())))
    return "probe"


def claims(operator: Cluster, namespace: str) -> list[Object]:
    return operator.objects("api/v1/persistentvolumeclaims", namespace)


def owners_claim(operator: Cluster, namespace: str, owner: str) -> Object:
    (found,) = (
        claim
        for claim in claims(operator, namespace)
        if claim["metadata"].get("annotations", {}).get("opengpu.network/owner-name") == owner
    )
    return found


def directories(namespace: str) -> list[Path]:
    """Return what the volumes of a namespace have on the nodes' disks."""
    return sorted((Layout(CLUSTER).root / "nodes").glob(f"*/volumes/*_{namespace}_*"))


class TestTasks:
    """Volumes of a class that retains volumes and of the default one, which doesn't, and what GPUX gives a job."""

    @pytest.fixture
    def kept(self, operator: Cluster, namespace: str) -> list[Path]:
        """The directories of a running task's volumes, with a file in each."""
        places = {"data": "/data", "plain": "/plain", "gpux": "/gpux_job"}
        script = "".join(f"echo secret > {place}/file; " for place in places.values())
        mounts = [f"{name}:{places[name]}" for name in ("data", "plain")]
        text = json.dumps(
            {
                "services": {"main": shell(f"{script} exec sleep 600", volumes=mounts)},
                "volumes": {"data": {}, "plain": {}},
            }
        )
        operator.apply(namespace, *source("keeps", spec=RETAINED, cpu=text), task("keeps", "keeps"))

        def filled() -> list[Path] | None:
            found = [path for path in directories(namespace) if (path / "file").exists()]
            return found if len(found) == len(places) else None

        found = until("the task to write its files", filled, timeout=120)
        volumes = [path.name.partition("_")[0] for path in found]

        def to_go() -> bool:
            return all(self.volume(operator, name).get(POLICY) == "Delete" for name in volumes)

        until("the volumes to be told to go with their claims", to_go)
        classes = sorted(self.volume(operator, name)["storageClassName"] for name in volumes)
        assert classes == ["local-path", "local-path", "local-path-retain"]
        return found

    @staticmethod
    def volume(operator: Cluster, name: str) -> Object:
        status, found = operator.api.request("GET", f"api/v1/persistentvolumes/{name}")
        spec: Object = found["spec"] if status == 200 else {}
        return spec

    @pytest.fixture
    def leaves_nothing(
        self, operator: Cluster, namespace: str, kept: list[Path], measured: Callable[[str], None]
    ) -> Callable[[str], None]:
        """Delete the task; its bytes must be gone in time. It is waited for longer, to say how long it took."""

        def delete(who: str) -> None:
            start = time.monotonic()
            operator.kubectl("-n", namespace, "delete", "ogt", "keeps", "--wait=false")
            took = {}

            def gone() -> bool:
                for path in kept:
                    if path.name not in took and not path.exists():
                        took[path.name] = time.monotonic() - start
                return len(took) == len(kept)

            until("its bytes to be gone", gone, timeout=GONE_SECONDS)
            each = ", ".join(f"{seconds:.1f}" for seconds in sorted(took.values()))
            measured(f"a deleted task's volumes were gone after {each} s {who}")
            assert max(took.values()) <= GONE_SECONDS

        return delete

    def test_nothing_is_left_of_a_task_that_is_deleted(self, leaves_nothing: Callable[[str], None]) -> None:
        leaves_nothing("with an operator")

    def test_nothing_is_left_of_a_task_that_is_deleted_while_no_operator_runs(
        self, operator: Cluster, leaves_nothing: Callable[[str], None]
    ) -> None:
        scale = ("-n", OPERATOR_NAMESPACE, "scale", OPERATOR)
        operator.kubectl(*scale, "--replicas=0")
        selector = "app.kubernetes.io/component=operator"
        wait = ("-n", OPERATOR_NAMESPACE, "wait", "--for=delete", "pod", "-l", selector, "--timeout=60s")
        operator.kubectl(*wait)
        try:
            leaves_nothing("without one")
        finally:
            operator.kubectl(*scale, "--replicas=1")
            status = ("rollout", "status", OPERATOR, "--timeout=90s")
            operator.kubectl("-n", OPERATOR_NAMESPACE, *status)


class TestOwners:
    def test_storage_outlives_the_tasks_of_its_owner(
        self, operator: Cluster, namespace: str, probe: str
    ) -> None:
        operator.apply(namespace, run("writes", probe, "echo hers > /gpux_usr/note", owner="alice"))
        operator.answer(namespace, "writes")
        job = operator.task(namespace, "writes")["status"]["jobId"]
        operator.kubectl("-n", namespace, "delete", "ogt", "writes", "--timeout=60s")
        until(
            "the task's own claims to go",
            lambda: not [claim for claim in claims(operator, namespace) if job in claim["metadata"]["name"]],
            timeout=60,
        )
        operator.apply(namespace, run("reads", probe, "cat /gpux_usr/note", owner="alice"))
        assert operator.answer(namespace, "reads")["stdout"] == "hers\n"

    def test_a_removal_that_no_policy_asks_for_is_called_off(self, operator: Cluster, namespace: str) -> None:
        name = owners_claim(operator, namespace, "alice")["metadata"]["name"]
        note = "opengpu.network/expires-at"
        operator.kubectl("-n", namespace, "annotate", "pvc", name, f"{note}=2020-01-01T00:00:00Z")
        until(
            "the annotation to go",
            lambda: note not in owners_claim(operator, namespace, "alice")["metadata"]["annotations"],
        )

    def test_storage_is_listed(self, operator: Cluster, namespace: str) -> None:
        shown = program("opengpu", "storage", "ls", "-n", namespace)
        print(f"\n{shown}")
        heading, line = shown.splitlines()
        assert heading.split()[:3] == ["NAMESPACE", "OWNER", "MODE"]
        assert line.split()[:5] == [namespace, "alice", "NodeLocal", "cpu", "1Gi"]
        assert line.split()[5].startswith("node-")
        everywhere = json.loads(program("opengpu", "storage", "ls", "-A", "--all", "-o", "json"))
        assert {row["namespace"] for row in everywhere} >= {namespace}


@pytest.mark.slow
def test_a_task_whose_owners_storage_is_where_it_can_never_run_ends(
    operator: Cluster, namespace: str
) -> None:
    """The storage comes to be on the node without AMD's GPUs by somebody's pod, as it could by a file without any."""
    name = user_volume(namespace, "erin", "amd")
    labels = {
        "app.kubernetes.io/managed-by": "opengpu-operator",
        "opengpu.network/owner": owner_value("erin"),
    }
    annotations = {"opengpu.network/owner-name": "erin"}
    container = {
        "name": "fill",
        "image": PROBE,
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "usr", "mountPath": "/usr-of-erin"}],
    }
    volume = {"name": "usr", "persistentVolumeClaim": {"claimName": name}}
    nodes = operator.api.request("GET", "api/v1/nodes")[1]["items"]
    (without,) = (node for node in nodes if "amd.com/gpu" not in node["status"]["allocatable"])
    where = {HOSTNAME: without["metadata"]["labels"][HOSTNAME]}
    operator.apply(
        namespace,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "first"},
            "spec": {"containers": [container], "volumes": [volume], "nodeSelector": where},
        },
        *source("on-amd", amd=compose(worker=worker(**amd()))),
    )
    operator.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/first", "--timeout=90s")
    operator.apply(namespace, run("never", "on-amd", "true", owner="erin"))
    # Nodes that have just come up aren't judged for five minutes.
    ended = operator.wait_task(namespace, "never", "Failed", timeout=420)
    assert ended["status"]["endReason"] == "StorageNodeConflict"
    assert f"{without['metadata']['name']}, which has 0 amd.com/gpu of 1" in str(
        ended["status"]["conditions"]
    )
    operator.kubectl("-n", namespace, "delete", "pod", "first", "--grace-period=1")


@pytest.fixture(scope="class")
def shared(operator: Cluster) -> Iterator[None]:
    """Owners' storage on the class that all nodes see."""
    helm = ("helm", "upgrade", RELEASE, "charts/opengpu-operator", "-n", OPERATOR_NAMESPACE)
    options = ("--reuse-values", "--wait", "--timeout", "3m")
    user = "settings.storage.user"
    with_values = ("settings.storage.userMode=Shared", f"{user}.storageClass=shared")
    without = ("settings.storage.userMode=NodeLocal", f"{user}.storageClass=null")
    program(*helm, *options, "--set", ",".join(with_values))
    yield
    program(*helm, *options, "--set", ",".join(without))


@pytest.mark.usefixtures("shared")
class TestShared:
    def test_pods_of_an_owner_on_two_nodes_see_each_others_writes_at_once(
        self, operator: Cluster, namespace: str
    ) -> None:
        """Each waits for what the other writes, and neither may go to the other's node."""
        ping = "echo ping > /gpux_usr/{0}; until test -s /gpux_usr/{1}; do sleep 0.1; done; cat /gpux_usr/{1}"
        alone = "ls -A /gpux_usr"
        for node, (mine, other) in zip(operator.node_names(), (("a", "b"), ("b", "a")), strict=True):
            operator.apply(
                namespace,
                *source(f"on-{mine}", cpu=compose(worker=worker(**on(node)))),
                run(f"on-{mine}", f"on-{mine}", ping.format(mine, other), owner="dora"),
            )
        operator.apply(namespace, run("elses", "on-a", alone, owner="bob"))
        ran = {name: operator.answer(namespace, name)["stdout"] for name in ("on-a", "on-b", "elses")}
        assert ran == {"on-a": "ping\n", "on-b": "ping\n", "elses": ""}
        claim = owners_claim(operator, namespace, "dora")
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert operator.get(TASKS, namespace, "on-a") is not None

    def test_what_one_wrote_outlives_it_and_is_read_on_the_other_node(
        self, operator: Cluster, namespace: str
    ) -> None:
        """Goes on where the test above ends: the task `on-a` wrote a file on the first node."""
        _, other = operator.node_names()
        tasks = [operator.task(namespace, name) for name in ("on-a", "on-b")]
        operator.kubectl("-n", namespace, "delete", "ogt", "on-a", "on-b", "--timeout=60s")
        until(
            "all that the two had to go",
            lambda: not [child for task in tasks for child in operator.children(namespace, task)],
            timeout=60,
        )
        reads = shell("cat /gpux_usr/a; exec sleep 600", **on(other))
        operator.apply(
            namespace, *source("reads", cpu=compose(main=reads)), task("reads-later", "reads", owner="dora")
        )
        later = operator.wait_task(namespace, "reads-later", "Available")
        (pod,) = operator.pods(namespace, later)
        assert pod["spec"]["nodeName"] == other
        until("what was written", lambda: operator.printed(namespace, pod) == "ping\n")
        operator.kubectl("-n", namespace, "delete", "ogt", "reads-later", "--wait=false")

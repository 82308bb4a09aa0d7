"""The cluster, the images and the operator, once per session; a namespace per test file.

What is there already is used: a running cluster, images that didn't change, an installed release. What a session had
to start itself it takes down again, unless ``E2E_KEEP`` is set.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from localcluster.cluster import running
from localcluster.commands import run
from localcluster.node import ctr
from localcluster.paths import Layout
from tests.e2e.kit import Cluster, Object, until
from tests.e2e.objects import HOSTNAME
from tests.support.corpus import CORPUS

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv" / "bin"
EQUIVALENTS = ROOT / "tests" / "e2e" / "data"

#: Name of the cluster, for a run beside others.
CLUSTER = os.environ.get("E2E_CLUSTER", "local")
RELEASE = "opengpu"
OPERATOR_NAMESPACE = "opengpu-system"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:"
OPERATOR_IMAGES = ("localhost/opengpu-operator:dev", "localhost/opengpu-agent:dev")
RUNTIME_IMAGE = "localhost/opengpu-worker-runtime:dev"
FILES_NAMESPACE = "e2e-files"
FILES_HOST = f"files.{FILES_NAMESPACE}.svc.cluster.local"
#: Public repositories and what stands in for them (tests/e2e/images/README.md).
STAND_INS = {
    "docker.io/opengpunetwork/openchat-text2text": "openchat-text2text",
    "docker.io/opengpunetwork/openchat-text2image": "openchat-text2image",
    "docker.io/opengpunetwork/hfr-client": "hfr-client",
    "docker.io/ollama/ollama": "ollama",
}
CORPUS_FILES = ("01", "02", "03", "48", "61")


def environment() -> dict[str, str]:
    """Return the environment of the programs that tests start: ours first."""
    return {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}


def program(*argv: str, stdin: str | None = None, timeout: float = 900) -> str:
    """Run a program of the project; fail with what it said."""
    done = subprocess.run(
        list(argv),
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    return done.stdout


def timed(measured: Callable[[str], None], text: str, action: Callable[[], object]) -> None:
    """Do something that takes long, and keep how long it took."""
    start = time.monotonic()
    action()
    measured(f"{text}: {time.monotonic() - start:.1f} s")


@pytest.fixture(scope="session")
def cluster(measured: Callable[[str], None]) -> Iterator[Cluster]:
    """The local cluster with its two nodes; one that was there stays, however it was."""
    existed = Layout(CLUSTER).state.exists()
    # What there is already is mended.
    timed(measured, "cluster up", lambda: program("localcluster", "up", "--name", CLUSTER, timeout=2700))
    yield Cluster(json.loads(program("localcluster", "status", "--json", "--name", CLUSTER)), environment())
    if not existed and not os.environ.get("E2E_KEEP"):
        timed(measured, "cluster taken down", lambda: program("localcluster", "down", "--name", CLUSTER))


def corpus_files() -> dict[str, Path]:
    """Return OpenGPU's own Compose files by number; where the corpus is absent, files of the same shape."""
    folder = CORPUS if CORPUS.is_dir() else EQUIVALENTS
    return {path.name[:2]: path for path in sorted(folder.glob("*.yaml")) if path.name[:2] in CORPUS_FILES}


def full_name(image: str) -> str:
    """Return an image's name as containerd looks it up: with the registry, and with a digest instead of a tag."""
    first = image.partition("/")[0]
    if "." not in first and ":" not in first and first != "localhost":
        image = f"docker.io/{image}"
    name, at, digest = image.partition("@")
    if not at:
        return image
    repository, _, tag = name.rpartition(":")
    return f"{repository if repository and '/' not in tag else name}@{digest}"


def stand_in_names() -> dict[str, set[str]]:
    """Return the names under which each stand-in must be known, from the files that name them."""
    wanted: dict[str, set[str]] = {target: set() for target in STAND_INS.values()}
    for path in corpus_files().values():
        for service in yaml.safe_load(path.read_text())["services"].values():
            name = full_name(service["image"])
            repository = name.partition("@")[0]
            repository = repository if "@" in name else repository.rpartition(":")[0]
            wanted[STAND_INS[repository]].add(name)
    return wanted


def _name_on_nodes(source: str, names: set[str]) -> None:
    """Give a loaded image more names; a digest can't be in an archive, so containerd is told itself."""
    layout = Layout(CLUSTER)
    topology = running(layout)
    for node in topology.nodes:
        for name in sorted(names):
            run([*ctr(layout, node), "images", "tag", "--force", source, name])


@pytest.fixture(scope="session")
def images(cluster: Cluster, measured: Callable[[str], None]) -> None:
    """Every image that the tests use, on every node. Layers that didn't change cost nothing."""

    def build() -> None:
        program("localcluster", "build", "-t", RUNTIME_IMAGE, "--target", "runtime", "demo/worker")
        for target in ("probe", *STAND_INS.values()):
            tag = f"localhost/opengpu-e2e-{target}:dev"
            context = ("--build-arg", f"RUNTIME_IMAGE={RUNTIME_IMAGE}", "tests/e2e/images")
            program("localcluster", "build", "-t", tag, "--target", target, *context)

    def load() -> None:
        built = [f"localhost/opengpu-e2e-{target}:dev" for target in ("probe", *STAND_INS.values())]
        program("localcluster", "load", "--name", CLUSTER, *OPERATOR_IMAGES, *built)
        for target, names in stand_in_names().items():
            _name_on_nodes(f"localhost/opengpu-e2e-{target}:dev", names)

    timed(measured, "operator's images built", lambda: program("make", "images"))
    timed(measured, "test images built", build)
    timed(measured, "images loaded", load)


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: None, measured: Callable[[str], None]) -> Cluster:
    """The cluster with the operator in it, of the images as they are now."""
    values = {
        "image": {"repository": "localhost/opengpu-operator", "tag": "dev"},
        "agent": {"image": {"repository": "localhost/opengpu-agent", "tag": "dev"}},
        "store": {"external": {"enabled": True}},
        "settings": {
            "routes": {
                "domain": "gpux.localhost",
                "scheme": "https",
                "externalPort": cluster.info["ingressTLSPort"],
                "profile": "skipper",
            },
            "sources": {"allowedHosts": [FILES_HOST, "files.demo-files.svc.cluster.local"]},
            "storage": {
                "job": {"size": "1Gi"},
                "user": {"size": "1Gi"},
                "volumes": {"size": "1Gi"},
                "external": {"allowed": "Public"},
            },
            "tasks": {"defaultExpirySeconds": 900},
            "pods": {"placementLabels": [HOSTNAME]},
        },
    }
    os.environ["KUBECONFIG"] = cluster.info["kubeconfig"]
    helm = ("helm", "upgrade", "--install", RELEASE, "charts/opengpu-operator", "-n", OPERATOR_NAMESPACE)
    options = ("--create-namespace", "--values", "-", "--wait", "--timeout", "10m")

    def install() -> None:
        restarted = _outdated(cluster)
        program(*helm, *options, stdin=json.dumps(values))
        for workload in restarted:
            cluster.kubectl("-n", OPERATOR_NAMESPACE, "rollout", "restart", workload)
        for workload in restarted:
            cluster.kubectl("-n", OPERATOR_NAMESPACE, "rollout", "status", workload, "--timeout=300s")

    timed(measured, "operator installed", install)
    return cluster


def _outdated(cluster: Cluster) -> list[str]:
    """Return the release's workloads whose pods run another image than the one that was built last."""
    built = program(
        "buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", OPERATOR_IMAGES[0]
    ).strip()
    pods = cluster.objects("api/v1/pods", OPERATOR_NAMESPACE)
    running = {status["imageID"] for pod in pods for status in pod["status"].get("containerStatuses", [])}
    if all(built in image for image in running):
        return []
    return cluster.kubectl("-n", OPERATOR_NAMESPACE, "get", "deployments,statefulsets", "-o", "name").split()


@pytest.fixture(scope="session")
def files(operator: Cluster) -> str:
    """A web server in the cluster with OpenGPU's Compose files; returns where they are."""
    contents = {path.name: path.read_text() for path in corpus_files().values()}
    labels = {"app": "files"}
    meta = {"name": "files"}
    container: Object = {
        "name": "files",
        "image": "localhost/opengpu-e2e-probe:dev",
        "command": ["python3", "-m", "http.server", "8000", "--directory", "/files"],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
    }
    pod: Object = {"containers": [container], "volumes": [{"name": "files", "configMap": meta}]}
    template = {"metadata": {"labels": labels, "annotations": {"files": json.dumps(contents)}}, "spec": pod}
    selector = {"selector": {"matchLabels": labels}, "template": template}
    ports = [{"port": 80, "targetPort": 8000}]
    namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FILES_NAMESPACE}}
    operator.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    operator.apply(
        FILES_NAMESPACE,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": contents},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": selector},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": ports},
        },
    )
    operator.kubectl("-n", FILES_NAMESPACE, "rollout", "status", "deployment/files", "--timeout=300s")
    return f"http://{FILES_HOST}"


@pytest.fixture(scope="module")
def namespace(operator: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for the tests of one file."""
    name = f"{request.module.__name__.rpartition('.')[2].replace('_', '-')}-{secrets.token_hex(3)}"
    labels = {"e2e": "true"}
    created: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    status, answer = operator.api.request("POST", "api/v1/namespaces", created)
    assert status == 201, answer
    until(
        "the namespace's default account",
        lambda: operator.get("api/v1/serviceaccounts", name, "default"),
    )
    yield name
    if not os.environ.get("E2E_KEEP"):
        operator.kubectl("delete", "namespace", name, "--wait=false")


def diagnosis(cluster: Cluster, namespace: str) -> str:
    """Return what helps to see why a test failed: objects, events, logs."""
    commands = [
        ("-n", namespace, "get", "ogs,ogt,pods,pvc", "-o", "wide"),
        ("-n", namespace, "get", "events", "--sort-by=.lastTimestamp"),
        ("-n", OPERATOR_NAMESPACE, "get", "pods", "-o", "wide"),
        (
            "-n",
            OPERATOR_NAMESPACE,
            "logs",
            "-l",
            "app.kubernetes.io/component=operator",
            "-c",
            "operator",
            "--tail=60",
        ),
    ]
    pods = cluster.objects("api/v1/pods", namespace)
    commands += [
        ("-n", namespace, "logs", pod["metadata"]["name"], "--all-containers", "--prefix", "--tail=15")
        for pod in pods[-6:]
    ]
    parts = []
    for command in commands:
        done = cluster.try_kubectl(*command)
        parts.append(f"$ kubectl {' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-500:]}")
    return "\n\n".join(parts)

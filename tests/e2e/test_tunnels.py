"""GPUX's documented container as a job: its files, its tunnel, and the profile under which it may not run.

cloudflared is stood in for (tests/e2e/images/README.md), all else is as it is documented.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.fixtures import CLUSTER, OPERATOR_NAMESPACE, OPERATOR_USER, RELEASE, ROOT, program
from tests.e2e.kit import TASKS, Audit, Cluster, Object, condition, describe, until
from tests.e2e.objects import compose, source, task

pytestmark = pytest.mark.e2e

DOCUMENTED = ROOT / "tests" / "e2e" / "images" / "documented"
FORMS = ROOT / "tests" / "data" / "tunnels"
IMAGE = "localhost/opengpu-e2e-documented:dev"
CONTROL = """\
Package: cloudflared
Version: 2022.6.0
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: says what cloudflared would, without a tunnel
"""
#: Where the package is fetched from while the image is built. The same each time where that is possible: buildah makes
#: a layer anew when an argument differs.
PORT = 20297


@pytest.fixture(scope="module")
def documented(operator: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The documented container's image, on every node."""
    folder = tmp_path_factory.mktemp("cloudflared")
    with serving(package(folder)) as url:
        program(
            "localcluster", "build", "-t", IMAGE, "--build-arg", f"CLOUDFLARED_DEB={url}", str(DOCUMENTED)
        )
    program("localcluster", "load", "--name", CLUSTER, IMAGE)
    return IMAGE


def package(folder: Path) -> Path:
    """Return a Debian package of the stand-in, named by what is in it."""
    stand_in = DOCUMENTED / "cloudflared.py"
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(CONTROL)
    local = root / "usr" / "local"
    (local / "bin").mkdir(parents=True)
    shutil.copy(stand_in, local / "bin" / "cloudflared")
    shutil.copytree(FORMS, local / "share" / "tunnels")
    content = hashlib.sha256(b"".join(path.read_bytes() for path in (stand_in, *sorted(FORMS.iterdir()))))
    file = folder / f"{content.hexdigest()[:16]}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, file], check=True, capture_output=True)
    return file


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """Serve a file's folder to this machine; give the file's URL."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=file.parent)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{file.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def job(name: str, *, after: float, file: str = "documented", **says: str) -> Object:
    """Return a task that runs the documented container, whose tunnel is up so many seconds after its start.

    ``says`` has what the stand-in's variables call FORM and STREAM.
    """
    variables = {"after": str(after), **says}
    return task(
        name,
        file,
        env=[{"name": f"STAND_IN_{key.upper()}", "value": value} for key, value in variables.items()],
    )


def files() -> list[Object]:
    """Return the source of the documented container, and of one that is started again when it ends."""
    service = {"image": IMAGE, "ports": ["8000:8000"]}
    return [
        *source("documented", cpu=compose(demo=service)),
        *source("restarting", cpu=compose(demo=service | {"restart": "always"})),
    ]


def running(operator: Cluster, namespace: str, name: str) -> Object:
    """Wait for a task's pod to run; return the pod."""

    def look() -> Object | None:
        found = operator.task(namespace, name)
        pods = operator.pods(namespace, found) if found.get("status", {}).get("jobId") else []
        return next((pod for pod in pods if pod["status"]["phase"] == "Running"), None)

    return until(f"the pod of {name}", look, timeout=90)


def said(operator: Cluster, namespace: str, pod: Object) -> str | None:
    """Return the URL that a pod's container has printed since its start."""
    log = operator.printed(namespace, pod)
    found = re.search(r"https://\S+\.trycloudflare\.com", log if isinstance(log, str) else "")
    return found[0] if found else None


def printed(operator: Cluster, namespace: str, pod: Object) -> str:
    """Wait until a pod's container has printed a URL; return it."""
    what = f"the URL of {pod['metadata']['name']}"
    return until(what, lambda: said(operator, namespace, pod), timeout=180)


def tunnel(operator: Cluster, namespace: str, name: str) -> str:
    """Wait for a task's tunnel; return its URL."""
    found = operator.wait(
        TASKS, namespace, name, what="cftunnel", met=lambda obj: "cftunnel" in obj["status"], timeout=30
    )
    return str(found["status"]["cftunnel"])


def scale(operator: Cluster, replicas: int) -> None:
    deployment = f"deployment/{RELEASE}-operator"
    operator.kubectl("-n", OPERATOR_NAMESPACE, "scale", deployment, f"--replicas={replicas}")
    if replicas:
        operator.kubectl("-n", OPERATOR_NAMESPACE, "rollout", "status", deployment, "--timeout=120s")
    else:
        selector = "app.kubernetes.io/component=operator"
        until("the operator's end", lambda: not operator.objects("api/v1/pods", OPERATOR_NAMESPACE, selector))


def profile(name: str) -> None:
    """Have the operator that starts next keep one of Kubernetes' Pod Security Standards."""
    chart = ("charts/opengpu-operator", "-n", OPERATOR_NAMESPACE, "--reuse-values")
    program("helm", "upgrade", RELEASE, *chart, "--set", f"settings.pods.profile={name}")


def test_the_documented_container(operator: Cluster, namespace: str, documented: str) -> None:
    # One as on the page, the other as it is today, through the other stream.
    today = {"form": "2026-json", "stream": "stdout"}
    operator.apply(
        namespace, *files(), job("demo", after=1), job("again", after=1, file="restarting", **today)
    )
    pod = running(operator, namespace, "demo")
    url = tunnel(operator, namespace, "demo")
    assert url == said(operator, namespace, pod)
    found = operator.task(namespace, "demo")
    assert found["status"]["tunnel"]["service"] == "demo"
    assert found["status"]["tunnel"]["pod"] == pod["metadata"]["name"]
    (port,) = found["status"]["urls"]
    assert port["url"] == operator.url(found, 8000)
    until("the list of files", lambda: "imafile" in operator.curl(port["url"])[1], timeout=20)
    assert url in operator.kubectl("-n", namespace, "get", "ogt", "demo", "-o", "wide")
    assert url not in operator.kubectl("-n", namespace, "get", "ogt", "demo")

    # The tunnel of a container that restarts is another one.
    before = tunnel(operator, namespace, "again")
    again = running(operator, namespace, "again")
    assert before == said(operator, namespace, again)
    end = "for process in /proc/[0-9]*; do grep -qa [h]ttp.server $process/cmdline && kill ${process#/proc/}; done"
    operator.try_kubectl(
        "-n", namespace, "exec", again["metadata"]["name"], "-c", "demo", "--", "bash", "-c", end
    )
    operator.wait(
        TASKS, namespace, "again", what="loss", met=lambda obj: "cftunnel" not in obj["status"], timeout=30
    )
    after = tunnel(operator, namespace, "again")
    assert after != before
    assert after == said(operator, namespace, again)
    assert operator.task(namespace, "again")["status"]["tunnel"]["restarts"] == 1


@pytest.mark.parametrize("seconds", [40, pytest.param(120, marks=pytest.mark.slow)])
def test_an_operator_that_was_away_reads_what_it_missed(
    operator: Cluster, namespace: str, documented: str, seconds: int
) -> None:
    """The first half minute counts, whenever it is read. A profile is tried with the same start of the operator."""
    soon, just, late, root = (f"{name}-{seconds}" for name in ("soon", "just", "late", "root"))
    ages = {soon: 1, just: 29, late: seconds}
    operator.apply(namespace, *files(), *(job(name, after=age) for name, age in ages.items()))
    pods = {name: running(operator, namespace, name) for name in ages}
    try:
        scale(operator, 0)
        urls = {name: printed(operator, namespace, pod) for name, pod in pods.items()}
        profile("restricted")
        audit = Audit.now(operator.audit_log)
        scale(operator, 1)
        for name in (soon, just):
            assert tunnel(operator, namespace, name) == urls[name]
        pod = pods[late]["metadata"]["name"]
        until("a look at the late one's log", lambda: pod in logs_read(audit), timeout=30)
        # Whatever that look has found is in the status that comes next.
        ports: Object = {"spec": {"ports": [8000, 9000]}}
        operator.kubectl("-n", namespace, "patch", "ogt", late, "--type=merge", "-p", json.dumps(ports))
        seen = operator.wait(
            TASKS, namespace, late, what="port", met=lambda obj: len(obj["status"]["urls"]) == 2, timeout=30
        )
        assert "cftunnel" not in seen["status"], describe(seen)

        operator.apply(namespace, job(root, after=1))
        refused = condition(operator.wait_task(namespace, root, "Failed", timeout=60), "Failed")
        assert refused["reason"] == "RootRefused"
        assert refused["message"].startswith("demo/demo would run as root")
        assert "runAsNonRoot" in refused["message"]
    finally:
        profile("baseline")
        scale(operator, 1)


def logs_read(audit: Audit) -> list[str]:
    """Return the pods whose logs the operator has read."""
    return [
        event["objectRef"]["name"]
        for event in audit.requests()
        if event["user"]["username"].startswith(OPERATOR_USER)
        and event.get("objectRef", {}).get("subresource") == "log"
    ]

"""Ports and names: what reaches a job from outside, from another job, and from inside it."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.kit import TASKS, Cluster, Object, until
from tests.e2e.objects import PROBE, compose, page, run, shell, source, task, worker

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def served(operator: Cluster, namespace: str) -> Object:
    """A task that is busy, with a worker that publishes 5555 and 8080 and a sidecar that publishes 9000."""
    both = worker(
        ports=["${PORT}:5555", "8080:8080"],
        entrypoint=[
            "bash",
            "-c",
            "python3 -m tests.e2e.images.probe serve & exec python3 -m tests.e2e.images.probe",
        ],
    )
    side = page(
        ports=["9000:9000"],
        entrypoint=["python3", "-m", "http.server", "9000", "--directory", "/opt/tests"],
        command=[],
    )
    operator.apply(
        namespace,
        *source("served", cpu=compose(worker=both, side=side, quiet=page(ports=[]))),
        task("served", "served", "work", {"seconds": 600}),
    )
    operator.wait_task(namespace, "served", "Routed")
    return operator.wait_task(namespace, "served", "Available")


def asks(*urls: str) -> str:
    """Return a script that prints the code of each URL; 000 where there is no answer."""
    ask = "curl -sk -o /dev/null -m 3 -w '%{http_code}\\n'"
    return "\n".join([*(f"{ask} {shlex.quote(url)}" for url in urls), "true"])


def sees(look: Callable[[], list[str]], codes: list[str]) -> None:
    """Look until these are the codes: on a busy machine, what can be reached may not answer within curl's time."""
    until(f"the codes {' '.join(codes)}", lambda: look() == codes)


def answered(operator: Cluster, url: str) -> tuple[int, str]:
    """Return what curl gets, once the ingress controller knows the route."""
    return until(
        f"{url} to be routed",
        lambda: got if (got := operator.curl(url))[0] not in {0, 404, 502, 503} else None,
    )


def test_each_published_port_has_a_url(operator: Cluster, namespace: str, served: Object) -> None:
    urls = {entry["port"]: entry for entry in served["status"]["urls"]}
    assert set(urls) == {8080, 9000}, "5555 is never routed, and `quiet` publishes nothing"
    for port, service in ((8080, "worker"), (9000, "side")):
        assert urls[port]["service"] == service
        assert urls[port]["url"].rstrip("/") == operator.url(served, port)
    status, body = answered(operator, f"{operator.url(served, 8080)}/some/path?q=1")
    shown = json.loads(body)
    assert (status, shown["path"]) == (200, "/some/path?q=1")
    assert shown["host"].startswith(served["status"]["jobId"])
    status, body = answered(operator, f"{operator.url(served, 9000)}/")
    assert status == 200
    assert "e2e/" in body


def test_5555_is_in_no_service_and_no_route(operator: Cluster, namespace: str, served: Object) -> None:
    answered(operator, f"{operator.url(served, 8080)}/")
    status, _ = operator.curl(f"{operator.url(served, 5555)}/openapi.json")
    assert status == 404, "the ingress must not know it"
    for service in operator.objects("api/v1/services", namespace):
        for port in service["spec"].get("ports", []):
            assert 5555 not in {port["port"], port.get("targetPort")}, service["metadata"]["name"]
    for ingress in operator.objects("apis/networking.k8s.io/v1/ingresses", namespace):
        assert "5555" not in json.dumps(ingress["spec"])


def test_a_sibling_reaches_every_port_of_the_worker_but_5555(
    operator: Cluster, namespace: str, served: Object
) -> None:
    (pod,) = operator.pods(namespace, served, "worker")
    (side,) = operator.pods(namespace, served, "side")
    ask = "curl -s -o /dev/null -m 3 -w '%{http_code}\\n'"
    hosts = ("worker", pod["status"]["podIP"])
    script = "; ".join(f"{ask} http://{host}:{port}/openapi.json" for host in hosts for port in (8080, 5555))
    command = ("-n", namespace, "exec", side["metadata"]["name"], "-c", "side", "--", "bash", "-c")
    # That 5555 listens is seen from inside the worker's own pod.
    sees(lambda: operator.kubectl(*command, f"{script}; true").split(), ["200", "000"] * 2)
    own = ("-n", namespace, "exec", pod["metadata"]["name"], "-c", "worker", "--", "bash", "-c")
    sees(lambda: operator.kubectl(*own, f"{ask} http://127.0.0.1:5555/openapi.json; true").split(), ["200"])


def test_another_job_reaches_nothing_of_it(operator: Cluster, namespace: str, served: Object) -> None:
    """Live probes from another job's pod, of what others do reach: the job's own pods, and a pod that is no job's."""
    (pod,) = operator.pods(namespace, served, "worker")
    (side,) = operator.pods(namespace, served, "side")
    named = f"http://worker.j-{served['status']['jobId']}:8080/"
    of_worker, of_side = f"http://{pod['status']['podIP']}", f"http://{side['status']['podIP']}"
    of_cluster = ["https://kubernetes.default.svc/version", f"https://{pod['status']['hostIP']}:10250/"]

    def inside(name: str, *targets: str) -> list[str]:
        command = ("-n", namespace, "exec", name, "--", "bash", "-c", asks(*targets))
        return operator.kubectl(*command).split()

    worker_pod, side_pod = pod["metadata"]["name"], side["metadata"]["name"]
    own = ("http://127.0.0.1:5555/openapi.json", f"{of_side}:9000/")
    sees(lambda: inside(worker_pod, *own), ["200", "200"])
    # Only the agent, on loopback, may call the worker.
    siblings = (f"{of_worker}:8080/", named, f"{of_worker}:5555/openapi.json")
    sees(lambda: inside(side_pod, *siblings), ["200", "200", "000"])
    nobodys = {"name": "shell", "image": PROBE, "command": ["sleep", "infinity"]}
    operator.apply(
        namespace,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "nobodys"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [nobodys]},
        },
    )
    operator.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/nobodys", "--timeout=300s")
    until("what anybody reaches", lambda: "000" not in inside("nobodys", *of_cluster))

    targets = [
        f"{of_worker}:5555/openapi.json",
        f"{of_worker}:8080/",
        f"{of_worker}:20000/",
        f"{of_side}:9000/",
        named,
        *of_cluster,
    ]
    operator.apply(
        namespace,
        *source("stranger", cpu=compose(worker=worker())),
        run("stranger", "stranger", asks(*targets)),
    )
    codes = operator.answer(namespace, "stranger")["stdout"].split()
    assert dict(zip(targets, codes, strict=True)) == dict.fromkeys(targets, "000")


def test_a_namesake_in_the_namespace_does_not_shadow_a_sibling(operator: Cluster, namespace: str) -> None:
    """A Service named like a sibling leads to a decoy that anybody may reach; the job must find its own."""
    labels = {"app": "decoy"}
    container = {
        "name": "decoy",
        "image": PROBE,
        "args": ["serve"],
        "env": [{"name": "NAME", "value": "decoy"}],
    }
    operator.apply(
        namespace,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "decoy", "labels": labels},
            "spec": {"containers": [container]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "backend"},
            "spec": {"selector": labels, "ports": [{"port": 8080}]},
        },
        *source(
            "siblings", cpu=compose(worker=worker(), backend=page(environment=["NAME=sibling"], ports=[]))
        ),
        run(
            "siblings",
            "siblings",
            "curl -sS --retry 60 --retry-delay 1 --retry-all-errors -m 90 http://backend:8080/",
        ),
    )
    answer = operator.answer(namespace, "siblings")
    assert answer["exit_code"] == 0, answer
    assert json.loads(answer["stdout"])["name"] == "sibling"


def test_services_that_the_file_separates_do_not_reach_each_other(operator: Cluster, namespace: str) -> None:
    """The worker and the database are in no network together; the service between them reaches both."""
    between = shell("exec sleep 600", restart="always", networks=["front", "back"])
    file = {
        "services": {
            "worker": worker(networks=["front"]),
            "front": page(ports=[], networks=["front"], restart="always"),
            "between": between,
            "db": page(ports=[], networks=["back"], restart="always"),
        },
        "networks": {"front": {}, "back": {}},
    }
    # First what it reaches, so that what it doesn't reach is not merely not there yet.
    ask = "curl -s -o /dev/null -w '%{http_code}\\n'"
    script = (
        f"{ask} --retry 60 --retry-delay 1 --retry-all-errors -m 90 http://front:8080/; touch /gpux_job/met; "
    )
    script += f"until test -e /gpux_job/go; do sleep 0.2; done; {ask} -m 3 http://db:8080/"
    operator.apply(namespace, *source("apart", cpu=json.dumps(file)), run("apart", "apart", script))
    found = operator.wait(
        TASKS,
        namespace,
        "apart",
        what="a call",
        met=lambda obj: obj.get("status", {}).get("attemptPod"),
        timeout=120,
    )

    def inside(service: str, *command: str) -> subprocess.CompletedProcess[str]:
        (pod,) = operator.pods(namespace, found, service)
        name = pod["metadata"]["name"]
        return operator.try_kubectl("-n", namespace, "exec", name, "-c", service, "--", *command)

    until(
        "the front is met",
        lambda: inside("worker", "test", "-e", "/gpux_job/met").returncode == 0,
        timeout=120,
    )

    def reached(service: str) -> bool:
        url = f"http://{service}:8080/"
        return inside("between", "curl", "-s", "-f", "-o", "/dev/null", "-m", "3", url).returncode == 0

    until("both are reached from between", lambda: reached("front") and reached("db"), timeout=60)
    assert inside("worker", "touch", "/gpux_job/go").returncode == 0
    assert operator.answer(namespace, "apart")["stdout"].split() == ["200", "000"]


def test_a_task_may_choose_its_ports(operator: Cluster, namespace: str) -> None:
    ports = ["8080:8080", "9000:9000"]
    operator.apply(
        namespace,
        *source("two-ports", cpu=compose(main=page(ports=ports))),
        task("one-of-two", "two-ports", ports=[8080]),
    )
    found = operator.wait_task(namespace, "one-of-two", "Routed")
    assert [entry["port"] for entry in found["status"]["urls"]] == [8080]
    answered(operator, f"{operator.url(found, 8080)}/")
    operator.kubectl(
        "-n", namespace, "patch", "ogt", "one-of-two", "--type=merge", "-p", '{"spec":{"ports":[8080,9000]}}'
    )
    # Nothing listens there; that the controller tries says that the Service has the port.
    until("the other port's route", lambda: operator.curl(f"{operator.url(found, 9000)}/")[0] in {502, 503})
    operator.kubectl("-n", namespace, "delete", "ogt", "one-of-two", "--timeout=300s")


def test_the_url_is_gone_with_the_task(operator: Cluster, namespace: str, served: Object) -> None:
    url = f"{operator.url(served, 8080)}/"
    answered(operator, url)
    operator.kubectl("-n", namespace, "delete", "ogt", "served", "--timeout=300s")
    until("the route to go", lambda: operator.curl(url)[0] == 404 or None)

"""The whole operator against a real API server without nodes.

The tests play the kubelet (pod statuses) and the agent (the store's API); everything else is real: the processes, the
translation by kompose, the controllers of kube-controller-manager, the garbage collector's labels and the status.
"""

from __future__ import annotations

import functools
import http.client
import itertools
import json
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.stack import Stack, decode, eventually, running

pytestmark = pytest.mark.controlplane

NODE = "paper"
HEARTBEAT = 3  # seconds; the controllers' patience is 16
OGS = "/apis/opengpu.network/v1alpha1/namespaces/{}/opengpusources"
OGT = "/apis/opengpu.network/v1alpha1/namespaces/{}/opengputasks"

COMPOSE = """
services:
  worker:
    image: example.com/worker:1
    ports: ["${PORT}:5555", "8080:8080"]
    environment: ["CALLBACK_URL=${CALLBACK_URL}"]
"""
GPU = """
    deploy:
      resources:
        reservations:
          devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]
"""
JOB = """
services:
  main:
    image: example.com/batch:1
    restart: "no"
"""


@pytest.fixture(scope="module")
def node(api, kubeconfig, tmp_path_factory):
    """A node on paper. It has a heartbeat, since the pods of a node that is gone or silent are taken away."""
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    assert api.request("POST", "/api/v1/nodes", body)[0] in {201, 409}
    heart = type(api)(kubeconfig, tmp_path_factory.mktemp("node"))
    stop = threading.Event()

    def beat() -> None:
        while True:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            condition = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "reason": "OnPaper"}
            patch = {"status": {"conditions": [condition]}}
            try:
                heart.request(
                    "PATCH", f"/api/v1/nodes/{NODE}/status", patch, content="application/merge-patch+json"
                )
            except (
                OSError,
                http.client.HTTPException,
            ):  # a beat is lost, and the next one needs a connection
                heart.close()
            if stop.wait(HEARTBEAT):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    yield NODE
    stop.set()
    thread.join()
    heart.close()
    api.request("DELETE", f"/api/v1/nodes/{NODE}")


@pytest.fixture(scope="module")
def stack(api, node, kubeconfig, tmp_path_factory):
    with running(Stack(tmp_path_factory.mktemp("stack"), kubeconfig)) as started:
        yield started


class Cluster:
    """Requests in one namespace."""

    def __init__(self, api: Any, stack: Stack, namespace: str) -> None:
        self.api, self.stack, self.namespace = api, stack, namespace

    def create(self, path: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        body = {
            "apiVersion": "opengpu.network/v1alpha1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        status, answer = self.api.request("POST", path.format(self.namespace), body)
        assert status == 201, answer
        return dict(answer)

    def source(self, name: str = "ocr", *, files: dict[str, str] | None = None, **spec: Any) -> None:
        """Make a source whose files are in a ConfigMap."""
        files = files or {"cpu": COMPOSE}
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{name}-files"},
            "data": {f"{environment}.yaml": text for environment, text in files.items()},
        }
        status, answer = self.api.request(
            "POST", f"/api/v1/namespaces/{self.namespace}/configmaps", config_map
        )
        assert status == 201, answer
        image_envs = {
            environment: {"configMapKeyRef": {"name": f"{name}-files", "key": f"{environment}.yaml"}}
            for environment in files
        }
        self.create(OGS, "OpenGPUSource", name, {"imageEnvs": image_envs, **spec})

    def task(self, name: str = "ask", **spec: Any) -> dict[str, Any]:
        return self.create(OGT, "OpenGPUTask", name, {"sourceRef": {"name": "ocr"}, **spec})

    def call(self, name: str = "ask", **spec: Any) -> dict[str, Any]:
        return self.task(name, functionName="read", data={"text": name}, **spec)

    def get(self, path: str, name: str) -> dict[str, Any] | None:
        status, answer = self.api.request("GET", f"{path.format(self.namespace)}/{name}")
        return answer if status == 200 else None

    def condition(self, path: str, name: str, type_: str) -> dict[str, Any]:
        found = (self.get(path, name) or {}).get("status", {}).get("conditions", [])
        return next((entry for entry in found if entry["type"] == type_), {})

    def until(
        self, path: str, name: str, type_: str, *, reason: str | None = None, status: str | None = None
    ) -> Any:
        """Wait for a condition; return the object."""

        def holds() -> Any:
            found = self.condition(path, name, type_)
            good = bool(found) and reason in {None, found["reason"]} and status in {None, found["status"]}
            return self.get(path, name) if good else None

        def why() -> str:
            seen = json.dumps((self.get(path, name) or {}).get("status"), indent=1)
            return f"{name} is not {type_}={status} {reason}: {seen}\n{self.stack.logs()}"

        return eventually(holds, within=30, otherwise=why)

    def children(self, uid: str) -> dict[str, list[dict[str, Any]]]:
        """Return a task's children by plural."""
        plurals = {
            "deployments": "/apis/apps/v1",
            "jobs": "/apis/batch/v1",
            "services": "/api/v1",
            "secrets": "/api/v1",
            "persistentvolumeclaims": "/api/v1",
            "networkpolicies": "/apis/networking.k8s.io/v1",
            "ingresses": "/apis/networking.k8s.io/v1",
            "pods": "/api/v1",
        }
        found = {}
        for plural, root in plurals.items():
            path = f"{root}/namespaces/{self.namespace}/{plural}"
            _, answer = self.api.request("GET", path, labelSelector=f"opengpu.network/task-uid={uid}")
            found[plural] = answer["items"]
        return found

    def pod(self, uid: str) -> dict[str, Any]:
        """Return the pod that the Deployment controller made for a task."""
        return dict(eventually(lambda: next(iter(self.children(uid)["pods"]), None), within=20))

    def run_pod(self, pod: dict[str, Any], *, ready: bool = True, **status: Any) -> None:
        """Play the scheduler and the kubelet: the pod has a node and is up."""
        base = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
        if not pod["spec"].get("nodeName"):
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": pod["metadata"]["name"]},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            }
            code, answer = self.api.request("POST", f"{base}/binding", binding)
            assert code == 201, answer
        phase = {
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True" if ready else "False"},
            ],
            **status,
        }
        code, answer = self.api.request(
            "PATCH", f"{base}/status", {"status": phase}, content="application/merge-patch+json"
        )
        assert code == 200, answer

    def after_kubelet(self, uid: str) -> dict[str, list[dict[str, Any]]]:
        """Play the kubelet that ends a task's pods which are being deleted; return the children that are left."""
        for pod in self.children(uid)["pods"]:
            if pod["metadata"].get("deletionTimestamp"):
                path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
                self.api.request("DELETE", path, {"gracePeriodSeconds": 0})
        return self.children(uid)

    def agent(self, task: dict[str, Any], pod_uid: str) -> Agent:
        """Return an agent that has the token of a task's job."""
        (secret,) = (
            item for item in self.children(task["metadata"]["uid"])["secrets"] if "token" in item["data"]
        )
        return Agent(self.stack, task["metadata"]["uid"], decode(secret["data"]["token"]), pod_uid)


class Agent:
    """Plays the gpux agent of one pod."""

    def __init__(self, stack: Stack, task: str, token: str, pod: str) -> None:
        self.stack, self.task, self.token, self.pod = stack, task, token, pod

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self.stack.ask_store(method, f"/v1/calls/{self.task}{path}", self.token, body)

    def take(self) -> dict[str, Any]:
        """Wait for the call, claim it and say that it was sent."""

        def given() -> Any:
            status, call = self.ask("GET", "?wait=20")
            return call if status == 200 else None

        call = eventually(given, within=60, otherwise=self.stack.logs)
        assert self.ask("POST", f"/{call['attempt']}/claim", {"pod": self.pod})[0] == 200
        assert self.say(call, "sent")[0] == 200
        return dict(call)

    def say(self, call: dict[str, Any], state: str, **more: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/{call['attempt']}/state", {"state": state, "pod": self.pod, **more})

    def answer(self, call: dict[str, Any], answer: Any) -> None:
        assert self.ask("PUT", f"/{call['attempt']}/answer", answer)[0] in {200, 201}


@pytest.fixture
def cluster(api, stack, namespace):
    return Cluster(api, stack, namespace)


def test_a_source_is_translated_and_its_translation_kept(cluster):
    cluster.source(files={"cpu": COMPOSE, "nvidia": COMPOSE + GPU})
    source = cluster.until(OGS, "ocr", "Ready", status="True", reason="Translated")
    assert source["status"]["offered"] == "cpu,nvidia"
    nvidia = next(entry for entry in source["status"]["environments"] if entry["name"] == "nvidia")
    assert nvidia["gpus"] == 2
    assert nvidia["worker"] == "worker"
    path = f"/apis/apps/v1/namespaces/{cluster.namespace}/controllerrevisions/{nvidia['revision']}"
    assert cluster.api.request("GET", path)[1]["data"]["worker"] == "worker"


def test_a_call_from_creation_to_answer(cluster):
    cluster.source()
    task = cluster.call(ports=[8080])
    uid = task["metadata"]["uid"]
    pod = cluster.pod(uid)
    children = cluster.children(uid)
    counts = {plural: len(items) for plural, items in children.items() if items}
    assert counts["deployments"] == 1
    assert counts["networkpolicies"] == 1
    assert counts["ingresses"] == 1
    cluster.until(OGT, "ask", "Ready", status="False", reason="Starting")
    cluster.run_pod(pod)
    cluster.until(OGT, "ask", "Available", status="True")
    agent = cluster.agent(task, pod["metadata"]["uid"])
    call = agent.take()
    assert (call["function"], call["data"], call["attempt"]) == ("read", {"text": "ask"}, 1)
    running_task = cluster.until(OGT, "ask", "Ready", reason="Called")
    assert running_task["status"]["taskStatus"] == "Attempted"
    assert running_task["status"]["urls"] == [
        {
            "service": "worker",
            "port": 8080,
            "url": f"http://{running_task['status']['jobId']}-8080.gpux.localhost",
        }
    ]
    agent.say(call, "accepted", status=202)
    agent.answer(call, {"text": ["hello", None]})
    done = cluster.until(OGT, "ask", "Complete", status="True", reason="Answered")["status"]
    assert done["taskStatus"] == "Finalized"
    assert done["responses"][0]["inline"] == {"text": ["hello", None]}
    assert done["responses"][0]["confirmed"] is True
    assert done["jobId"] == done["uuid"]
    assert "urls" not in done or not done["urls"]
    assert done["endReason"] == "Answered"
    # What was made for it is gone; the object and the answer stay.
    eventually(
        lambda: not any(cluster.after_kubelet(uid).values()),
        within=30,
        otherwise=lambda: str({key: len(value) for key, value in cluster.children(uid).items()}),
    )


def test_kubectl_shows_it_at_a_glance_and_waits_for_it(cluster):
    cluster.source()
    task = cluster.call()
    pod = cluster.pod(task["metadata"]["uid"])
    cluster.run_pod(pod)
    agent = cluster.agent(task, pod["metadata"]["uid"])
    agent.answer(agent.take(), {"text": "x"})
    waited = cluster.api.kubectl(
        "-n", cluster.namespace, "wait", "--for=condition=Complete", "ogt/ask", "--timeout=120s"
    )
    assert waited.returncode == 0, waited.stderr
    shown = cluster.api.kubectl("-n", cluster.namespace, "get", "ogs,ogt").stdout
    assert "Finalized" in shown
    assert "Answered" in shown

    def reasons() -> list[str]:
        shown = cluster.api.kubectl("-n", cluster.namespace, "get", "events", "-o", "json").stdout
        events = json.loads(shown)["items"]
        return [item["reason"] for item in events if item["involvedObject"]["kind"] == "OpenGPUTask"]

    # Events come after the status that they tell of.
    eventually(lambda: "Answered" in reasons(), within=20, otherwise=lambda: str(reasons()))
    assert len(reasons()) <= 4, reasons()


def test_a_task_waits_for_its_source_and_then_runs(cluster):
    task = cluster.call()
    cluster.until(OGT, "ask", "Ready", status="False", reason="SourceNotFound")
    cluster.source()
    assert cluster.pod(task["metadata"]["uid"])


def test_a_source_waits_for_its_config_map_and_follows_its_changes(cluster):
    reference = {"configMapKeyRef": {"name": "ocr-files", "key": "cpu.yaml"}}
    cluster.create(OGS, "OpenGPUSource", "ocr", {"imageEnvs": {"cpu": reference}})
    cluster.until(OGS, "ocr", "Ready", status="False", reason="ConfigMapNotFound")
    maps = f"/api/v1/namespaces/{cluster.namespace}/configmaps"
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ocr-files"},
        "data": {"cpu.yaml": COMPOSE},
    }
    cluster.api.request("POST", maps, body)
    before = cluster.until(OGS, "ocr", "Ready", status="True")["status"]["environments"][0]["digest"]
    changed = {"data": {"cpu.yaml": COMPOSE.replace("worker:1", "worker:2")}}
    cluster.api.request("PATCH", f"{maps}/ocr-files", changed, content="application/merge-patch+json")
    eventually(
        lambda: cluster.get(OGS, "ocr")["status"]["environments"][0]["digest"] != before,
        within=20,
        otherwise=cluster.stack.logs,
    )


@pytest.mark.parametrize(
    ("terms", "wish", "reason"),
    [
        ({"minPayment": "10"}, {"payment": "9"}, "TermsRefused:payment"),
        ({"maxExpirySeconds": 60}, {"expirySeconds": 61}, "TermsRefused:expirySeconds"),
        ({}, {"environment": "amd"}, "TermsRefused:environment"),
    ],
)
def test_the_sources_terms_bind_every_task(cluster, terms, wish, reason):
    cluster.source(**terms)
    task = cluster.call(**wish)
    found = cluster.until(OGT, "ask", "Stalled", status="True", reason=reason)
    assert cluster.condition(OGT, "ask", "Ready")["reason"] == reason
    assert not any(cluster.children(task["metadata"]["uid"]).values()), found


def test_terms_that_change_are_looked_at_again(cluster):
    cluster.source(minPayment="10")
    task = cluster.call(payment="9")
    cluster.until(OGT, "ask", "Stalled", reason="TermsRefused:payment")
    cluster.api.request(
        "PATCH",
        OGS.format(cluster.namespace) + "/ocr",
        {"spec": {"minPayment": "5"}},
        content="application/merge-patch+json",
    )
    assert cluster.pod(task["metadata"]["uid"])


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><html><body>404</body></html>",
        "docker.io/library/nginx:latest",
        '{"schemaVersion": 2}',
    ],
)
def test_what_is_no_compose_file_is_named_so(cluster, text):
    cluster.source(files={"cpu": text})
    found = cluster.until(OGS, "ocr", "Ready", status="False", reason="NotAComposeFile")
    assert found["status"]["environments"][0]["findings"][0]["advice"]


def test_what_this_version_cannot_do_is_said_and_not_passed_over(cluster):
    cluster.source(serving={"mode": "Shared"}, publish={"accountRef": {"name": "main"}})
    cluster.until(OGS, "ocr", "Stalled", status="True", reason="Unsupported:publish,serving")


def test_a_refused_file_says_which_keys(cluster):
    cluster.source(files={"cpu": "services: {a: {image: x, privileged: true}, b: {image: y, pid: host}}"})
    found = cluster.until(OGS, "ocr", "Ready", status="False", reason="ComposeRefused")
    paths = {finding["path"] for finding in found["status"]["environments"][0]["findings"]}
    assert {"services.a.privileged", "services.b.pid"} <= paths


def test_a_task_expires(cluster):
    cluster.source()
    task = cluster.call(expirySeconds=2)
    done = cluster.until(OGT, "ask", "Failed", status="True", reason="Expired")
    assert done["status"]["taskStatus"] == "Expired"
    eventually(lambda: not cluster.children(task["metadata"]["uid"])["deployments"], within=20)


def test_a_finished_task_is_removed_after_its_ttl(cluster):
    cluster.source()
    cluster.call(expirySeconds=1, ttlSecondsAfterFinished=1)
    eventually(lambda: cluster.get(OGT, "ask") is None, within=20, otherwise=cluster.stack.logs)


def test_a_job_without_a_call_ends_with_its_main_service(cluster):
    cluster.source(files={"cpu": JOB})
    task = cluster.task()
    # The Job controller takes it from here: its pod ended well.
    cluster.run_pod(cluster.pod(task["metadata"]["uid"]), ready=False, phase="Succeeded")
    done = cluster.until(OGT, "ask", "Complete", status="True", reason="Completed")
    assert done["status"]["endReason"] == "Completed"


def test_a_worker_that_refuses_ends_the_task_and_its_words_are_kept(cluster):
    cluster.source()
    task = cluster.call()
    pod = cluster.pod(task["metadata"]["uid"])
    cluster.run_pod(pod)
    agent = cluster.agent(task, pod["metadata"]["uid"])
    call = agent.take()
    agent.say(call, "refused", status=422, detail="text: field required")
    found = cluster.until(OGT, "ask", "Failed", status="True", reason="WorkerRefused")
    assert "field required" in cluster.condition(OGT, "ask", "Failed")["message"]
    assert found["status"]["attempts"] == 1


def test_a_busy_worker_is_asked_again(cluster):
    cluster.source()
    task = cluster.call()
    pod = cluster.pod(task["metadata"]["uid"])
    cluster.run_pod(pod)
    agent = cluster.agent(task, pod["metadata"]["uid"])
    first = agent.take()
    agent.say(first, "busy", status=503)
    second = eventually(functools.partial(_next_attempt, agent, 2), within=20, otherwise=cluster.stack.logs)
    assert second["address"] != first["address"]


def _next_attempt(agent: Agent, number: int) -> Any:
    status, call = agent.ask("GET", "?wait=1")
    return call if status == 200 and call["attempt"] == number else None


def test_a_lost_pod_is_a_new_attempt_and_the_last_one_ends_the_task(cluster):
    cluster.source()
    task = cluster.call(maxAttempts=2)
    uid = task["metadata"]["uid"]
    lost: set[str] = set()
    for number in (1, 2):
        pod = eventually(
            lambda: next(
                (p for p in cluster.children(uid)["pods"] if p["metadata"]["uid"] not in lost), None
            ),
            within=20,
        )
        cluster.run_pod(pod)
        agent = cluster.agent(task, pod["metadata"]["uid"])
        call = eventually(functools.partial(_next_attempt, agent, number), within=20)
        assert agent.ask("POST", f"/{number}/claim", {"pod": agent.pod})[0] == 200
        agent.say(call, "sent")
        lost.add(pod["metadata"]["uid"])
        path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod['metadata']['name']}"
        cluster.api.request("DELETE", path, {"gracePeriodSeconds": 0})
    found = cluster.until(OGT, "ask", "Failed", status="True", reason="AttemptsExhausted")
    assert found["status"]["attempts"] == 2


def test_suspended_before_it_starts_and_resumed(cluster):
    cluster.source()
    task = cluster.call(suspend=True)
    cluster.until(OGT, "ask", "Suspended", status="True")
    assert not cluster.children(task["metadata"]["uid"])["deployments"]
    path = OGT.format(cluster.namespace) + "/ask"
    cluster.api.request("PATCH", path, {"spec": {"suspend": False}}, content="application/merge-patch+json")
    assert cluster.pod(task["metadata"]["uid"])


def test_a_source_with_running_tasks_says_what_its_deletion_waits_for(cluster):
    cluster.source()
    task = cluster.call("first")
    cluster.pod(task["metadata"]["uid"])
    cluster.api.request("DELETE", OGS.format(cluster.namespace) + "/ocr")
    cluster.until(OGS, "ocr", "Ready", status="False", reason="InUse")
    assert "first" in cluster.condition(OGS, "ocr", "Ready")["message"]
    late = cluster.call("second")
    cluster.until(OGT, "second", "Ready", reason="SourceDeleting")
    cluster.api.request("DELETE", OGT.format(cluster.namespace) + "/first")
    eventually(lambda: cluster.get(OGS, "ocr") is None, within=30, otherwise=cluster.stack.logs)
    assert not cluster.children(late["metadata"]["uid"])["deployments"]


def test_a_child_that_is_deleted_by_hand_is_made_again(cluster):
    cluster.source()
    task = cluster.call()
    uid = task["metadata"]["uid"]
    cluster.pod(uid)
    (policy,) = cluster.children(uid)["networkpolicies"]
    path = f"/apis/networking.k8s.io/v1/namespaces/{cluster.namespace}/networkpolicies/{policy['metadata']['name']}"
    cluster.api.request("DELETE", path)
    eventually(
        lambda: (
            [item["metadata"]["uid"] for item in cluster.children(uid)["networkpolicies"]]
            not in ([], [policy["metadata"]["uid"]])
        ),
        within=10,
        otherwise=cluster.stack.logs,
    )


def test_a_strangers_object_of_the_same_name_is_left_alone(cluster):
    cluster.source()
    task = cluster.call(suspend=True)
    job = cluster.until(OGT, "ask", "Suspended", status="True")["status"]["jobId"]
    name = f"j-{job}"
    stranger = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None"},
    }
    assert cluster.api.request("POST", f"/api/v1/namespaces/{cluster.namespace}/services", stranger)[0] == 201
    path = OGT.format(cluster.namespace) + "/ask"
    cluster.api.request("PATCH", path, {"spec": {"suspend": False}}, content="application/merge-patch+json")
    cluster.until(OGT, "ask", "Ready", reason="ChildConflict")
    _, kept = cluster.api.request("GET", f"/api/v1/namespaces/{cluster.namespace}/services/{name}")
    assert "labels" not in kept["metadata"]
    assert not cluster.children(task["metadata"]["uid"])["pods"]


def test_a_restart_of_the_operator_writes_nothing_and_loses_nothing(cluster):
    cluster.source()
    tasks = [cluster.call(f"task-{number}") for number in range(5)]
    for task in tasks:
        cluster.run_pod(cluster.pod(task["metadata"]["uid"]))
    for task in tasks:
        cluster.until(OGT, task["metadata"]["name"], "Available", status="True")

    def versions() -> list[str]:
        found = [cluster.get(OGT, task["metadata"]["name"])["metadata"]["resourceVersion"] for task in tasks]
        found.append(cluster.get(OGS, "ocr")["metadata"]["resourceVersion"])
        for task in tasks:
            for plural, items in sorted(cluster.children(task["metadata"]["uid"]).items()):
                if plural not in {"pods", "deployments"}:
                    found += [item["metadata"]["resourceVersion"] for item in items]
        return found

    eventually(lambda: cluster.get(OGS, "ocr")["status"].get("activeTasks") == 5, within=20)
    cluster.stack.settle()
    before = versions()
    cluster.stack.restart_operator()
    agents = []
    for task in tasks:
        pod = cluster.pod(task["metadata"]["uid"])
        agents.append(cluster.agent(task, pod["metadata"]["uid"]))
    cluster.stack.settle()
    assert versions() == before
    for agent, number in zip(agents, itertools.count(), strict=False):
        agent.answer(agent.take(), {"number": number})
    for number, task in enumerate(tasks):
        done = cluster.until(OGT, task["metadata"]["name"], "Complete", status="True")
        assert done["status"]["responses"][0]["inline"] == {"number": number}


def test_an_answer_that_came_in_time_counts_though_nobody_was_there_to_see_it(cluster):
    cluster.source()
    task = cluster.call(expirySeconds=600)
    pod = cluster.pod(task["metadata"]["uid"])
    cluster.run_pod(pod)
    cluster.until(OGT, "ask", "Available", status="True")
    agent = cluster.agent(task, pod["metadata"]["uid"])
    call = agent.take()
    cluster.stack.operator.stop(signal.SIGKILL)
    agent.answer(call, {"text": "just in time"})
    # The time that it had is over a moment after the answer, whatever this machine took until then.
    created = datetime.fromisoformat(task["metadata"]["creationTimestamp"])
    seconds = int((datetime.now(UTC) - created).total_seconds()) + 1
    patch = {"spec": {"expirySeconds": seconds}}
    path = OGT.format(cluster.namespace) + "/ask"
    code, answer = cluster.api.request("PATCH", path, patch, content="application/merge-patch+json")
    assert code == 200, answer
    eventually(lambda: datetime.now(UTC) > created + timedelta(seconds=seconds + 1), within=10)
    cluster.stack.restart_operator()
    done = cluster.until(OGT, "ask", "Complete", status="True", reason="Answered")
    assert done["status"]["responses"][0]["inline"] == {"text": "just in time"}


def test_new_settings_are_for_new_tasks_and_leave_running_ones_alone(cluster):
    cluster.source()
    task = cluster.call("old")
    cluster.run_pod(cluster.pod(task["metadata"]["uid"]))
    cluster.until(OGT, "old", "Available", status="True")
    before = cluster.children(task["metadata"]["uid"])["deployments"]
    agent = cluster.stack.config["agent"]
    try:
        cluster.stack.restart_operator(agent={"image": "localhost/opengpu-agent:next"})
        later = cluster.call("new")
        cluster.pod(later["metadata"]["uid"])
        (deployment,) = cluster.children(later["metadata"]["uid"])["deployments"]
        (made,) = deployment["spec"]["template"]["spec"]["initContainers"]
        assert made["image"] == "localhost/opengpu-agent:next"
        after = cluster.children(task["metadata"]["uid"])["deployments"]
        assert [item["metadata"]["generation"] for item in after] == [
            item["metadata"]["generation"] for item in before
        ]
    finally:
        cluster.stack.restart_operator(agent=agent)


def test_a_task_that_asks_for_less_keeps_nothing_of_what_it_had(cluster):
    cluster.source()
    task = cluster.call()
    uid = task["metadata"]["uid"]
    eventually(lambda: cluster.children(uid)["ingresses"], within=20)
    path = OGT.format(cluster.namespace) + "/ask"
    cluster.api.request("PATCH", path, {"spec": {"ports": []}}, content="application/merge-patch+json")
    eventually(lambda: not cluster.children(uid)["ingresses"], within=20, otherwise=cluster.stack.logs)
    assert cluster.children(uid)["deployments"]


def test_a_pin_that_cannot_be_fetched_offers_nothing_old(cluster):
    cluster.source()
    cluster.until(OGS, "ocr", "Ready", status="True")
    nowhere = {"composeUrl": "https://nowhere.invalid/c.yaml", "sha256": "0" * 64, "configMapKeyRef": None}
    path = OGS.format(cluster.namespace) + "/ocr"
    patch = {"spec": {"imageEnvs": {"cpu": nowhere}}}
    cluster.api.request("PATCH", path, patch, content="application/merge-patch+json")
    found = cluster.until(OGS, "ocr", "Ready", status="False", reason="FetchFailed")
    assert not found["status"]["environments"][0]["ready"]

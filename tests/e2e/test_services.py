"""What the services of one file are to each other: order, names, files; and a job whose agent dies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.kit import SOURCES, TASKS, Cluster, until
from tests.e2e.objects import PROBE, compose, page, run, shell, source, task, worker

pytestmark = pytest.mark.e2e

#: Says when it is there, and is healthy only after a while.
SLOW = "date +%s%N > /shared/started; sleep 3; touch /tmp/ready; date +%s%N > /shared/healthy; exec sleep 600"
MIGRATE = "sleep 1; date +%s%N > /shared/migrated"
MAIN = (
    "date +%s%N > /shared/main; grep -qx greeting=hello /etc/app/settings.ini"
    " && test $(cat /shared/healthy) -lt $(cat /shared/main)"
    " && test $(cat /shared/migrated) -lt $(cat /shared/main)"
    " && getent hosts slow"
)
SHARED = {"volumes": ["shared:/shared"]}
ORDERED = {
    "services": {
        "slow": shell(
            SLOW,
            restart="always",
            healthcheck={"test": ["CMD-SHELL", "test -e /tmp/ready"], "interval": "1s"},
            **SHARED,
        ),
        "migrate": shell(MIGRATE, restart="no", **SHARED),
        "main": shell(
            MAIN,
            restart="no",
            depends_on={
                "slow": {"condition": "service_healthy"},
                "migrate": {"condition": "service_completed_successfully"},
            },
            configs=[{"source": "settings", "target": "/etc/app/settings.ini"}],
            **SHARED,
        ),
    },
    "configs": {"settings": {"content": "greeting=hello\n"}},
    "volumes": {"shared": {}},
}


def test_services_start_in_order_and_find_each_other_and_their_files(
    operator: Cluster, namespace: str
) -> None:
    operator.apply(namespace, *source("ordered", cpu=json.dumps(ORDERED)), task("ordered", "ordered"))
    found = operator.wait_task(namespace, "ordered", timeout=120)
    assert found["status"]["endReason"] == "Completed"
    assert found["status"]["taskStatus"] == "Finalized"


#: The first run marks its volume and stays; one that finds the mark is the second, and completes.
TWICE = shell(
    "test -e /shared/mark && exit 0; touch /shared/mark; exec sleep 600",
    restart="no",
    stop_grace_period="1s",
    **SHARED,
)


def running(cluster: Cluster, namespace: str, name: str, service: str) -> list[str]:
    """Return the names of a service's pods that run."""
    owner = cluster.task(namespace, name)
    if not owner.get("status", {}).get("jobId"):
        return []
    found = cluster.pods(namespace, owner, service)
    return [pod["metadata"]["name"] for pod in found if pod["status"].get("phase") == "Running"]


def wait_for_mark(cluster: Cluster, namespace: str, name: str) -> str:
    """Wait for the first run of TWICE; return its pod's name."""

    def marked() -> str | None:
        for pod in running(cluster, namespace, name, "main"):
            look = ("-n", namespace, "exec", pod, "-c", "main", "--", "test", "-e", "/shared/mark")
            if cluster.try_kubectl(*look).returncode == 0:
                return pod
        return None

    return until("the first run's mark", marked, timeout=90)


def test_a_running_job_is_suspended_and_resumed_and_its_ports_change(
    operator: Cluster, namespace: str
) -> None:
    web = page(restart="always")
    web["ports"] = ["8080:8080", "8081:8081"]
    file = json.dumps({"services": {"main": TWICE, "web": web}, "volumes": {"shared": {}}})
    operator.apply(
        namespace, *source("pausing", cpu=file), task("pausing", "pausing", mainService="main", ports=[8080])
    )

    def patch(**spec: Any) -> None:
        text = json.dumps({"spec": spec})
        operator.kubectl("-n", namespace, "patch", "ogt", "pausing", "--type=merge", "-p", text)

    wait_for_mark(operator, namespace, "pausing")
    until("the other service", lambda: running(operator, namespace, "pausing", "web"), timeout=60)
    patch(ports=[8081])
    until(
        "the other port's URL",
        lambda: [entry["port"] for entry in operator.task(namespace, "pausing")["status"]["urls"]] == [8081],
    )
    patch(suspend=True)
    until(
        "nothing runs",
        lambda: not operator.pods(namespace, operator.task(namespace, "pausing")),
        timeout=90,
    )
    patch(suspend=False)
    found = operator.wait_task(namespace, "pausing", timeout=120)
    assert found["status"]["endReason"] == "Completed"


def test_an_evicted_pod_of_a_job_is_replaced_and_counts_as_no_failure(
    operator: Cluster, namespace: str
) -> None:
    file = json.dumps({"services": {"main": TWICE}, "volumes": {"shared": {}}})
    operator.apply(namespace, *source("evicted", cpu=file), task("evicted", "evicted"))
    pod = wait_for_mark(operator, namespace, "evicted")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    status, answer = operator.api.request(
        "POST", f"api/v1/namespaces/{namespace}/pods/{pod}/eviction", eviction
    )
    assert status == 201, answer
    found = operator.wait_task(namespace, "evicted", timeout=120)
    assert found["status"]["endReason"] == "Completed"


def test_a_finished_task_goes_when_its_time_has_come(operator: Cluster, namespace: str) -> None:
    operator.apply(
        namespace,
        *source("brief", cpu=compose(main=shell("true", restart="no"))),
        task("brief", "brief", ttlSecondsAfterFinished=1),
    )
    until(
        "the task is removed",
        lambda: operator.get(TASKS, namespace, "brief") is None or None,
        timeout=90,
    )


def test_a_new_file_leaves_no_old_translation_behind(operator: Cluster, namespace: str) -> None:
    operator.apply(namespace, *source("changing", cpu=compose(main={"image": PROBE})))
    operator.wait_reason(SOURCES, namespace, "changing", "Translated")

    def revisions() -> list[str]:
        found = operator.objects("apis/apps/v1/controllerrevisions", namespace)
        return sorted(
            item["metadata"]["name"] for item in found if item["metadata"]["name"].startswith("changing-")
        )

    (first,) = revisions()
    operator.apply(namespace, *source("changing", cpu=compose(main={"image": PROBE, "restart": "always"})))
    until("the translation is replaced", lambda: (len(revisions()) == 1 and first not in revisions()) or None)


def test_a_pod_whose_agent_restarted_is_replaced_and_the_task_goes_on(
    operator: Cluster, namespace: str
) -> None:
    operator.apply(
        namespace,
        *source("probe", cpu=compose(worker=worker())),
        run("agent", "probe", "until test -e /gpux_job/go; do sleep 0.2; done; echo done", maxAttempts=3),
    )
    found = operator.wait(
        TASKS,
        namespace,
        "agent",
        what="called",
        met=lambda obj: bool((obj.get("status", {}).get("times") or {}).get("called")),
        timeout=90,
    )
    (pod,) = operator.pods(namespace, found, "worker")
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    operator.kubectl(
        *["-n", namespace, "exec", name, "-c", "gpux-agent", "--"],
        *["python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"],
    )
    until(
        "another pod runs",
        lambda: [
            new
            for new in operator.pods(namespace, found, "worker")
            if new["metadata"]["uid"] != uid and new["status"].get("phase") == "Running"
        ],
        timeout=120,
    )
    # The call may have been made once, so it is made again only because the pod that had it is known to be gone.
    found = operator.wait(
        TASKS,
        namespace,
        "agent",
        what="called a second time",
        met=lambda obj: obj["status"].get("attempts") == 2 and bool(obj["status"].get("attemptPod")),
        timeout=120,
    )
    (pod,) = [
        new
        for new in operator.pods(namespace, found, "worker")
        if not new["metadata"].get("deletionTimestamp")
    ]
    operator.kubectl(
        "-n", namespace, "exec", pod["metadata"]["name"], "-c", "worker", "--", "touch", "/gpux_job/go"
    )
    found = operator.wait_task(namespace, "agent", timeout=60)
    assert found["status"]["attempts"] == 2
    reasons = {event["reason"] for event in operator.events(namespace, "agent")}
    assert "AgentRestarted" in reasons


def test_a_job_whose_agent_restarted_starts_anew_and_has_not_failed(
    operator: Cluster, namespace: str
) -> None:
    file = json.dumps({"services": {"main": TWICE}, "volumes": {"shared": {}}})
    operator.apply(namespace, *source("agents-job", cpu=file), task("agents-job", "agents-job"))
    pod = wait_for_mark(operator, namespace, "agents-job")
    operator.kubectl(
        *["-n", namespace, "exec", pod, "-c", "gpux-agent", "--"],
        *["python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"],
    )
    found = operator.wait_task(namespace, "agents-job", timeout=120)
    assert found["status"]["endReason"] == "Completed"
    restarted = [
        event["note"]
        for event in operator.events(namespace, "agents-job")
        if event["reason"] == "AgentRestarted"
    ]
    assert len(restarted) == 1, restarted

from __future__ import annotations

import pytest

from opengpu_operator.api.reasons import Reason
from opengpu_operator.reconcile.pods import addresses, agent_restarted, exit_of, summarise
from tests.unit.reconcile.builders import at, deployment, job, node, pod, terminated


def unschedulable(message: str) -> list[dict[str, str]]:
    return [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]


def waiting(reason: str, **fields: object) -> list[dict[str, object]]:
    return [{"name": "web", "state": {"waiting": {"reason": reason, "message": "why"}}, **fields}]


def test_all_is_well() -> None:
    summary = summarise([pod("web"), pod("db")], nodes=[node()])
    assert (summary.total, summary.scheduled, summary.ready, summary.problem) == (2, 2, 2, None)


def test_addresses_are_those_of_pods_that_run_or_will() -> None:
    both = [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    found = addresses(
        [
            pod("web", podIPs=both),
            pod("web", podIPs=[{"ip": "10.0.0.2"}], ready=False),
            pod("web", podIPs=[{"ip": "10.0.0.3"}], metadata={"deletionTimestamp": at(0)}),
            pod("web", phase="Succeeded", podIPs=[{"ip": "10.0.0.4"}]),
            pod("db", phase="Failed", podIPs=[{"ip": "10.0.0.5"}]),
            pod("new"),
        ]
    )
    assert found == {"web": ["10.0.0.1", "fd00::1", "10.0.0.2"], "new": []}


@pytest.mark.parametrize(
    "message",
    [
        'container has runAsNonRoot and image will run as root (pod: "a_b(c)", container: web)',
        "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root",
        "container's runAsUser breaks non-root policy",
    ],
)
def test_an_image_that_wants_to_be_root_is_named_before_all_else(message: str) -> None:
    """The sentences are those of the kubelet's verifyRunAsNonRoot."""
    refused = [
        {"name": "web", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": message}}}
    ]
    never = pod("db", gpus=9, node=None)
    problem = summarise([never, pod(ready=False, containerStatuses=refused)], nodes=[node()]).problem
    assert problem is not None
    assert problem.reason is Reason.ROOT_REFUSED
    assert problem.message.startswith("web/web would run as root")
    assert "user:" in problem.message
    assert message in problem.message


def test_pods_on_their_way_out_do_not_count() -> None:
    assert summarise([pod("web", metadata={"deletionTimestamp": at(0)})], nodes=[]).total == 0


@pytest.mark.parametrize(
    ("broken", "reason", "words"),
    [
        (
            pod(
                gpus=3,
                node=None,
                conditions=unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu."),
            ),
            Reason.WAITING_FOR_GPUS,
            "2 Insufficient nvidia.com/gpu",
        ),
        (
            pod(gpus=9, node=None, conditions=[]),
            Reason.NO_NODE_FITS,
            "asks for 9 nvidia.com/gpu, the largest node has 4",
        ),
        (
            pod(node=None, conditions=unschedulable("0/2 nodes: Insufficient memory")),
            Reason.UNSCHEDULABLE,
            "memory",
        ),
        *(
            (
                pod(node=None, conditions=unschedulable(f"2 node(s) {words}")),
                Reason.STORAGE_NODE_CONFLICT,
                "its volume is on a node",
            )
            # As Kubernetes said it until 1.34, and says it since.
            for words in (
                "had volume node affinity conflict",
                "didn't match PersistentVolume's node affinity",
            )
        ),
        (
            pod(node=None, gates=["opengpu.network/healthy.db"]),
            Reason.WAITING_FOR_DEPENDENCY,
            "web waits for healthy.db",
        ),
        (
            pod(ready=False, containerStatuses=waiting("ImagePullBackOff")),
            Reason.IMAGE_PULL_FAILED,
            "web/web",
        ),
        (
            pod(
                ready=False,
                containerStatuses=waiting(
                    "CrashLoopBackOff", lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
                ),
            ),
            Reason.CONTAINER_FAILING,
            "last exit code 137, OOMKilled",
        ),
        (
            pod(ready=False, containerStatuses=waiting("CreateContainerConfigError")),
            Reason.CONTAINER_FAILING,
            "CreateContainerConfigError: why",
        ),
    ],
)
def test_the_problem_is_named(broken: dict[str, object], reason: Reason, words: str) -> None:
    summary = summarise([broken], nodes=[node(nvidia_gpus="4")])
    assert summary.problem is not None
    assert summary.problem.reason is reason
    assert words in summary.problem.message


@pytest.mark.parametrize("until", ["completed", "healthy"])
def test_what_waits_for_a_job_that_failed_waits_in_vain(until: str) -> None:
    waits = [pod("a", node=None, gates=["opengpu.network/healthy.db"])]
    waits += [pod("web", node=None, gates=[f"opengpu.network/{until}.migrate"])]
    ended = pod("migrate", containerStatuses=[{"name": "migrate", "state": terminated(0, exitCode=3)}])
    jobs = [job("db"), job("migrate", failed=True)]
    for own, how in (([*waits, ended], "exit code 3 (Error)"), (waits, "how it Failed")):
        problem = summarise(own, nodes=[node()], jobs=jobs).problem
        assert problem is not None
        assert problem.reason is Reason.DEPENDENCY_FAILED
        assert problem.message == f"web never starts: it waits for migrate, which failed: {how}"


def test_the_impossible_comes_before_the_busy() -> None:
    busy = pod("a", gpus=1, node=None, conditions=unschedulable("2 Insufficient nvidia.com/gpu"))
    never = pod("b", gpus=9, node=None, conditions=unschedulable("2 Insufficient nvidia.com/gpu"))
    summary = summarise([busy, never], nodes=[node(nvidia_gpus="4")])
    assert summary.problem is not None
    assert summary.problem.reason is Reason.NO_NODE_FITS


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "j-x-" is forbidden: exceeded quota: few, requested: pods=1', Reason.QUOTA_EXCEEDED),
        ('pods "j-x-" is forbidden: violates PodSecurity "restricted:latest"', Reason.FORBIDDEN),
        ('pods "j-x-" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 4Gi', Reason.FORBIDDEN),
        ('admission webhook "policy.example.com" denied the request: no', Reason.FORBIDDEN),
    ],
)
def test_pods_that_were_refused_are_told_by_their_deployment(message: str, reason: Reason) -> None:
    deployments = [deployment("db"), deployment("web", refused=message)]
    summary = summarise([pod("db")], nodes=[node()], deployments=deployments)
    assert summary.problem is not None
    assert (summary.problem.reason, summary.problem.message) == (reason, f"web: {message}")
    # The pods that are there aren't all: the task isn't up.
    assert (summary.total, summary.scheduled, summary.ready) == (2, 1, 1)


def test_what_was_refused_comes_before_what_cannot_be_placed() -> None:
    never = pod("a", gpus=9, node=None, conditions=[])
    summary = summarise([never], nodes=[node()], deployments=[deployment(refused="is forbidden: no")])
    assert summary.problem is not None
    assert summary.problem.reason is Reason.FORBIDDEN


def test_deployments_without_trouble_or_on_their_way_out_change_nothing() -> None:
    going = deployment(refused="exceeded quota: few", deletionTimestamp=at(0))
    lifted = deployment(refused="exceeded quota: few")
    lifted["status"]["conditions"][0]["status"] = "False"
    summary = summarise([pod()], nodes=[], deployments=[deployment(), going, lifted])
    assert (summary.total, summary.ready, summary.problem) == (1, 1, None)


@pytest.mark.parametrize(
    ("restarts", "agent_since", "app_since", "dead"),
    [(0, 5, 10, False), (1, 20, 10, True), (1, 5, 10, False)],
)
def test_an_agent_that_restarted_under_the_application_left_a_dead_socket(
    restarts: int, agent_since: float, app_since: float, *, dead: bool
) -> None:
    running = pod(
        initContainerStatuses=[
            {
                "name": "gpux-agent",
                "restartCount": restarts,
                "state": {"running": {"startedAt": at(agent_since)}},
            }
        ],
        containerStatuses=[{"name": "web", "state": {"running": {"startedAt": at(app_since)}}}],
    )
    assert agent_restarted(running) is dead


def test_how_a_service_ended_is_told_by_its_last_container() -> None:
    first = pod("main", uid="1", containerStatuses=[{"name": "main", "state": terminated(1, exitCode=1)}])
    second = pod("main", uid="2", containerStatuses=[{"name": "main", "state": terminated(9, exitCode=3)}])
    other = pod("db", containerStatuses=[{"name": "db", "state": terminated(20, exitCode=9)}])
    assert exit_of([first, second, other], "main") == "exit code 3 (Error)"
    assert exit_of([pod("main")], "main") is None

"""What the keys of a Compose file do to containers that run: each looks at itself, and says what it saw.

One file holds them all, since a pod costs a second. Elsewhere: the order of ``service_healthy`` and
``service_completed_successfully``, and a shared volume (test_services); GPUs (test_gpus) and volumes that follow them
(test_volumes); a namesake in the namespace and published ports (test_routes); the ends of jobs (test_tasks).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from shlex import quote
from typing import Any

import pytest

from tests.e2e.kit import TASKS, Cluster, Object, describe, reasons, table, until
from tests.e2e.objects import LOOK, PROBE, literal, look, page, shell, source, task

pytestmark = pytest.mark.e2e

MIB = 2**20
#: What shells, YAML, Go's templates, Kubernetes and kompose each have a use for.
# fmt: off
ODD = [
    "$HOME", "$(ODD_0)", "$$(ODD_0)", "$$", "${HOME:-x}", "$é", "$((1+2))", "$", "`id`", "%s %d", "{{ .Host }}",
    "", " a  b ", "it's", 'say "no"', "back\\slash\\n", "line\nbreak\ttab", "grüß dich ☃", "*", "~", "!x", "&x",
    "a;b|c&d>e<f", "# no comment", "- a: b", "null", "0123", "1e3", "status: x", "/run/secrets/x", "--", "-",
]
# fmt: on
CONTENT = "greeting=$HOME $(HOME) ${X}\n\"snow\"='☃'\n\n  no newline"
STATE = "it's $5"
MODE = 'a "b" $c'
HAS_MODE = f'[ "$MODE" = {quote(MODE)} ]'
STOPPED = (
    "test -e /kept/first && { until test -e /kept/stopped; do sleep 0.1; done; echo well; exec sleep 600; }"
)
STAY = "exec sleep 600"


def stays(script: str = STAY, **extra: Any) -> Object:
    """Return a service that doesn't end by itself."""
    return shell(script, restart="always", **extra)


def after(**conditions: str) -> Object:
    """Return the key that waits for other services."""
    return {"depends_on": {name: {"condition": f"service_{until}"} for name, until in conditions.items()}}


SERVICES: dict[str, Object] = {
    # Words
    "argv": look(*ODD, environment={f"ODD_{index}": literal(value) for index, value in enumerate(ODD)}),
    "words": {
        "image": PROBE,
        "entrypoint": f"{' '.join(LOOK)} 'one  word'",
        "command": 'two\\ words "three $$words" four',
        "restart": "no",
        "environment": ["with.dots-and-hyphens=1", "list=a=b", "PORT=${PORT}"],
    },
    "terminal": look(tty=True, stdin_open=True),
    # Who, and what it may write
    "user": look(
        user="1234:2345",
        group_add=["44", 3000],
        working_dir="/usr/share",
        read_only=True,
        tmpfs="/scratch:size=16m,mode=1777",
        sysctls={"net.ipv4.ip_local_port_range": "20000 30000"},
        configs=[
            "plain",
            {"source": "plain", "target": "/etc/app/strict.ini", "mode": 0o440},
            {"source": "plain", "target": "/etc/app/own.ini", "mode": "0400", "uid": "1234"},
        ],
        secrets=["token", {"source": "token", "target": "renamed", "mode": 0o404}],
    ),
    "storage": look(
        shm_size="96m",
        tmpfs=["/scratch:size=16m", "/run/lock"],
        volumes=[
            *("data:/whole", "data:/looked-at:ro", "/anonymous"),
            {"type": "volume", "source": "data", "target": "/part", "volume": {"subpath": "deep/er"}},
            {"type": "volume", "source": "data", "target": "/part-ro", "read_only": True},
            {"type": "tmpfs", "target": "/fast", "tmpfs": {"size": 32 * MIB}},
        ],
    ),
    "borrower": look(volumes_from=["storage:ro"], **after(storage="completed_successfully")),
    # Names
    "page": page(
        ports=["18080:8080"],
        restart="always",
        environment=["NAME=page"],
        container_name="front_door",
        networks={"default": {"aliases": ["shop-window"]}},
    ),
    "joined": stays(
        f"{' '.join(LOOK)}; {STAY}",
        network_mode="service:page",
        environment=["GET_IT=http://127.0.0.1:8080/"],
    ),
    "my_db": page(ports=[], restart="always", environment=["NAME=my_db"]),
    "twice": page(ports=[], restart="always", deploy={"replicas": 2}),
    "none": look(deploy={"replicas": 0}),
    "names": look(
        *("http://host.docker.internal:18080/", "http://shop-window:8080/"),
        links=["page:linked"],
        extra_hosts=["outer:host-gateway", "static.example:192.0.2.7"],
        environment={
            "GET_SERVICE": "http://page:8080/",
            "GET_HOST": "http://host.docker.internal:18080/",
            "GET_GATEWAY": "http://outer:18080/",
            "GET_ALIAS": "http://shop-window:8080/",
            "GET_CONTAINER_NAME": "http://front_door:8080/",
            "GET_LINK": "http://linked:8080/",
            "GET_RENAMED": "http://my_db:8080/",
            "RESOLVE": "twice=2 static.example=1 none=0",
        },
    ),
    # Health and order
    "state": stays(
        f"sleep 2; date +%s.%N; printf %s {quote(STATE)} > /tmp/state; {STAY}",
        environment={"MODE": literal(MODE)},
        healthcheck={
            "test": ["CMD-SHELL", literal(f'[ "$(cat /tmp/state)" = {quote(STATE)} ] && {HAS_MODE}')],
            "interval": "1s",
            "retries": 1,
            "start_period": "30s",
        },
    ),
    "words-checked": stays(
        configs=[{"source": "line", "target": "/etc/line"}],
        healthcheck={"test": ["CMD", "grep", "-Fxq", literal(ODD[2]), "/etc/line"], "interval": "1s"},
    ),
    "string-checked": stays(
        environment={"MODE": literal(MODE)},
        healthcheck={"test": literal(f"{HAS_MODE} || exit 1"), "interval": "1s"},
    ),
    "disabled": stays(healthcheck={"disable": True}),
    "unchecked": stays(healthcheck={"test": ["NONE"]}),
    "after-health": look(
        **after(
            state="healthy",
            **{"words-checked": "healthy", "string-checked": "healthy"},
            disabled="healthy",
            unchecked="healthy",
        )
    ),
    "sick": stays(healthcheck={"test": "exit 1", "interval": "1s"}),
    "after-start": look(**after(sick="started")),
    "flaky": shell(
        "test -e /tries/1 && date +%s.%N && exit; touch /tries/1; exit 5",
        restart="on-failure:2",
        volumes=["tries:/tries"],
    ),
    "after-flaky": look(**after(flaky="completed_successfully")),
    # Ends
    "graceful": stays(
        f"{STOPPED}; trap 'sleep 2; touch /kept/stopped; exit' TERM; touch /kept/first; echo first; sleep 600 & wait",
        stop_grace_period="20s",
        volumes=["kept:/kept"],
    ),
}
#: What they reserve, so that all of them fit on a small machine.
LIGHT = {"resources": {"reservations": {"cpus": "0.01", "memory": "16m"}}}
FILE = {
    "services": {
        name: {**entry, "deploy": {**LIGHT, **entry.get("deploy", {})}} for name, entry in SERVICES.items()
    },
    "configs": {"plain": {"content": literal(CONTENT)}, "line": {"content": literal(f"{ODD[2]}\n")}},
    "secrets": {"token": {"content": literal(CONTENT)}},
    "volumes": {"data": {}, "tries": {}, "kept": {}},
}
#: Those that look and end.
LOOKERS = {name for name, entry in SERVICES.items() if entry.get("restart") == "no"} - {"none"}


def component(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def outline(cluster: Cluster, namespace: str, pods: list[Object]) -> str:
    """Return where each pod stands, for the message of a failure."""
    rows = []
    for pod in pods:
        states = [entry["state"] for entry in pod["status"].get("containerStatuses", [])]
        row = {"service": component(pod), "phase": pod["status"]["phase"], "states": json.dumps(states)}
        if pod["status"]["phase"] == "Failed":
            row["printed"] = str(cluster.printed(namespace, pod))[-500:]
        rows.append(row)
    return table(rows)


@pytest.fixture(scope="module")
def job(operator: Cluster, namespace: str) -> Object:
    """The task with all services."""
    operator.apply(
        namespace,
        *source("all", cpu=json.dumps(FILE)),
        task("all", "all", mainService="page", expirySeconds=900),
    )
    return operator.wait(
        TASKS,
        namespace,
        "all",
        what="a start",
        met=lambda found: found.get("status", {}).get("urls"),
        timeout=30,
    )


@pytest.fixture(scope="module")
def pods(operator: Cluster, namespace: str, job: Object) -> dict[str, Object]:
    """The pod of each service, once those that look have ended; of a service with several, the last one."""
    seen: list[Object] = []

    def ended() -> dict[str, Object] | None:
        seen[:] = operator.pods(namespace, job)
        found = {
            component(pod): pod for pod in sorted(seen, key=lambda pod: pod["metadata"]["creationTimestamp"])
        }
        ends = {name for name, pod in found.items() if pod["status"]["phase"] in {"Succeeded", "Failed"}}
        return found if ends >= LOOKERS else None

    try:
        return until("all to have looked", ended, timeout=150, interval=1)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{outline(operator, namespace, seen)}") from None


@pytest.fixture(scope="module")
def seen(operator: Cluster, namespace: str, pods: dict[str, Object]) -> dict[str, Object]:
    """What each service that looks has printed."""
    failed = [pod for name, pod in pods.items() if name in LOOKERS and pod["status"]["phase"] == "Failed"]
    assert not failed, outline(operator, namespace, failed)
    return {name: operator.printed(namespace, pods[name]) for name in LOOKERS}


def test_arguments_and_variables_arrive_as_they_are_written(seen: dict[str, Object]) -> None:
    assert seen["argv"]["argv"] == ODD
    env = seen["argv"]["env"]
    assert [env[f"ODD_{index}"] for index in range(len(ODD))] == ODD
    assert seen["words"]["argv"] == ["one  word", "two words", "three $words", "four"]
    env = seen["words"]["env"]
    assert (env["with.dots-and-hyphens"], env["list"], env["PORT"]) == ("1", "a=b", "5555")


def test_terminals(seen: dict[str, Object]) -> None:
    assert seen["terminal"]["terminal"] == [True, True]
    assert seen["words"]["terminal"] == [False, False]


def test_the_user_its_groups_and_its_directory(seen: dict[str, Object]) -> None:
    found = seen["user"]
    assert (found["user"], found["groups"], found["cwd"]) == ("1234:2345", [44, 2345, 3000], "/usr/share")
    assert (seen["argv"]["user"], seen["argv"]["cwd"]) == ("0:0", "/opt")


def test_a_read_only_root_with_a_directory_that_everybody_can_write(seen: dict[str, Object]) -> None:
    found = seen["user"]["mounts"]
    assert (found["/"]["writable"], found["/"]["why"]) == (False, "Read-only file system")
    scratch = found["/scratch"]
    assert (scratch["type"], scratch["size"], scratch["mode"]) == ("tmpfs", 16 * MIB, "1777"), scratch
    assert scratch["writable"]
    assert seen["argv"]["mounts"]["/"]["writable"]


def test_safe_kernel_settings(seen: dict[str, Object]) -> None:
    assert seen["user"]["sysctls"]["net/ipv4/ip_local_port_range"] == ["20000", "30000"]


@pytest.mark.parametrize(
    ("path", "mode", "readable"),
    [
        ("/plain", "444", True),
        ("/etc/app/strict.ini", "440", False),
        ("/etc/app/own.ini", "404", True),
        ("/run/secrets/token", "444", True),
        ("/run/secrets/renamed", "404", True),
    ],
)
def test_inline_files(seen: dict[str, Object], path: str, mode: str, readable: bool) -> None:
    """Of the user's, not root's: files belong to root, so only those that everybody may read can be read."""
    file = seen["user"]["mounts"][path]
    expected = CONTENT if readable else "Permission denied"
    assert (file["mode"], file["owner"], file["content"]) == (mode, "0:0", expected)
    assert not file["writable"]


def test_memory_of_its_own(seen: dict[str, Object]) -> None:
    mounts = seen["storage"]["mounts"]
    sizes = {path: mounts[path]["size"] for path in ("/dev/shm", "/scratch", "/fast")}
    assert sizes == {"/dev/shm": 96 * MIB, "/scratch": 16 * MIB, "/fast": 32 * MIB}
    for path in (*sizes, "/run/lock"):
        assert (mounts[path]["type"], mounts[path]["writable"]) == ("tmpfs", True), path
    assert seen["argv"]["mounts"]["/dev/shm"]["size"] == 64 * MIB, "Docker's default"


def test_one_volume_in_several_places(seen: dict[str, Object]) -> None:
    mounts = seen["storage"]["mounts"]
    whole = ["deep/er/left-by-storage", "left-by-storage"]
    assert (mounts["/whole"]["writable"], mounts["/whole"]["files"]) == (True, whole)
    assert (mounts["/part"]["writable"], mounts["/part"]["files"]) == (True, ["left-by-storage"])
    for path in ("/looked-at", "/part-ro"):
        assert (mounts[path]["writable"], mounts[path]["files"]) == (False, whole), path


def test_mounts_of_another_service(seen: dict[str, Object]) -> None:
    mounts = seen["borrower"]["mounts"]
    for path in ("/whole", "/anonymous", "/part"):
        assert not mounts[path]["writable"], path
        assert "left-by-storage" in mounts[path]["files"], path
    assert mounts["/fast"]["files"] == ["left-by-borrower"], "memory isn't shared"


def test_a_sibling_by_all_its_names(seen: dict[str, Object]) -> None:
    got = seen["names"]["got"]
    assert {
        name: answer.get("name") if isinstance(answer, dict) else answer for name, answer in got.items()
    } == {
        **dict.fromkeys(
            ("GET_SERVICE", "GET_HOST", "GET_GATEWAY", "GET_ALIAS", "GET_CONTAINER_NAME", "GET_LINK"), "page"
        ),
        "GET_RENAMED": "my_db",
    }
    assert [answer["name"] for answer in seen["names"]["got_argv"]] == ["page", "page"]


def test_hosts_replicas_and_what_has_none(
    operator: Cluster, namespace: str, job: Object, seen: dict[str, Object]
) -> None:
    resolved = seen["names"]["resolved"]
    addresses = sorted(pod["status"]["podIP"] for pod in operator.pods(namespace, job, "twice"))
    assert len(addresses) == 2
    assert resolved == {"twice": addresses, "static.example": ["192.0.2.7"], "none": []}
    assert operator.pods(namespace, job, "none") == []


def test_services_that_share_a_network(
    operator: Cluster, namespace: str, pods: dict[str, Object], job: Object
) -> None:
    assert operator.pods(namespace, job, "joined") == []
    printed = until(
        "the joined service to have looked", lambda: operator.printed(namespace, pods["page"], "joined")
    )
    assert printed["got"]["GET_IT"]["name"] == "page"


def test_checks_hold_back_only_those_that_wait_for_them(
    operator: Cluster, namespace: str, pods: dict[str, Object], seen: dict[str, Object]
) -> None:
    """That ``after-health`` ran shows that every check understood its quotes and dollars, and that none killed."""
    assert seen["after-health"]["started"] > float(operator.printed(namespace, pods["state"]))
    (state,) = pods["state"]["status"]["containerStatuses"]
    assert (state["ready"], state["restartCount"]) == (True, 0)
    (sick,) = pods["sick"]["status"]["containerStatuses"]
    assert (sick["ready"], sick["restartCount"]) == (False, 0), "after-start waited for nothing else"


def test_a_second_try_counts_as_success(
    operator: Cluster, namespace: str, job: Object, pods: dict[str, Object], seen: dict[str, Object]
) -> None:
    phases = sorted(pod["status"]["phase"] for pod in operator.pods(namespace, job, "flaky"))
    assert phases == ["Failed", "Succeeded"]
    assert seen["after-flaky"]["started"] > float(operator.printed(namespace, pods["flaky"]))


def test_a_service_has_the_time_to_stop_that_it_asks_for(
    operator: Cluster, namespace: str, job: Object, pods: dict[str, Object]
) -> None:
    def last_word(name: str) -> bool:
        return any(
            str(operator.printed(namespace, pod)).strip() == name
            for pod in operator.pods(namespace, job, "graceful")
            if pod["status"]["phase"] == "Running"
        )

    until("its first run", lambda: last_word("first"), timeout=60)
    operator.kubectl("-n", namespace, "delete", "pod", pods["graceful"]["metadata"]["name"], "--wait=false")
    until("the next run to find that the first stopped by itself", lambda: last_word("well"), timeout=60)


@pytest.fixture
def broken(operator: Cluster, namespace: str) -> Iterator[str]:
    """A task whose main service waits for one that fails."""
    services = {
        "broken": shell("exit 3", restart="no"),
        "main": look(**after(broken="completed_successfully")),
    }
    operator.apply(
        namespace, *source("broken", cpu=json.dumps({"services": services})), task("broken", "broken")
    )
    yield "broken"
    operator.kubectl("-n", namespace, "delete", "ogt", "broken", "--wait=false")


def test_what_waits_for_a_failure_never_starts_and_the_task_says_why(
    operator: Cluster, namespace: str, broken: str
) -> None:
    told = operator.wait_reason(TASKS, namespace, broken, "DependencyFailed", timeout=60)
    assert told["message"] == "main never starts: it waits for broken, which failed: exit code 3 (Error)"
    found = operator.task(namespace, broken)
    assert not {"Failed", "Completed"} & reasons(found), describe(found)
    (pod,) = operator.pods(namespace, found, "main")
    assert "nodeName" not in pod["spec"]

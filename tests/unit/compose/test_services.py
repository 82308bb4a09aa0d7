"""What each key of a service becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opengpu_operator.compose.containers import escape
from tests.support.compose import errors, one, reasons, service, translate


@pytest.mark.parametrize(
    ("body", "command", "args"),
    [
        ("command: serve --port 80", None, ["serve", "--port", "80"]),
        ("command: [a b, 'c']", None, ["a b", "c"]),
        ("entrypoint: sh\ncommand: -c 'a && b'", ["sh"], ["-c", "a && b"]),
        ("entrypoint: [python, -m, x]", ["python", "-m", "x"], None),
        ("entrypoint: []\ncommand: [x, y]", ["x", "y"], None),
        ("entrypoint: ''\ncommand: x", ["x"], None),
        ("entrypoint:\ncommand:", None, None),
        ("command: ['$$(date)', '$$HOME', '$$$$', '$${X}']", None, ["$$(date)", "$HOME", "$$$", "${X}"]),
    ],
)
def test_commands_are_kept_word_for_word(
    body: str, command: list[str] | None, args: list[str] | None
) -> None:
    container = service(body).container
    assert (container.get("command"), container.get("args")) == (command, args)


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("$(A)", "$$(A)"),
        ("$$(A)", "$$$$(A)"),
        ("$A", "$A"),
        ("a$", "a$"),
        ("$$", "$$$"),
        ("$é", "$$é"),
        ("$$é", "$$$$é"),
    ],
)
def test_escaping_for_kubernetes(value: str, escaped: str) -> None:
    assert escape(value) == escaped


@pytest.mark.parametrize(
    ("body", "reason"),
    [("command: a && b", "CommandCut"), ("command: []", "CannotClear"), ("entrypoint: []", "CannotClear")],
)
def test_findings_about_commands(body: str, reason: str) -> None:
    assert reasons(translate(one(body))) == {reason}


def test_environment() -> None:
    body = """
    environment:
      - PLAIN=a=b
      - EMPTY=
      - CALLBACK_URL
      - MISSING
      - NVIDIA_VISIBLE_DEVICES=all
      - AMD_VISIBLE_DEVICES=0
      - LD_PRELOAD=./evil.so
      - LD_LIBRARY_PATH=/usr/local/lib:lib
      - CUDA_VISIBLE_DEVICES=0
      - HIP_VISIBLE_DEVICES=1
      - bad name=x
      - DOLLARS=$$(X) $$Y
    """
    translation = translate(one(body))
    (app,) = translation.services
    assert {entry["name"]: entry["value"] for entry in app.container["env"]} == {
        "PLAIN": "a=b",
        "EMPTY": "",
        "CALLBACK_URL": "http://127.0.0.1:20000",
        "CUDA_VISIBLE_DEVICES": "0",
        "HIP_VISIBLE_DEVICES": "1",
        "DOLLARS": "$$(X) $Y",
    }
    found = {(entry.reason, entry.line) for entry in translation.findings}
    assert found == {
        *(
            ("VariableUnset", 8),
            ("EnvStripped", 9),
            ("EnvStripped", 10),
            ("EnvStripped", 11),
            ("EnvStripped", 12),
        ),
        ("EnvNameInvalid", 15),
    }


def test_environment_as_a_mapping() -> None:
    container = service(
        "environment: {A: 1, B: true, C: 1.5, D: null, LD_LIBRARY_PATH: '/a:/b', E: no}"
    ).container
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    assert values == {"A": "1", "B": "true", "C": "1.5", "LD_LIBRARY_PATH": "/a:/b", "E": "no"}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("/a:${UNSET}", "/a"),
        ("$$LD_LIBRARY_PATH:/a::/b", "/a:/b"),
        ("${UNSET}", ""),
        ("/process:/devel", "/process:/devel"),
        *((value, None) for value in ("lib", "/a:lib", "/a;lib", "/a:../b", "/a;", ".", ";")),
        *(
            (value, None)
            for value in ("/proc/self/cwd/x", "/a/../proc/1/root", "//proc/self/cwd", "/dev/fd/9", "/proc")
        ),
    ],
)
def test_where_libraries_are_searched(written: str, kept: str | None) -> None:
    container = service(f"environment: ['LD_LIBRARY_PATH={written}']").container
    assert [entry["value"] for entry in container.get("env", [])] == ([] if kept is None else [kept])


def test_variables_of_the_file_are_the_only_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "secret")
    translation = translate(
        one("environment: ['A=${PLANTED}', PLANTED, 'B=${PLANTED:-default}']\ncommand: ['$PLANTED']"),
    )
    assert "secret" not in translation.model_dump_json()
    values = {entry["name"]: entry["value"] for entry in translation.services[0].container["env"]}
    assert values == {"A": "", "B": "default"}
    assert reasons(translation) == {"VariableUnset"}
    assert errors(one("command: ['${PLANTED:?needed}']")) == {"VariableRequired"}


@pytest.mark.parametrize(
    ("top", "name"),
    [
        ("", "opengpu"),
        ("name: mine", "mine"),
        ("name: my-${PORT}", "my-5555"),
        ("name: Not a name", "opengpu"),
    ],
)
def test_the_name_of_the_project_is_a_variable(top: str, name: str) -> None:
    body = "environment: {A: '${COMPOSE_PROJECT_NAME}', COMPOSE_PROJECT_NAME: }"
    translation = translate(one(body, top=top))
    env = {entry["name"]: entry["value"] for entry in translation.services[0].container["env"]}
    assert env == {"A": name, "COMPOSE_PROJECT_NAME": name}
    assert "VariableUnset" not in reasons(translation)


@pytest.mark.parametrize(
    ("check", "probe"),
    [
        (
            "{test: [CMD, curl, -f, 'http://localhost']}",
            {"command": ["curl", "-f", "http://localhost"], "period": 30, "timeout": 30, "failures": 3},
        ),
        (
            "{test: 'curl \"x || exit 1', interval: 1m30s, timeout: 500ms, retries: 5, start_period: 1h}",
            {"command": ["/bin/sh", "-c", 'curl "x || exit 1'], "period": 90, "timeout": 1, "failures": 5},
        ),
        (
            "{test: [CMD-SHELL, 'pg_isready -U $${USER}'], interval: 10s}",
            {
                "command": ["/bin/sh", "-c", "pg_isready -U ${USER}"],
                "period": 10,
                "timeout": 30,
                "failures": 3,
            },
        ),
        (
            "{test: [CMD, x], interval: 0s, retries: 0, start_period: 60s, start_interval: 2s}",
            {"command": ["x"], "period": 2, "timeout": 30, "failures": 45},
        ),
        (
            "{test: [CMD, x], interval: 10s, retries: 2, start_period: 60s, start_interval: 3s}",
            {"command": ["x"], "period": 3, "timeout": 30, "failures": 7},
        ),
        (
            "{test: [CMD, x], start_interval: 2s}",
            {"command": ["x"], "period": 30, "timeout": 30, "failures": 3},
        ),
        ("{test: [NONE]}", None),
        ("{test: []}", None),
        ("{disable: true, test: [CMD, x]}", None),
        ("{interval: 5s}", None),
    ],
)
def test_health_checks_are_readiness(check: str, probe: dict[str, Any] | None) -> None:
    container = service(f"healthcheck: {check}").container
    assert not container.keys() & {"livenessProbe", "startupProbe"}
    found = container.get("readinessProbe")
    assert found == (
        None
        if probe is None
        else {
            "exec": {"command": probe["command"]},
            "periodSeconds": probe["period"],
            "timeoutSeconds": probe["timeout"],
            "failureThreshold": probe["failures"],
            "successThreshold": 1,
        }
    )


def test_a_check_of_an_unknown_sort() -> None:
    assert errors(one("healthcheck: {test: [curl, x]}")) == {"BadValue"}
    assert reasons(translate(one("healthcheck: {interval: 5s}"))) == {"HealthcheckWithoutTest"}


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ("user: '1000:1001'", {"runAsUser": 1000, "runAsGroup": 1001}),
        ("user: '1000'", {"runAsUser": 1000}),
        ("user: root", {"runAsUser": 0}),
        ("user: nginx:nginx", None),
        ("user: nginx:101", {"runAsGroup": 101}),
        ("user: ':1000'", {"runAsGroup": 1000}),
        ("user: '${UID}:${GID}'", None),
        ("read_only: true", {"readOnlyRootFilesystem": True}),
        (
            "cap_add: [net_bind_service, SYS_PTRACE, sys_nice]",
            {"capabilities": {"add": ["NET_BIND_SERVICE"]}},
        ),
        ("cap_drop: [ALL]\ncap_add: [CAP_CHOWN]", {"capabilities": {"add": ["CHOWN"], "drop": ["ALL"]}}),
    ],
)
def test_security_context(body: str, context: dict[str, Any] | None) -> None:
    assert service(body).container.get("securityContext") == context


def test_restricted() -> None:
    translation = translate(one("user: root\ncap_add: [CHOWN, NET_BIND_SERVICE]"), restricted=True)
    assert translation.services[0].container["securityContext"] == {
        "capabilities": {"add": ["NET_BIND_SERVICE"]}
    }
    assert reasons(translation) == {"UserNameIgnored", "CapabilityDropped"}


@pytest.mark.parametrize(
    ("body", "resources"),
    [
        ("mem_limit: 1g\ncpus: 0.5", {"limits": {"cpu": "500m", "memory": "1073741824"}}),
        ("mem_reservation: 64m", {"requests": {"memory": "67108864"}}),
        (
            "deploy: {resources: {limits: {cpus: '1.5', memory: 2G}, reservations: {cpus: 0.25, memory: 100M}}}",
            {
                "limits": {"cpu": "1500m", "memory": "2147483648"},
                "requests": {"cpu": "250m", "memory": "104857600"},
            },
        ),
        (
            "deploy: {resources: {limits: {memory: 1m}, reservations: {memory: 2m}}}",
            {"limits": {"memory": "1048576"}, "requests": {"memory": "1048576"}},
        ),
        ("cpus: 0.0001", {"limits": {"cpu": "1m"}}),
        ("cpus: 1\ndeploy: {resources: {limits: {cpus: '1.0'}}}", {"limits": {"cpu": "1000m"}}),
        ("mem_limit: 0", None),
    ],
)
def test_resources(body: str, resources: dict[str, Any] | None) -> None:
    assert service(body).container.get("resources") == resources


@pytest.mark.parametrize(
    ("body", "restart", "retries"),
    [
        ("tty: false", "unset", None),
        *((f"restart: {written}", "no", None) for written in ("no", "'no'", "'false'")),
        *((f"restart: {written}", "always", None) for written in ("always", "unless-stopped")),
        ("restart: on-failure", "on-failure", None),
        ("restart: on-failure:3", "on-failure", 3),
        *((f"deploy: {{restart_policy: {{condition: {word}}}}}", "no", None) for word in ("none", "no")),
        *(
            (f"deploy: {{restart_policy: {{condition: {word}}}}}", "always", None)
            for word in ("always", "unless-stopped", "''")
        ),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 4}}", "on-failure", 4),
        ("restart: no\ndeploy: {restart_policy: {condition: any}}", "always", None),
        ("deploy: {mode: replicated-job}", "no", None),
    ],
)
def test_restart(body: str, restart: str, retries: int | None) -> None:
    app = service(body)
    assert (app.restart.value, app.max_retries) == (restart, retries)


@pytest.mark.parametrize(
    "body",
    [
        "restart: sometimes",
        "restart: on-failure:x",
        "deploy: {restart_policy: {condition: x}}",
        "scale: -1",
        "deploy: {replicas: 101}",
        "scale: 2\ndeploy: {replicas: 3}",
        "cpus: 2\ndeploy: {resources: {limits: {cpus: 1}}}",
        "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
        "mem_reservation: 1g\ndeploy: {resources: {reservations: {memory: 2g}}}",
    ],
)
def test_bad_values(body: str) -> None:
    assert errors(one(body)) == {"BadValue"}


def test_replicas() -> None:
    assert service("deploy: {replicas: 3}").replicas == 3
    assert service("scale: '2'").replicas == 2
    assert service("deploy: {replicas: 0}").replicas == 0
    assert service("scale: 2\ndeploy: {replicas: 2}").replicas == 2


@pytest.mark.parametrize(("written", "seconds"), [("500ms", 1), ("0s", 1), ("1m0.1s", 61)])
def test_time_to_stop_is_rounded_up(written: str, seconds: int) -> None:
    assert service(f"stop_grace_period: {written}").pod["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize(
    ("platform", "architecture"),
    [("linux/s390x", "s390x"), ("linux/ppc64le", "ppc64le"), ("riscv64", "riscv64"), ("linux/386", "386")],
)
def test_architectures(platform: str, architecture: str) -> None:
    assert service(f"platform: {platform}").pod["nodeSelector"] == {"kubernetes.io/arch": architecture}


def test_the_pod() -> None:
    app = service(
        """
        stop_grace_period: 1m30s
        group_add: [video, "991", 44, "44"]
        sysctls: [net.ipv4.tcp_syncookies=0, net.ipv4.ip_forward=1]
        platform: linux/arm64/v8
        extra_hosts: ["db.example:10.1.2.3", "six=[::1]", "host.docker.internal:host-gateway"]
        working_dir: /srv
        stdin_open: true
        tty: true
        """
    )
    assert app.pod == {
        "terminationGracePeriodSeconds": 90,
        "securityContext": {
            "supplementalGroups": [991, 44],
            "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "0"}],
        },
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["db.example"]}, {"ip": "::1", "hostnames": ["six"]}],
    }
    assert (app.container["workingDir"], app.container["stdin"], app.container["tty"]) == ("/srv", True, True)


@pytest.mark.parametrize(
    ("devices", "reported"),
    [("devices: [/dev/kfd, /dev/dri]", {"staff"}), ("gpus: all", {"staff", "video", "render"})],
)
def test_groups_of_gpus_are_the_clusters_business(devices: str, reported: set[str]) -> None:
    translation = translate(one(f"group_add: [video, render, staff, 44]\n{devices}"))
    assert translation.service("app").pod["securityContext"] == {"supplementalGroups": [44]}
    said = [item.message for item in translation.findings if item.reason == "GroupNameIgnored"]
    assert {message.split()[0] for message in said} == reported


def test_labels_of_nodes_that_the_clusters_owner_allows() -> None:
    constraints = [
        "node.labels.example.com/tier == fast",
        "node.labels.zone==a",
        "node.labels.disk == ssd",
        "node.labels.zone != b",
        "zone == c",
        "node.labels.zone == a b",
        "node.role == manager",
    ]
    file = one(f"deploy: {{placement: {{constraints: {json.dumps(constraints)}}}}}")
    translation = translate(file, placement_labels=["example.com/tier", "zone"])
    assert translation.service("app").pod["nodeSelector"] == {"example.com/tier": "fast", "zone": "a"}
    ignored = [item.path for item in translation.findings if item.reason == "PlacementIgnored"]
    assert ignored == [f"services.app.deploy.placement.constraints[{index}]" for index in range(2, 7)]


@pytest.mark.parametrize(("written", "count"), [("3", 3), ("0", 0)])
def test_how_many_are_updated_at_once(written: str, count: int) -> None:
    app = service(f"deploy: {{update_config: {{parallelism: {written}, order: start-first}}}}")
    assert app.update_parallelism == count
    assert service("").update_parallelism == 1
    assert errors(one("deploy: {update_config: {parallelism: -1}}")) == {"BadValue"}


@pytest.mark.parametrize(("written", "seconds"), [("0s", 1), ("300ms", 1), ("1500ms", 2), ("1m", 60)])
def test_the_time_to_stop_is_never_less_than_asked_for_nor_zero(written: str, seconds: int) -> None:
    assert service(f"stop_grace_period: {written}").pod == {"terminationGracePeriodSeconds": seconds}


def test_ports() -> None:
    app = service(
        """
        ports: ["8080:80", "127.0.0.1:9000:9000", "53:53/udp", "53:53", "[::1]:1:1", {target: 81, published: "8081"}]
        expose: [80, "7000-7001/udp"]
        """
    )
    assert [(port.container, port.protocol, port.published, port.exposed_only) for port in app.ports] == [
        *(
            (80, "TCP", 8080, False),
            (9000, "TCP", 9000, True),
            (53, "UDP", 53, False),
            (53, "TCP", 53, False),
        ),
        *(
            (1, "TCP", 1, True),
            (81, "TCP", 8081, False),
            (7000, "UDP", None, True),
            (7001, "UDP", None, True),
        ),
    ]
    assert {(entry["containerPort"], entry["protocol"]) for entry in app.container["ports"]} == {
        (port.container, port.protocol) for port in app.ports
    }


def test_a_url_stands_for_one_port() -> None:
    translation = translate(
        """
        services:
          a: {image: x, ports: ["9090:9090"]}
          b: {image: x, ports: ["9090:9090"]}
          c: {image: x, ports: ["80"]}
          d: {image: x, ports: ["8080:80"]}
          e: {image: x, ports: ["8081:81"]}
          f: {image: x, ports: ["81"]}
        """
    )
    routed = {entry.name for entry in translation.services for port in entry.ports if not port.exposed_only}
    assert routed == {"a", "d", "e"}
    assert {(finding.reason, finding.path) for finding in translation.findings} == {
        ("PortUnrouted", f"services.{name}.ports[0]") for name in ("b", "c", "f")
    }


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("50000-60000:50000-60000/udp", "10001 ports from 50000 on (udp)"),
        ("8000-8256", "257 ports from 8000 on (tcp)"),
        ("3868:3868/sctp", "port 3868 (sctp)"),
    ],
)
def test_ports_that_are_not_declared(entry: str, what: str) -> None:
    translation = translate(one(f"ports: ['80:80', '127.0.0.1:81:81', '{entry}']"))
    (app,) = translation.services
    assert [port.container for port in app.ports] == [80, 81]
    found = {(finding.reason, finding.path): finding.message for finding in translation.findings}
    assert found.keys() == {
        ("PortUndeclared", "services.app.ports[2]"),
        ("LoopbackPort", "services.app.ports[1]"),
    }
    assert what in found["PortUndeclared", "services.app.ports[2]"]


def test_the_worker() -> None:
    translation = translate(
        """
        services:
          other: {image: x, expose: [5555]}
          udp: {image: x, ports: ["5555/udp"]}
          first: {image: x, ports: ["${PORT}:5555"]}
          second: {image: x, ports: ["5556:5555"]}
        """
    )
    assert translation.worker == "first"
    assert "SeveralWorkers" in reasons(translation)
    assert translate("services: {app: {image: x}}").worker is None


def test_dependencies() -> None:
    translation = translate(
        """
        services:
          app:
            image: x
            depends_on:
              db: {condition: service_healthy}
              job: {condition: service_completed_successfully, required: false}
              cache: {}
              tool: {condition: service_started}
              gone: {condition: service_started, required: false}
            links: ["db:database", other]
          db: {image: x}
          job: {image: x, restart: no}
          cache: {image: x}
          other: {image: x, depends_on: [cache]}
          tool: {image: x, profiles: [tools]}
          gone: {image: x, profiles: [tools]}
        """.replace(
            "cache: {}\n              tool", "cache: {condition: service_started}\n              tool"
        )
    )
    app = translation.service("app")
    assert [(entry.service, entry.until.value, entry.required) for entry in app.depends_on] == [
        ("db", "service_healthy", True),
        ("job", "service_completed_successfully", False),
        ("cache", "service_started", True),
        ("other", "service_started", True),
    ]
    assert translation.service("db").aliases == ["database"]
    assert reasons(translation) == {"HealthyWithoutCheck", "DependencyInactive", "ProfileInactive"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services: {a: {image: x, depends_on: [a]}}", "DependencyCycle"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: x, links: [a]}}", "DependencyCycle"),
        ("services: {a: {image: x, depends_on: [b]}}", "UndefinedReference"),
        ("services: {a: {image: x, depends_on: {b: {condition: ready}}}, b: {image: x}}", "BadValue"),
        ("services: {a: {image: x, network_mode: 'service:b'}}", "UndefinedReference"),
        ("services: {a: {image: x, networks: [n]}}", "UndefinedReference"),
        ("services: {a: {image: x, volumes: ['v:/v']}}", "UndefinedReference"),
        ("services: {a: {image: x, configs: [c], secrets: [s]}}", "UndefinedReference"),
        ("services: {a: {image: x, extends: b}}", "UndefinedReference"),
        ("services: {a: {image: x, extends: b}, b: {image: x, extends: a}}", "ExtendsCycle"),
        (
            (
                "services: {a: {image: x, depends_on: {c: {condition: service_healthy}}}, "
                "b: {image: x, network_mode: 'service:c'}, c: {image: x}, "
                "d: {image: x, network_mode: 'service:a', depends_on: {b: {condition: service_healthy}}}}"
            ),
            "",
        ),
        (
            (
                "services: {a: {image: x}, b: {image: x, network_mode: 'service:a', "
                "depends_on: {c: {condition: service_healthy}}}, "
                "c: {image: x, depends_on: {a: {condition: service_healthy}}}}"
            ),
            "DependencyCycle",
        ),
        ("services: {}", "NoServices"),
        ("services: {a: {image: x, profiles: [p]}}", "NoServices"),
        ("services:", "WrongType"),
        ("services: {a: }", "WrongType"),
        ("services: {'a b': {image: x}}", "BadValue"),
    ],
)
def test_what_does_not_fit_together(text: str, reason: str) -> None:
    assert reasons(translate(text), "error") == ({reason} if reason else set())


def test_profiles() -> None:
    text = """
    services:
      always: {image: x}
      empty: {image: x, profiles: ["", gpu]}
      gpu: {image: x, profiles: [gpu]}
      cpu: {image: x, profiles: [cpu]}
    """
    assert [entry.name for entry in translate(text).services] == ["always", "empty"]
    assert [entry.name for entry in translate(text, profiles=["gpu"]).services] == ["always", "empty", "gpu"]
    assert len(translate(text, profiles=["*"]).services) == 4


def test_extends_in_the_same_file() -> None:
    translation = translate(
        """
        x-base: &base {restart: always}
        services:
          base:
            <<: *base
            image: x
            command: [a]
            environment: {A: "1", B: "1"}
            ports: ["80"]
            volumes: ["./a:/a", "./b:/b"]
            deploy: {resources: {limits: {cpus: 1, memory: 1g}}}
          app:
            extends: {service: base}
            command: [b]
            environment: [B=2, C=3]
            ports: ["80", "81"]
            volumes: ["./c:/b"]
            deploy: {resources: {limits: {cpus: 2}}}
        """
    )
    app = translation.service("app")
    assert app.container["image"] == "x"
    assert app.container["args"] == ["b"]
    assert {entry["name"]: entry["value"] for entry in app.container["env"]} == {"A": "1", "B": "2", "C": "3"}
    assert [port.container for port in app.ports] == [80, 81]
    assert {mount.path: translation.volumes[mount.volume].label for mount in app.mounts} == {
        "/a": "./a",
        "/b": "./c",
    }
    assert app.container["resources"]["limits"] == {"cpu": "2000m", "memory": "1073741824"}
    assert app.restart.value == "always"


def test_what_is_taken_or_not_there_is_found() -> None:
    translation = translate(
        """
        services:
          app:
            image: x
            container_name: APP
            networks: {default: {aliases: [db, same, same_one]}}
            links: [tool]
            volumes_from: [tool]
          db: {image: x, networks: {default: {aliases: [same, same_one]}}}
          tool: {image: x, profiles: [tools]}
        """
    )
    assert [entry.aliases for entry in translation.services] == [["db", "same"], ["same"]]
    found = {(entry.reason, entry.path) for entry in translation.findings}
    assert found == {
        ("AliasNotPossible", "services.app.networks.default.aliases"),
        ("AliasNotPossible", "services.db.networks.default.aliases"),
        ("DependencyInactive", "services.app.links"),
        ("DependencyInactive", "services.app.volumes_from"),
        ("ProfileInactive", "services.tool.profiles"),
    }


BASE = """
  base:
    image: x
    command: [a]
    ports: ["80"]
    cap_add: [CHOWN]
    environment: {A: "1", B: "1"}
    depends_on: {db: {condition: service_completed_successfully}}
    extra_hosts: {one: 192.0.2.1}
    networks: {default: {aliases: [one]}}
    tmpfs: /one
    healthcheck: {test: [CMD, a], retries: 7}
    deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}
  db: {image: y}
"""


@pytest.mark.parametrize(
    ("own", "part"),
    [
        ("ports: ['80', '81']", {"ports": [80, 81]}),
        ("ports: !override ['81']", {"ports": [81]}),
        ("ports: !reset []", {"ports": []}),
        ("ports: ", {"ports": [80]}),
        ("command: ", {"args": []}),
        ("environment: !override [B=2]", {"env": {"B": "2"}}),
        ("environment: {A: !reset null, C: '3'}", {"env": {"B": "1", "C": "3"}}),
        ("cap_add: [CHOWN, KILL]", {"capabilities": ["CHOWN", "KILL"]}),
        ("depends_on: {db: {required: false}}", {"waits": [("db", "service_completed_successfully", False)]}),
        ("depends_on: [db]", {"waits": [("db", "service_started", True)]}),
        ("extra_hosts: ['two:192.0.2.2']", {"hosts": ["one", "two"]}),
        ("networks: {default: {aliases: [two]}}", {"aliases": ["one", "two"]}),
        ("networks: [default]", {"aliases": ["one"]}),
        ("tmpfs: [/two]", {"memory": ["/one", "/two"]}),
        ("healthcheck: {test: [CMD, b]}", {"probe": (["b"], 7)}),
        ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 2}]}}}", {"gpus": 3}),
    ],
)
def test_extends_merges_as_compose_does(own: str, part: dict[str, Any]) -> None:
    translation = translate(f"services:\n  app: {{extends: base, {own}}}{BASE}")
    assert not translation.refused, translation.findings
    app = translation.service("app")
    assert app.gpu is not None
    probe = app.container["readinessProbe"]
    found = {
        "ports": [port.container for port in app.ports],
        "args": app.container.get("args", []),
        "env": {entry["name"]: entry["value"] for entry in app.container["env"]},
        "capabilities": app.container["securityContext"]["capabilities"]["add"],
        "waits": [(entry.service, entry.until.value, entry.required) for entry in app.depends_on],
        "hosts": [name for entry in app.pod["hostAliases"] for name in entry["hostnames"]],
        "aliases": app.aliases,
        "memory": [mount["mountPath"] for mount in app.container["volumeMounts"]],
        "probe": (probe["exec"]["command"], probe["failureThreshold"]),
        "gpus": app.gpu.count,
    }
    assert found == found | part


def test_pods_that_are_shared() -> None:
    translation = translate(
        """
        services:
          vpn: {image: x, ports: ["8080:80"]}
          app: {image: x, network_mode: "service:vpn", depends_on: [vpn]}
          tool: {image: x, network_mode: "service:app"}
          user: {image: x, environment: ["URL=http://host.docker.internal:8080"]}
        """
    )
    assert [entry.joins for entry in translation.services] == [None, "vpn", "vpn", None]
    assert translation.service("app").depends_on == []
    assert translation.service("user").container["env"][0]["value"] == "http://vpn:80"


def test_what_sharing_a_pod_takes_away_is_said() -> None:
    translation = translate(
        """
        services:
          vpn: {image: x, restart: always, healthcheck: {test: t}}
          app: {image: x, network_mode: "service:vpn", restart: no, depends_on: {vpn: {condition: service_healthy}}}
          same: {image: x, network_mode: "service:vpn", restart: unless-stopped, depends_on: [vpn]}
          unset: {image: x, network_mode: "service:vpn"}
        """
    )
    assert {(entry.reason, entry.path) for entry in translation.findings} == {
        ("DependencyInSamePod", "services.app.depends_on.vpn"),
        ("KeyIgnored", "services.app.restart"),
    }
    assert [entry.depends_on for entry in translation.services] == [[], [], [], []]


def test_advice_fits_what_is_left_out() -> None:
    text = one("cpu_shares: 1\ninit: true\nenvironment: {LD_PRELOAD: /x.so, NVIDIA_VISIBLE_DEVICES: all}")
    advice = {entry.path.rpartition(".")[2]: entry.advice for entry in translate(text).findings}
    assert advice.keys() == {"cpu_shares", "init", "LD_PRELOAD", "NVIDIA_VISIBLE_DEVICES"}
    assert "Nothing" in advice["init"]
    assert "Nothing" not in advice["cpu_shares"]
    assert "GPU" in advice["NVIDIA_VISIBLE_DEVICES"]
    assert "GPU" not in advice["LD_PRELOAD"]


def test_ignored_keys_are_named() -> None:
    translation = translate(
        one(
            "logging: {driver: x}\nulimits: {nofile: 1}\nlabels: [kompose.service.type=nodeport]\ninit: true",
            top="version: '3'",
        )
    )
    found = {entry.path: entry.severity.value for entry in translation.findings}
    assert found == {
        "version": "info",
        "services.app.logging": "info",
        "services.app.ulimits": "warning",
        "services.app.labels": "info",
        "services.app.init": "info",
    }
    assert "nodeport" not in translation.model_dump_json()


@pytest.mark.parametrize(
    ("body", "reason", "said"),
    [
        ("cap_add: [NET_ADMIN]", "CapabilityRefused", "Remove the capability."),
        ("cap_add: [SYS_NICE]", "CapabilityDropped", "works without"),
        ("ipc: host", "ShmSized", "Set shm_size"),
        ("ipc: host\nshm_size: 1g", "ShmSized", "Nothing needs to be done."),
        ("volumes: ['/dev/shm:/dev/shm']\nshm_size: 1g", "ShmSized", "Nothing needs to be done."),
        ("deploy: {mode: global}", "PlacementIgnored", "deploy.replicas"),
        ("platform: windows/amd64", "PlacementIgnored", "Linux"),
        ("deploy: {placement: {constraints: [node.role==manager]}}", "PlacementIgnored", "the constraint"),
    ],
)
def test_one_finding_says_what_to_do(body: str, reason: str, said: str) -> None:
    (finding,) = translate(one(body)).findings
    assert finding.reason == reason
    assert said in finding.advice


def test_the_size_of_shared_memory_counts_for_a_mount_too() -> None:
    app = service("volumes: ['/dev/shm:/dev/shm']\nshm_size: 64m")
    assert "67108864" in app.model_dump_json()


def test_what_is_cut_is_shown_without_its_line_break() -> None:
    (finding,) = translate(one("command: |\n  x && y")).findings
    assert finding.message == "Compose drops '&& y': it runs no shell."


@pytest.mark.parametrize(
    ("hostname", "aliases", "found"),
    [
        ("app", [], []),
        ("APP", [], []),
        ("Web", ["web"], [("KeyIgnored", "info")]),
        ("web.example.org", [], [("AliasNotPossible", "warning")]),
        ("my_web", [], [("AliasNotPossible", "warning")]),
        ("db", [], [("AliasNotPossible", "warning")]),
        ("store", [], [("AliasNotPossible", "warning")]),
    ],
)
def test_host_names_are_looked_up(hostname: str, aliases: list[str], found: list[tuple[str, str]]) -> None:
    text = f"services: {{app: {{image: x, hostname: {hostname}}}, db: {{image: y, container_name: store}}}}"
    translation = translate(text)
    assert next(entry for entry in translation.services if entry.name == "app").aliases == aliases
    assert [(entry.reason, entry.severity.value) for entry in translation.findings] == found


def test_a_host_name_is_that_of_one_service() -> None:
    translation = translate("services: {a: {image: x, hostname: web}, b: {image: y, hostname: web}}")
    assert [entry.aliases for entry in translation.services] == [["web"], []]
    assert [entry.reason for entry in translation.findings] == ["KeyIgnored", "AliasNotPossible"]

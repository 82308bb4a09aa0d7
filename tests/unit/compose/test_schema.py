"""What the specification's schema doesn't allow is said in words, all of it at once; what Compose takes is taken."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from opengpu_operator.compose import schema
from opengpu_operator.compose.findings import MAX_FINDINGS, Report
from tests.support.compose import one, reasons, service, translate


def said(body: str, *, top: str = "") -> list[tuple[str, str, str]]:
    """Return reason, place in ``app`` and message of everything that is wrong."""
    return [
        (finding.reason, finding.path.removeprefix("services.app."), finding.message)
        for finding in translate(one(body, top=top)).findings
        if finding.severity == "error"
    ]


@pytest.mark.parametrize(
    ("body", "reason", "path", "message"),
    [
        ("imge: x", "UnknownKey", "imge", "Compose doesn't know the key imge here."),
        (
            "healthcheck: {tets: x, test: x}",
            "UnknownKey",
            "healthcheck.tets",
            "Compose doesn't know the key tets here.",
        ),
        ("user: true", "WrongType", "user", "user has to be a string, not true."),
        (
            "stop_signal: .inf",
            "WrongType",
            "stop_signal",
            "stop_signal has to be a string, not the number +Inf.",
        ),
        ("tty: [x]", "WrongType", "tty", "tty has to be true, false or a string, not a list."),
        ("cpus: .inf", "WrongType", "cpus", "cpus has to be a number or a string, not the number +Inf."),
        (
            "command: [sleep, ~]",
            "WrongType",
            "command[1]",
            "An entry of command is empty; it has to be a string.",
        ),
        # Of several forms, the one that the value has is meant.
        (
            "environment: {A: {b: c}}",
            "WrongType",
            "environment.A",
            "A has to be true, false, a number or a string, not a mapping.",
        ),
        ("build: {contxt: .}", "UnknownKey", "build.contxt", "Compose doesn't know the key contxt here."),
        (
            "ports: [80, {target: {}}]",
            "WrongType",
            "ports[1].target",
            "target has to be a whole number or a string, not a mapping.",
        ),
        (
            "ports: [[80]]",
            "WrongType",
            "ports[0]",
            "An entry of ports has to be a number, a string or a mapping, not a list.",
        ),
        ("env_file: [{required: true}]", "MissingKey", "env_file[0]", "The key path is missing."),
        ("depends_on: {db: {}}", "MissingKey", "depends_on.db", "The key condition is missing."),
        ("cgroup: other", "BadValue", "cgroup", "cgroup can't be 'other': host, private is expected."),
        ("gpus: some", "BadValue", "gpus", "gpus can't be 'some': all is expected."),
        (
            "pull_policy: often",
            "BadValue",
            "pull_policy",
            (
                "pull_policy can't be 'often': always, never, missing, if_not_present, build, refresh, daily, weekly "
                "or every_12h is expected."
            ),
        ),
        (
            "container_name: '-'",
            "BadValue",
            "container_name",
            "container_name can't be '-': letters, digits, dots, hyphens and underscores are expected.",
        ),
        (
            "oom_score_adj: 2000",
            "BadValue",
            "oom_score_adj",
            "oom_score_adj can't be '2000': 1000 or less is expected.",
        ),
        ("cpu_count: -1", "BadValue", "cpu_count", "cpu_count can't be '-1': 0 or more is expected."),
        (
            "depends_on: {'a b': {condition: service_started}}",
            "BadValue",
            "depends_on.a b",
            "'a b' is no name: letters, digits, dots, hyphens and underscores are allowed.",
        ),
    ],
)
def test_words(body: str, reason: str, path: str, message: str) -> None:
    assert said(body) == [(reason, path, message)]


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ("stop_signal: .inf", "Put the value in quotes."),
        ("stop_grace_period: 10", "Add the unit: 10s."),
        ("healthcheck: {test: x, interval: 10}", "Add the unit: 10s."),
        ("gpus: 0.5", "Write all, or a list: [{count: 2}]."),
        ("command: [~]", "Give it a value, or remove it."),
    ],
)
def test_advice(body: str, advice: str) -> None:
    assert [finding.advice for finding in translate(one(body)).findings] == [advice]


@pytest.mark.parametrize(
    ("body", "strict"),
    [
        ("user: 1000", "user: '1000'"),
        ("restart: false", "restart: 'no'"),
        ("command: [sleep, 10, 0.5]", "command: [sleep, '10', '0.5']"),
        ("cap_drop: [ALL]\ngroup_add: ['1', '2', '1']", "cap_drop: [ALL]\ngroup_add: ['1', '2']"),
        ("gpus: 2", "gpus: [{count: 2}]"),
        ("environment:\nports:\nvolumes:\ntty: true", "tty: true"),
        ("deploy: {resources: {limits: {memory: 1024}}}", "deploy: {resources: {limits: {memory: '1024'}}}"),
    ],
)
def test_what_can_only_mean_one_thing_is_read_as_that(body: str, strict: str) -> None:
    loose = translate(one(body))
    assert not loose.refused, loose.findings
    found = [finding for finding in loose.findings if finding.reason == "LooseValue"]
    assert found
    assert all(finding.severity == "warning" and finding.line and finding.path for finding in found)
    assert "LooseValue" not in reasons(translate(one(strict)))
    assert loose.services == translate(one(strict)).services


@pytest.mark.parametrize("section", ["volumes", "networks", "configs", "secrets", "version"])
def test_a_section_may_be_empty(section: str) -> None:
    assert reasons(translate(one("tty: true", top=f"{section}:"))) == {"LooseValue"}


def test_names_without_anything_are_not_left_out() -> None:
    assert reasons(translate("services: {app: {image: x}, db: }"), "error") == {"WrongType"}
    assert reasons(translate("services:"), "error") == {"WrongType"}


def test_everything_at_once_with_its_place() -> None:
    translation = translate(
        """
        version: 3.8
        services:
          app:
            image: x
            user: 0
            ports:
              - target: [80]
                publishd: 80
              - {published: 80}
            mem_limit: lots
          db:
            image: y
            tty: maybe
        volumes:
          "a b":
        """
    )
    assert [(found.reason, found.path, found.line, found.column) for found in translation.findings] == [
        ("LooseValue", "version", 2, 1),
        ("LooseValue", "services.app.user", 6, 5),
        ("WrongType", "services.app.ports[0].target", 8, 9),
        ("UnknownKey", "services.app.ports[0].publishd", 9, 9),
        ("MissingKey", "services.app.ports[1]", 10, 9),
        ("BadValue", "services.app.mem_limit", 11, 5),
        ("BadValue", "services.db.tty", 14, 5),
        ("BadValue", "volumes.a b", 16, 3),
    ]


def test_too_many_are_counted() -> None:
    report = Report()
    wrong = schema.check({"services": {"app": {"command": [1] * 9000}}}, report)
    assert len(wrong) == MAX_FINDINGS
    found = report.findings()
    assert len(found) == MAX_FINDINGS + 1
    assert found[-1].message == f"{9000 - MAX_FINDINGS} more findings are not listed."
    assert report.refused


@pytest.mark.parametrize(
    "body",
    [
        # Compose takes out what is there twice before it validates, in these lists.
        "cap_add: [CHOWN, CHOWN]",
        "environment: [A=1, A=1]",
        "ports: ['80:80', '80:80']",
        "networks: {default: {aliases: [a, a]}}",
        # It casts before it validates.
        "depends_on: {db: {condition: service_started, required: 'yes'}}",
        "privileged: 'no'",
        # Keys that mean nothing, wherever the schema has no say.
        "gpus: [{count: 1, other: x}]",
        "x-other: [1]",
        "deploy:",
        "command:",
        "networks: {default: }",
        "environment: {A: , B: 1.5, C: true}",
    ],
)
def test_what_compose_takes(body: str) -> None:
    translation = translate(f"{one(body)}  db: {{image: y}}")
    assert not translation.refused, translation.findings


def test_names_that_have_no_effect_are_no_error() -> None:
    assert said("tty: true", top="networks: {'my net': {}}") == []


@pytest.mark.parametrize(
    "own",
    [
        "environment: ",
        "ports: ",
        "deploy: {resources: }",
        "depends_on: {db: {required: false}}",
    ],
)
def test_what_extends_another_is_checked_as_a_whole(own: str) -> None:
    text = """
    services:
      app: {extends: {service: base, other: x}, OWN}
      base:
        image: x
        environment: {A: b}
        ports: ["80"]
        deploy: {resources: {limits: {cpus: 1}}}
        depends_on: [db]
      db: {image: y}
    """
    translation = translate(text.replace("OWN", own))
    assert not translation.refused, translation.findings
    app, base = translation.service("app"), translation.service("base")
    assert (app.container["env"], app.ports) == (base.container["env"], base.ports)
    assert app.container["resources"] == base.container["resources"]
    assert [entry.service for entry in app.depends_on] == ["db"]


def test_variables_are_replaced_before() -> None:
    assert service("scale: ${N:-2}\nprivileged: ${X:-off}").replicas == 2
    assert reasons(translate(one("cgroup: ${X:-none}")), "error") == {"BadValue"}


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (2**70, False),
        (-(2**200), False),
        (math.nan, True),
        (math.inf, True),
        ("\U0001f600", False),
        ("", False),
    ],
)
def test_any_value_can_be_judged(value: Any, *, wrong: bool) -> None:
    report = Report()
    schema.check({"services": {"app": {"cpus": value, "x-any": value}}}, report)
    assert report.refused == wrong


def test_merged_choices() -> None:
    node = schema.specification()["properties"]["services"]["patternProperties"]["^[a-zA-Z0-9._-]+$"]
    ports = node["properties"]["ports"]["items"]
    assert ports["type"] == ["number", "string", "object"]
    assert schema.mapping(node["properties"]["ports"]) == ports
    assert schema.mapping(node["properties"]["image"]) is None
    assert "$ref" not in json.dumps(schema.specification())


def test_names_that_look_like_numbers_are_names() -> None:
    translation = translate(
        "services: {'08': {image: x, restart: false, user: 5}, '08_': {image: y, imge: z}}"
    )
    found = [(finding.reason, finding.path) for finding in translation.findings]
    assert found == [
        ("LooseValue", "services.08.restart"),
        ("LooseValue", "services.08.user"),
        ("UnknownKey", "services.08_.imge"),
    ]
    assert reasons(translate("services: {app: {image: x, '7': y}}"), "error") == {"UnknownKey"}
    (found_key,) = translate("services: {app: {image: x, '+7': y}}").findings
    assert found_key.path == "services.app.+7"

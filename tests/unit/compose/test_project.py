"""How services that extend others are merged: as Compose does it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from opengpu_operator.compose.project import merge_service
from tests.support.compose import translate


@pytest.mark.parametrize(
    ("base", "own", "merged"),
    [
        ("command: [a]", "command: [b]", {"command": ["b"]}),
        ("command: [a]", "command:", {"command": None}),
        ("image: a", "image:", {"image": "a"}),
        (
            "healthcheck: {test: [CMD, a], retries: 1}",
            "healthcheck: {test: b}",
            {"healthcheck": {"test": "b", "retries": 1}},
        ),
        (
            "environment: {A: 1, B: 2}",
            "environment: [B=3, C]",
            {"environment": {"A": "1", "B": "3", "C": None}},
        ),
        ("environment: [A=1]", "environment:", {"environment": ["A=1"]}),
        (
            "networks: {n: {aliases: [a], priority: 1}}",
            "networks: {n: {aliases: [b]}, m: }",
            {"networks": {"n": {"aliases": ["a", "b"], "priority": 1}, "m": None}},
        ),
        ("networks: [n]", "networks: {n: {aliases: [a]}}", {"networks": {"n": {"aliases": ["a"]}}}),
        ("gpus: [{count: 1}]", "gpus: [{count: 1}]", {"gpus": [{"count": 1}, {"count": 1}]}),
        ("gpus: all", "gpus: [{count: 1}]", {"gpus": ["all", {"count": 1}]}),
        (
            "deploy: {placement: {constraints: [a==b]}}",
            "deploy: {placement: {constraints: [a==b, c==d]}}",
            {"deploy": {"placement": {"constraints": ["a==b", "c==d"]}}},
        ),
        (
            "extra_hosts: ['a:192.0.2.1']",
            "extra_hosts: {a: 192.0.2.2}",
            {"extra_hosts": ["a=192.0.2.1", "a=192.0.2.2"]},
        ),
        ("dns: a", "dns: [a, b]", {"dns": ["a", "b"]}),
        ("volumes: ['a:/x', 'b:/y']", "volumes: ['c:/x:ro']", {"volumes": ["c:/x:ro", "b:/y"]}),
        (
            "configs: [a, b]",
            "configs: [{source: c, target: a}]",
            {"configs": [{"source": "c", "target": "a"}, "b"]},
        ),
    ],
)
def test_keys_that_are_merged(base: str, own: str, merged: dict[str, Any]) -> None:
    assert merge_service(yaml.safe_load(base), yaml.safe_load(own)) == merged


def test_what_is_reset_is_not_taken_over() -> None:
    translation = translate(
        """
        services:
          base:
            image: x
            command: [a]
            ports: ["80", "81"]
            environment: {A: "1", B: "1"}
            deploy: {replicas: 2, resources: {limits: {cpus: 1}}}
          child: {extends: base, command: !reset null, deploy: {resources: !reset {}}}
          grandchild:
            extends: child
            ports: !override ["82"]
            environment: {A: !reset null}
        """
    )
    child, grandchild = translation.service("child"), translation.service("grandchild")
    assert "args" in translation.service("base").container
    for service in (child, grandchild):
        assert "args" not in service.container
        assert "resources" not in service.container
        assert service.replicas == 2
    assert [port.container for port in child.ports] == [80, 81]
    assert [port.container for port in grandchild.ports] == [82]
    assert [entry["name"] for entry in grandchild.container["env"]] == ["B"]

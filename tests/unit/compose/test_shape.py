"""What the schema can't say: values that mean nothing, and too much of everything."""

from __future__ import annotations

import pytest

from opengpu_operator.compose import shape
from tests.support.compose import one, translate


@pytest.mark.parametrize(
    ("body", "reason", "path"),
    [
        ("mem_limit: lots", "BadValue", "mem_limit"),
        ("deploy: {resources: {limits: {cpus: lots}}}", "BadValue", "deploy.resources.limits.cpus"),
        ("tty: maybe", "BadValue", "tty"),
        ("healthcheck: {test: x, interval: soon}", "BadValue", "healthcheck.interval"),
        ("ports: ['80:x']", "BadValue", "ports[0]"),
        ("ports: [{published: 80}]", "MissingKey", "ports[0]"),
        ("expose: [x]", "BadValue", "expose[0]"),
        ("volumes: ['x:y']", "BadValue", "volumes[0]"),
        ("volumes: [{type: volume}]", "MissingKey", "volumes[0]"),
        ("configs: [{target: /x}]", "MissingKey", "configs[0]"),
        ("depends_on: {app: {condition: service_started, restart: x}}", "DependencyCycle", ""),
        # The innermost place, once.
        (
            "volumes: [{type: bind, source: ./x, target: /x, bind: {create_host_path: maybe}}]",
            "BadValue",
            "volumes[0].bind.create_host_path",
        ),
        ("volumes: [{type: tmpfs, target: /x, tmpfs: {size: [1]}}]", "WrongType", "volumes[0].tmpfs.size"),
        ("ports: [{target: 80, protocol: [x]}]", "WrongType", "ports[0].protocol"),
        ("gpus: [{count: many}]", "BadValue", "gpus[0].count"),
    ],
)
def test_each_is_found_once(body: str, reason: str, path: str) -> None:
    found = [finding for finding in translate(one(body)).findings if finding.severity == "error"]
    assert [(entry.reason, entry.path) for entry in found] == [
        (reason, f"services.app.{path}" if path else "services.app")
    ]


def test_what_has_no_effect_is_not_read() -> None:
    assert not translate(one("pids_limit: -1\ncpu_shares: many\nmemswap_limit: lots")).refused


def test_what_is_not_wanted_is_no_loss() -> None:
    for value, severity in (("true", "warning"), ("false", "info")):
        text = one("tty: true", top=f"networks: {{n: {{external: {value}}}}}")
        found = {finding.path: finding.severity for finding in translate(text).findings}
        assert found["networks.n.external"] == severity


@pytest.mark.parametrize(("length", "refused"), [(shape.MAX_NAME, False), (shape.MAX_NAME + 1, True)])
def test_names_are_bounded(length: int, *, refused: bool) -> None:
    name = "n" * length
    assert translate(f"services: {{{name}: {{image: x}}}}").refused == refused
    assert translate(one("tty: true", top=f"volumes: {{{name}: }}")).refused == refused


def test_a_file_that_only_includes() -> None:
    found = [(entry.reason, entry.path) for entry in translate("include: [other.yaml]").findings]
    assert found == [("RemoteFile", "include")]

"""No key is dropped silently: the table knows every key of the specification, and every key in it tells something."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import opengpu_operator.compose
from opengpu_operator.compose.findings import RULES, FindingReason
from opengpu_operator.compose.keys import SERVICE, TABLES, TOP, Form, Treatment
from tests.support.compose import one, reasons, translate

PACKAGE = Path(opengpu_operator.compose.__file__).parent
#: A valid value for each form, so that every key can be given.
VALUES = {
    Form.ANY: "{}",
    Form.STRING: "x",
    Form.SCALAR: "1",
    Form.BOOLEAN: "true",
    Form.INTEGER: "1",
    Form.NUMBER: "1",
    Form.SIZE: "64m",
    Form.DURATION: "1s",
    Form.STRINGS: "[x]",
    Form.STRING_OR_STRINGS: "[/x]",
    Form.COMMAND: "[x]",
    Form.VARIABLES: "{X: y}",
    Form.HOSTS: "{x: 192.0.2.1}",
    Form.MAPPING: "{}",
    Form.LIST: "[{}]",
    Form.STRING_OR_OBJECT: ".",
    Form.ENV_FILES: "x",
}
IGNORED = sorted(key for key, entry in SERVICE.items() if entry.treatment is Treatment.IGNORED)


def test_every_reason_has_a_rule() -> None:
    assert set(RULES) == set(FindingReason)
    for rule in RULES.values():
        assert rule.meaning.endswith(".")
        assert rule.advice.endswith(".")


def test_every_reason_is_used() -> None:
    used = set()
    for path in PACKAGE.glob("*.py"):
        if path.name == "findings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "FindingReason"
            ):
                used.add(node.attr)
    own = {"TOO_MANY_FINDINGS"}
    assert used | own == {reason.name for reason in FindingReason}


def test_every_key_is_documented() -> None:
    for table in TABLES.values():
        for key, entry in table.items():
            assert entry.note.endswith("."), key
            if entry.of:
                assert entry.of in TABLES, key


@pytest.mark.parametrize("key", IGNORED)
def test_ignored_keys_tell(key: str) -> None:
    translation = translate(one(f"{key}: {VALUES[SERVICE[key].form]}"))
    assert not translation.refused, translation.findings
    assert reasons(translation) == {"KeyIgnored"}


@pytest.mark.parametrize("key", sorted(TOP))
def test_keys_at_the_top_are_known(key: str) -> None:
    translation = translate(
        f"services: {{app: {{image: x}}}}\n{key}: 1" if key != "services" else "services: 1"
    )
    assert "UnknownKey" not in reasons(translation)
    assert translation.findings


@pytest.mark.parametrize("key", sorted(SERVICE))
def test_wrong_types_are_named(key: str) -> None:
    value = "[[x]]" if SERVICE[key].form is not Form.LIST else "x"
    translation = translate(one(f"{key}: {value}") if key != "image" else "services: {app: {image: [[x]]}}")
    found = {entry.reason for entry in translation.findings if entry.path.startswith(f"services.app.{key}")}
    assert found, translation.findings


@pytest.mark.parametrize("key", ["imagee", "port", "volume", "enviroment", "scaling"])
def test_unknown_keys_are_refused(key: str) -> None:
    assert reasons(translate(one(f"{key}: x")), "error") == {"UnknownKey"}
    assert not translate(one(f"x-{key}: x", top=f"x-{key}: x")).refused


def test_the_specifications_keys_are_all_there() -> None:
    # From the Compose specification's JSON schema (definitions.service.properties).
    names = """
    annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs
    container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares
    cpus cpuset credential_spec depends_on deploy develop device_cgroup_rules devices dns dns_opt
    dns_search domainname entrypoint env_file environment expose extends external_links extra_hosts gpus
    group_add healthcheck hostname image init ipc isolation label_file labels links logging mac_address
    mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks oom_kill_disable
    oom_score_adj pid pids_limit platform ports post_start pre_stop privileged profiles provider
    pull_policy pull_refresh_after read_only restart runtime scale secrets security_opt shm_size
    stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user
    userns_mode uts volumes volumes_from working_dir
    """
    assert set(names.split()) <= SERVICE.keys()
    assert set(TOP) == {
        "version",
        "name",
        "include",
        "services",
        "models",
        "networks",
        "volumes",
        "secrets",
        "configs",
    }

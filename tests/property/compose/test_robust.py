"""Nothing that a stranger writes makes the pipeline fail in any way but by findings."""

from __future__ import annotations

import json
import re
import string
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opengpu_operator.compose import load
from opengpu_operator.compose.findings import Report
from opengpu_operator.compose.keys import TABLES
from tests.support.compose import Echo, translate

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
FEW = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    translation = translate(data)
    assert translation.refused
    assert all(finding.advice and finding.message for finding in translation.findings)


YAML_TEXT = st.text(alphabet=st.sampled_from("abc:-[]{}&*!|>'\"%@`#,?~<= \n\t019.$\\"), max_size=300)


@FEW
@given(YAML_TEXT)
def test_any_yaml_like_text(text: str) -> None:
    report = Report()
    decoded = load.decode("services:\n" + text, report)
    assert decoded is not None
    document = load.load(decoded, report)
    assert document is not None or report.refused
    translate("services:\n" + text)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(
        [
            *(
                "",
                "x",
                "a:b",
                "a=b",
                "/a",
                "./a:/b",
                "80",
                "8080:80/udp",
                "${X}",
                "$$",
                "1s",
                "64m",
                "host",
                "all",
            ),
            *(
                "service:app",
                "${X:?no}",
                "no",
                "always",
                "on-failure:3",
                "/dev/kfd",
                "0:0",
                "gpu",
                "NONE",
                "CMD",
            ),
        ]
    )
    | st.text(max_size=12)
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_lowercase, max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
ALL_KEYS = sorted({key for table in TABLES.values() for key in table})
known = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ALL_KEYS), inner, max_size=4),
    max_leaves=10,
)


def keyed(table: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(sorted(TABLES[table])), value, max_size=6)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    services=st.dictionaries(
        st.sampled_from(["app", "db", "a_b", "A.B", "x" * 80]), keyed("service", trees | known), max_size=3
    ),
    top=keyed("top", known),
)
def test_any_values_under_known_keys(services: dict[str, Any], top: dict[str, Any]) -> None:
    for service in services.values():
        service.setdefault("image", "app")
    document = {**top, "services": services}
    text = yaml.safe_dump(document, allow_unicode=True)
    translation = translate(text, profiles=["*"])
    again = translate(text, profiles=["*"])
    assert translation == again
    assert translation.refused == (not translation.services)


NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=80)
ENV = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,12}", fullmatch=True).filter(lambda name: not name.startswith("LD_")),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
    max_size=4,
)
SERVICE = st.fixed_dictionaries(
    {"image": st.sampled_from(["app", "example.org/a/b:1", "x@sha256:" + "0" * 64])},
    optional={
        "environment": ENV,
        "ports": st.lists(st.integers(1, 19999).map(str), max_size=3, unique=True),
        "command": st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20), max_size=3),
        "restart": st.sampled_from(["no", "always", "on-failure:2", "unless-stopped"]),
        "volumes": st.lists(st.sampled_from(["./a:/a", "/data/b:/b", "/anonymous", "~/c:/c"]), unique=True),
        "tty": st.booleans(),
    },
)


def dollars(value: Any) -> Any:
    """Escape what Compose would take for variables."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [dollars(item) for item in value]
    if isinstance(value, dict):
        return {key: dollars(item) for key, item in value.items()}
    return value


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(services=st.dictionaries(NAMES, SERVICE, min_size=1, max_size=5))
def test_valid_files_are_translated(services: dict[str, Any]) -> None:
    text = json.dumps({"services": dollars(services)}, ensure_ascii=False)
    echo = Echo()
    translation = translate(text, converter=echo)
    assert not translation.refused, translation.findings
    assert [service.name for service in translation.services] == list(services)
    names = [service.dns_name for service in translation.services]
    assert len(set(names)) == len(names)
    assert all(LABEL.fullmatch(name) for name in names)
    assert all(LABEL.fullmatch(key) for key in translation.volumes)
    for service in translation.services:
        written = services[service.name]
        env = {entry["name"]: expanded(entry["value"]) for entry in service.container.get("env", [])}
        assert env == written.get("environment", {})
        assert [expanded(word) for word in service.container.get("args", [])] == written.get("command", [])
        assert {mount.volume for mount in service.mounts} <= translation.volumes.keys()
        assert len({mount.path for mount in service.mounts}) == len(service.mounts)
    assert translation == translate(text)


def expanded(value: str) -> str:
    """Return what Kubernetes makes of a value, as its third_party/forked/golang/expansion does, with no variables."""
    raw, out, at = value.encode(), bytearray(), 0
    while at < len(raw):
        if raw[at : at + 1] != b"$" or at + 1 == len(raw):
            out += raw[at : at + 1]
            at += 1
        elif raw[at + 1 : at + 2] == b"$":
            out += b"$"
            at += 2
        elif raw[at + 1 : at + 2] == b"(" and (end := raw.find(b")", at)) >= 0:
            out += b"<" + raw[at + 2 : end] + b">"
            at = end + 1
        else:
            out += b"$" + chr(raw[at + 1]).encode()
            at += 2
    return out.decode("utf-8", "replace")

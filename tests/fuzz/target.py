"""What is fuzzed: any bytes, through everything before kompose and after it, and the job builder.

A crash is an error that nobody expects, a translation that contradicts itself, or a file that takes too long.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.source import Environment
from opengpu_operator.compose.keys import TABLES
from opengpu_operator.desired.job import build
from tests.support import jobs, manifest
from tests.support.attacks import ATTACKS
from tests.support.compose import VARIABLES, translate

ROOT = Path(__file__).resolve().parents[2]
#: Inputs that were a crash once.
REGRESSIONS = Path(__file__).parent / "regressions"
#: Far beyond the 200 ms that a file may take, for the sake of slow machines and of what a fuzzer adds.
CPU_SECONDS = 3.0


def check(data: bytes) -> None:
    """Translate a file and build its job; AssertionError, or any other error, is a crash."""
    before = time.process_time()
    environment = list(Environment)[len(data) % 3]
    translation = translate(data, environment=environment.value, variables=VARIABLES, profiles=["debug"])
    assert translation.refused != bool(translation.services)
    findings = list(translation.findings)
    if not translation.refused:
        try:
            made = build(translation, jobs.context(environment=environment), jobs.settings())
        except Invalid:
            pass
        else:
            manifest.check(made.everything)
            findings += made.findings
    assert all(finding.message.isprintable() and finding.path.isprintable() for finding in findings)
    assert all(len(finding.message) <= 1000 and finding.advice for finding in findings)
    assert time.process_time() - before < CPU_SECONDS


def seeds() -> Iterator[bytes]:
    """Yield files to start from: examples, demos, tests' files, attacks and old crashes."""
    folders = ("examples", "demo", "tests/e2e/data", "tests/data")
    for path in sorted(itertools.chain.from_iterable((ROOT / folder).rglob("*.y*ml") for folder in folders)):
        yield path.read_bytes()
        for document in yaml.safe_load_all(path.read_bytes()):
            # Files inside of ConfigMaps.
            data = document.get("data") if isinstance(document, dict) else None
            yield from (text.encode() for text in (data or {}).values() if isinstance(text, str))
    for attack in ATTACKS:
        yield attack.text if isinstance(attack.text, bytes) else attack.text.encode()
    if REGRESSIONS.is_dir():
        yield from (path.read_bytes() for path in sorted(REGRESSIONS.iterdir()))


def words() -> Iterator[str]:
    """Yield what a fuzzer should know of the language: every key, and YAML's and Compose's own signs."""
    yield from sorted({key for table in TABLES.values() for key in table})
    yield from (
        "services:\n  a:\n    image: x\n",
        "<<: ",
        "&a ",
        "*a ",
        "!reset ",
        "!override ",
        "!!str ",
        "? ",
        "- ",
    )
    yield from (
        "${A:-",
        "${A:?",
        "$$",
        "service_healthy",
        "nvidia.com/gpu=",
        "/dev/kfd",
        "host.docker.internal:80",
    )
    yield from (
        '"\\0"',
        '"\\e"',
        "\u2028",
        "\ufeff",
        "|\n",
        ">-\n",
        "---\n",
        "%YAML 1.2\n",
        "1e999",
        ".nan",
        "0x1F",
        "1-9:1-9",
    )
    yield from json.loads(
        '["status:", "run/secrets", "service:a", "on-failure:3", "/a:/b", "./a:/b:ro", "64m", "1m30s"]'
    )

"""Any valid file becomes objects that are valid, refer to each other, and are the same every time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.source import Environment
from opengpu_operator.compose.kompose import Kompose
from opengpu_operator.desired.job import JobObjects, build
from tests.support import composefiles, jobs, manifest
from tests.support.compose import NO_KOMPOSE, real_kompose, translate
from tests.support.environment import unavailable

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
ENVIRONMENTS = st.sampled_from(Environment)


def text(document: dict[str, Any]) -> str:
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]",
        lambda match: f"\\u{ord(match.group()):04x}",
        json.dumps(document, ensure_ascii=False),
    )


def made(document: str, environment: Environment, *, converter: Any = None, **configured: Any) -> JobObjects:
    translation = translate(document, environment=environment.value, converter=converter)
    # Services of one pod may wait for each other's siblings in a circle that there isn't between the services.
    assume(all(finding.reason != "DependencyCycle" for finding in translation.findings))
    assert not translation.refused, translation.findings
    return build(translation, jobs.context(environment=environment), jobs.settings(**configured))


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(composefiles.files(), ENVIRONMENTS)
def test_objects_are_valid(document: dict[str, Any], environment: Environment) -> None:
    found = made(text(document), environment)
    manifest.check(found.everything)
    assert found == made(text(document), environment)


@settings(max_examples=50, deadline=None, suppress_health_check=SLOW)
@given(composefiles.files(), ENVIRONMENTS, st.randoms(use_true_random=False))
def test_the_order_of_a_services_keys_means_nothing(
    document: dict[str, Any], environment: Environment, random: Any
) -> None:
    def shuffled(value: dict[str, Any]) -> dict[str, Any]:
        keys = list(value)
        random.shuffle(keys)
        return {key: value[key] for key in keys}

    other = shuffled(
        {**document, "services": {name: shuffled(item) for name, item in document["services"].items()}}
    )
    assert made(text(document), environment).everything == made(text(other), environment).everything


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[subprocess.Popen[str]]:
    """A process with other hashes that answers each file with its objects."""
    with subprocess.Popen(
        [sys.executable, "-c", "from tests.property.compose import test_objects; test_objects.answer()"],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def answer(source: IO[str] = sys.stdin) -> None:
    for line in source:
        document, environment = json.loads(line)
        print(json.dumps(made(document, Environment(environment)).everything), flush=True)


@settings(max_examples=50, deadline=None, suppress_health_check=SLOW)
@given(document=composefiles.files(), environment=ENVIRONMENTS)
def test_other_hashes_make_the_same_bytes(
    elsewhere: subprocess.Popen[str], document: dict[str, Any], environment: Environment
) -> None:
    assert elsewhere.stdin is not None
    assert elsewhere.stdout is not None
    print(json.dumps([text(document), environment.value]), file=elsewhere.stdin, flush=True)
    assert elsewhere.stdout.readline() == json.dumps(made(text(document), environment).everything) + "\n"


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(document=composefiles.files(), environment=ENVIRONMENTS)
def test_kompose_itself(document: dict[str, Any], environment: Environment) -> None:
    kompose: Kompose | None = real_kompose()
    if kompose is None:
        unavailable(NO_KOMPOSE)
    assert made(text(document), environment, converter=kompose) == made(text(document), environment)


@settings(max_examples=50, deadline=None, suppress_health_check=SLOW)
@given(composefiles.files(), ENVIRONMENTS)
def test_the_restricted_standard(document: dict[str, Any], environment: Environment) -> None:
    translation = translate(text(document), environment=environment.value, restricted=True)
    assert not translation.refused, translation.findings
    configured = jobs.settings(pods={"profile": "restricted"})
    try:
        found = build(translation, jobs.context(environment=environment), configured)
    except Invalid as refused:
        pytest.fail(refused.message)
    manifest.check(found.everything, restricted=True)

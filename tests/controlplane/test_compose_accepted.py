"""Every object of every Compose file is accepted by a real API server, field by field, and by its pod security.

The files are the corpus' and this repository's; those of a folder are tried too where COMPOSE_FILES names one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import Translation
from opengpu_operator.compose.project import ALL_PROFILES
from opengpu_operator.desired.job import build
from tests.controlplane import dryrun
from tests.support.compose import NO_KOMPOSE, VARIABLES, Once, real_kompose, translate
from tests.support.corpus import CORPUS, NO_CORPUS, own_files
from tests.support.environment import unavailable
from tests.support.jobs import context, settings

pytestmark = pytest.mark.controlplane

_FOLDER = os.environ.get("COMPOSE_FILES")


def _corpus() -> Iterator[Any]:
    """Yield the text and the variables of each public file that isn't to be refused."""
    if not CORPUS.is_dir():
        yield pytest.param("", {}, id="corpus", marks=pytest.mark.skip(reason=NO_CORPUS))
    for path in sorted(CORPUS.glob("*.expect.json")):
        expected = json.loads(path.read_text())
        if expected["reject_class"] is None:
            text = (CORPUS / expected["file"]).read_text()
            yield pytest.param(text, expected["interpolation_env"], id=expected["file"])


FILES = [
    *_corpus(),
    *(pytest.param(text, {}, id=name) for name, text in own_files().items()),
    *(
        pytest.param(path.read_text(), {}, id=path.name)
        for path in (sorted(Path(_FOLDER).glob("*.y*ml")) if _FOLDER else ())
    ),
]


@pytest.fixture(scope="module")
def kompose() -> Once:
    found = real_kompose()
    if found is None:
        unavailable(NO_KOMPOSE)
    return Once(found)


def environments(translation: Translation) -> list[Environment]:
    """Return the hardware that a file may be offered for: its GPUs', and none."""
    vendors = {service.gpu.vendor.value for service in translation.services if service.gpu is not None}
    return [Environment.CPU, *map(Environment, sorted(vendors))]


def jobs(
    text: str, variables: dict[str, str], kompose: Once, *, namespace: str, profile: str
) -> Iterator[list[dict[str, Any]]]:
    """Yield the objects of a file's jobs: with and without its profiles, for each environment, called and not."""
    options: dict[str, Any] = {
        "variables": VARIABLES | variables,
        "restricted": profile == "restricted",
        "converter": kompose,
    }
    pods = {"profile": profile}
    for profiles in ([], [ALL_PROFILES]):
        for environment in environments(translate(text, profiles=profiles, **options)):
            translation = translate(text, profiles=profiles, environment=environment.value, **options)
            for call in (True, False) if not translation.refused else ():
                job = context(namespace=namespace, environment=environment, call=call)
                yield build(translation, job, settings(pods=pods)).everything


@pytest.mark.parametrize(("text", "variables"), FILES)
def test_every_object_and_pod(
    api: dryrun.Api, enforced: str, profile: str, kompose: Once, text: str, variables: dict[str, str]
) -> None:
    made = [
        obj
        for objects in jobs(text, variables, kompose, namespace=enforced, profile=profile)
        for obj in dryrun.with_pods(objects)
    ]
    refused = translate(text, converter=kompose, profiles=[ALL_PROFILES], variables=VARIABLES | variables)
    if refused.refused and not made and _FOLDER:
        pytest.skip(f"refused: {', '.join(sorted({finding.reason for finding in refused.findings}))}")
    assert made
    # Most objects are the same in all of a file's jobs.
    distinct = {json.dumps(obj, sort_keys=True): obj for obj in made}.values()
    problems = [problem for obj in distinct for problem in dryrun.objections(api, obj, enforced)]
    assert not problems, "\n".join(problems)

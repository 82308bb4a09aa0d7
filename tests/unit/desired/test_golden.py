"""Whole jobs, object by object, as files that people can read.

``OPENGPU_UPDATE_GOLDEN=1`` writes what comes out; look at the difference before you keep it.
"""

import os
from pathlib import Path

import pytest
import yaml

from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import Translation
from opengpu_operator.desired.job import build
from tests.support.jobs import context, settings

DATA = Path(__file__).parents[2] / "data" / "desired"
CASES = sorted(path.stem for path in (DATA / "in").glob("*.yaml"))


def made(case):
    """Build the job of a case."""
    given = yaml.safe_load((DATA / "in" / f"{case}.yaml").read_text())
    fields = dict(given["context"])
    if "environment" in fields:
        fields["environment"] = Environment(fields["environment"])
    return build(
        Translation.model_validate(given["translation"]),
        context(**fields),
        settings(**given.get("settings", {})),
    )


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    objects = made(case)
    documents = [
        {
            "main": objects.main,
            "components": objects.components,
            "gated": objects.gated,
            "gpus": objects.gpus,
            "urls": [url.dump() for url in objects.urls],
            "findings": [
                finding.model_dump(mode="json", exclude_defaults=True) for finding in objects.findings
            ],
        },
        *objects.everything,
    ]
    path = DATA / "out" / f"{case}.yaml"
    if os.environ.get("OPENGPU_UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(documents, sort_keys=False, width=120))
    assert list(yaml.safe_load_all(path.read_text())) == documents


def test_there_are_cases():
    assert {"call", "job", "restricted"} <= set(CASES)

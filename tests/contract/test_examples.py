"""The Compose files inside the examples are translated without a warning: nobody should start with a surprise."""

from pathlib import Path

import pytest
import yaml

from opengpu_operator.api.findings import Severity
from opengpu_operator.api.labels import CALLBACK_PORT, WORKER_PORT
from opengpu_operator.api.translation import TranslateOptions
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.kompose import Kompose, KomposeError, find
from tests.support.corpus import examples
from tests.support.environment import unavailable

ROOT = Path(__file__).parents[2]
OPTIONS = TranslateOptions(
    variables={"PORT": str(WORKER_PORT), "CALLBACK_URL": f"http://127.0.0.1:{CALLBACK_PORT}"}
)
COMPOSE = [pytest.param(text, id=name) for name, text in examples().items()]


@pytest.fixture
def kompose():
    try:
        return Kompose(find())
    except KomposeError as error:
        unavailable(f"kompose is not built: {error}")


@pytest.mark.parametrize("text", COMPOSE)
async def test_compose_files_of_the_examples(text, kompose):
    translation = await pipeline.translate(text, OPTIONS, kompose=kompose)
    assert [finding for finding in translation.findings if finding.severity is not Severity.INFO] == []
    assert {service.name for service in translation.services} == set(yaml.safe_load(text)["services"])


def test_every_example_is_in_the_index():
    index = (ROOT / "examples" / "README.md").read_text()
    files = sorted((ROOT / "examples").glob("*.yaml"))
    assert [file.name for file in files if f"[{file.name}]({file.name})" not in index] == []
    assert index.count("](") == len(files) + 1  # and the reference

"""What a person sees: columns, events, waiting."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.kit import Cluster, Object, until
from tests.e2e.objects import compose, source, task, worker

pytestmark = pytest.mark.e2e

#: A task's life, from its start to its answer, may take this many lines of `kubectl describe`.
EVENTS_PER_TASK = 5


@pytest.fixture(scope="module")
def answered(operator: Cluster, namespace: str) -> str:
    """A task that was answered."""
    operator.apply(
        namespace,
        *source("seen", cpu=compose(worker=worker())),
        task("seen", "seen", "work", {"value": "seen"}),
    )
    operator.answer(namespace, "seen")
    return "seen"


def cells(lines: list[str]) -> dict[str, str]:
    """Return the first row of a table by heading; a cell may be empty."""
    heading, row = lines[0], lines[1]
    starts = [match.start() for match in re.finditer(r"\S+", heading)]
    ends = [*starts[1:], len(row) + 1]
    return {
        heading[start:end].strip(): row[start:end].strip() for start, end in zip(starts, ends, strict=True)
    }


def test_columns(operator: Cluster, namespace: str, answered: str) -> None:
    shown = operator.kubectl("-n", namespace, "get", "ogs,ogt")
    print(f"\n{shown}")
    sources, tasks = (block.splitlines() for block in shown.strip().split("\n\n"))
    assert cells(sources)["READY"] == "True"
    assert cells(sources)["OFFERED"] == "cpu"
    found = cells(tasks)
    assert (found["SOURCE"], found["ENV"], found["STATUS"], found["REASON"]) == (
        "seen",
        "cpu",
        "Finalized",
        "Answered",
    )
    assert all(len(line) <= 160 for line in shown.splitlines()), "one line each, on an ordinary screen"


def test_short_names_and_categories(operator: Cluster, namespace: str, answered: str) -> None:
    for name in ("ogs", "ogt", "opengpusource", "opengputasks", "opengpu"):
        assert answered in operator.kubectl("-n", namespace, "get", name), name


def test_events_are_few_and_telling(operator: Cluster, namespace: str, answered: str) -> None:
    def told() -> list[Object] | None:
        """An event comes after the status that it tells of."""
        found = operator.events(namespace, answered)
        return found if "Answered" in {event["reason"] for event in found} else None

    events = until("the event of the answer", told)
    for event in events:
        regarding = event["regarding"]
        print(
            f"{event['type']} {event['reason']} {regarding['kind']}/{regarding['name']}: {event.get('note', '')}"
        )
    tasks = [event for event in events if event["regarding"]["kind"] == "OpenGPUTask"]
    assert 1 <= len(tasks) <= EVENTS_PER_TASK
    for event in events:
        assert event["type"] == "Normal"
        assert event["note"], "a reason alone says too little"
        assert event.get("deprecatedCount", 1) == 1, "nothing is repeated"


def test_wait_returns_at_once_for_what_is_done(operator: Cluster, namespace: str, answered: str) -> None:
    command = ("-n", namespace, "wait", "--for=condition=Complete", f"ogt/{answered}", "--timeout=120s")
    assert "condition met" in operator.kubectl(*command)


def test_an_invalid_task_is_refused_with_the_field(operator: Cluster, namespace: str) -> None:
    bad = task("bad", "seen", "work", payment="1.5 OGPU")
    done = operator.try_kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(bad))
    assert done.returncode != 0
    assert "spec.payment" in done.stderr

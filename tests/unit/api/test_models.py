"""The models read what the API server stores, and write what it accepts."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from opengpu_operator.api.findings import TEXT_LIMIT, Finding, Severity
from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.source import Environment, ImageEnvs, Source, SourceSpec
from opengpu_operator.api.task import Task, TaskSpec, TaskStatus
from opengpu_operator.api.translation import Service, Translation

META = {
    "name": "a",
    "namespace": "b",
    "uid": "c",
    "generation": 3,
    "resourceVersion": "4",
    "creationTimestamp": "2026-01-02T03:04:05Z",
    "managedFields": [{"manager": "kubectl"}],
}


def test_a_task_as_the_api_server_has_it():
    task = Task.model_validate(
        {
            "apiVersion": "opengpu.network/v1alpha1",
            "kind": "OpenGPUTask",
            "metadata": META,
            "spec": {"sourceRef": {"name": "source"}, "functionName": "run", "data": {"a": None}},
        }
    )
    assert task.metadata.creation_timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert task.metadata.deletion_timestamp is None
    assert task.spec.source_ref.name == "source"
    assert task.spec.is_call
    assert task.spec.data == {"a": None}
    assert task.status.conditions == []


def test_a_job_is_no_call():
    assert not TaskSpec.model_validate({"sourceRef": {"name": "source"}}).is_call


def test_unknown_fields_are_ignored():
    """An object that was written through a newer schema is still readable after a downgrade."""
    spec = TaskSpec.model_validate({"sourceRef": {"name": "source", "namespace": "x"}, "priority": 1})
    assert spec.dump() == {"sourceRef": {"name": "source"}}


def test_what_is_unset_is_not_written():
    assert TaskStatus().dump() == {
        "observedGeneration": 0,
        "conditions": [],
        "urls": [],
        "attempts": 0,
        "responses": [],
        "logs": [],
    }


def test_offered_files_have_a_fixed_order():
    file = {"composeUrl": "https://example.com"}
    envs = ImageEnvs.model_validate({"amd": file, "cpu": file})
    assert list(envs.offered()) == [Environment.CPU, Environment.AMD]


def test_a_sources_environment():
    source = Source.model_validate(
        {"metadata": META, "spec": {}, "status": {"environments": [{"name": "cpu", "ready": True}]}}
    )
    entry = source.environment(Environment.CPU)
    assert entry is not None
    assert entry.ready
    assert source.environment(Environment.AMD) is None


@pytest.mark.parametrize(
    "spec",
    [
        {"minPayment": "1.5"},
        {"minPayment": 1},
        {"address": "0x1"},
        {"volumes": {"a/b": {}}},
        {"volumes": {"a": {"size": "1 Gi"}}},
        {"template": {"name": "a", "parameters": {"a b": "c"}}},
    ],
)
def test_bounds_hold_here_too(spec):
    """An object from before a bound existed is refused by the operator rather than misread."""
    with pytest.raises(ValidationError):
        SourceSpec.model_validate(spec)


@pytest.mark.parametrize("length", [0, 1, TEXT_LIMIT - 1, TEXT_LIMIT, TEXT_LIMIT + 1, 10 * TEXT_LIMIT])
def test_texts_of_findings_are_cut(length):
    finding = Finding(severity=Severity.INFO, reason="Any", message="x" * length)
    assert len(finding.message) == min(length, TEXT_LIMIT)
    assert finding.message.endswith("…") == (length > TEXT_LIMIT)


def test_a_reason_with_its_field():
    assert Reason.TERMS_REFUSED.about("payment") == "TermsRefused:payment"


def test_translation():
    translation = Translation(
        digest="sha256:0", services=[Service(name="my_db", dns_name="my-db", container={"image": "a"})]
    )
    assert translation.service("my_db").dns_name == "my-db"
    with pytest.raises(KeyError):
        translation.service("my-db")
    assert not translation.refused
    warned = [Finding(severity=Severity.WARNING, reason="Any", message="a")]
    assert not translation.model_copy(update={"findings": warned}).refused
    refused = [*warned, Finding(severity=Severity.ERROR, reason="Any", message="a")]
    assert translation.model_copy(update={"findings": refused}).refused

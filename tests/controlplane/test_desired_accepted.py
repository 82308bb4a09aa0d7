"""Every object that we make of a job is accepted by a real API server, field by field, and by its pod security."""

import copy
from pathlib import Path

import pytest
import yaml

from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import Translation
from opengpu_operator.desired.job import build
from tests.controlplane import dryrun
from tests.support.jobs import context, settings

pytestmark = pytest.mark.controlplane

DATA = Path(__file__).parents[1] / "data" / "desired" / "in"
CASES = sorted(path.stem for path in DATA.glob("*.yaml"))


def made(case, *, namespace, profile):
    """Return the objects of a case, without classes that this cluster doesn't have."""
    given = yaml.safe_load((DATA / f"{case}.yaml").read_text())
    fields = {**given["context"], "namespace": namespace}
    fields["environment"] = Environment(fields.get("environment", "nvidia"))
    configured = {**given.get("settings", {}), "pods": {"profile": profile}, "network": {}}
    return build(
        Translation.model_validate(given["translation"]), context(**fields), settings(**configured)
    ).everything


@pytest.mark.parametrize("case", CASES)
def test_every_object_and_pod(api, enforced, profile, case):
    objects = dryrun.with_pods(made(case, namespace=enforced, profile=profile))
    assert "Pod" in {obj["kind"] for obj in objects}
    assert [problem for obj in objects for problem in dryrun.objections(api, obj, enforced)] == []


def test_the_namespace_does_refuse(api, enforced, profile):
    """Without this the tests above would pass where nothing is enforced."""
    workload = copy.deepcopy(
        next(
            obj for obj in made("call", namespace=enforced, profile="baseline") if obj["kind"] == "Deployment"
        )
    )
    if profile == "baseline":
        workload["spec"]["template"]["spec"]["hostNetwork"] = True
    (refused,) = dryrun.objections(api, dryrun.pod(workload), enforced)
    assert (
        f'403 pods "{workload["metadata"]["name"]}" is forbidden: violates PodSecurity "{profile}' in refused
    )
    assert f'would violate PodSecurity "{profile}' in "".join(dryrun.objections(api, workload, enforced))


def test_what_a_dry_run_finds(api, enforced):
    claim = next(
        obj for obj in made("call", namespace=enforced, profile="baseline") if "Claim" in obj["kind"]
    )
    assert dryrun.objections(api, claim, enforced) == []
    claim["spec"]["unknown"] = True
    (refused,) = dryrun.objections(api, claim, enforced)
    assert 'unknown field "spec.unknown"' in refused
    stored = {"spec": {"names": ["a", "b"], "cpu": "1", "default": 1}}
    assert list(dryrun.changed({"spec": {"names": ["a"], "cpu": "1000m", "empty": ""}}, stored)) == []
    assert list(dryrun.changed({"spec": {"names": ["a", "c"], "cpu": "2", "more": 0}}, stored)) == [
        ".spec.names[1] was 'c' and is 'b'",
        ".spec.cpu was '2' and is '1'",
        ".spec.more is gone",
    ]

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from opengpu_operator.api.labels import QUOTA_JOB, QUOTA_OWNER
from opengpu_operator.reconcile.grants import of_job
from opengpu_operator.settings import QuotaSettings
from tests.unit.reconcile.builders import NOW, task

NONE = QuotaSettings()
BOTH = QuotaSettings(job_bytes="1Gi", owner_bytes="2G")


def claims(quota: QuotaSettings, *, owner: str | None = None, **annotations: str) -> dict[str, Any]:
    namespace = {"metadata": {"annotations": annotations}} if annotations else None
    spec: dict[str, Any] = {"owner": owner} if owner else {}
    return of_job(task(**spec), namespace=namespace, quota=quota, ends=NOW + timedelta(seconds=0.5))


def test_a_token_says_no_more_than_it_has_to():
    assert claims(NONE) == {
        "scope": "job",
        "namespace": "team",
        "task": task().metadata.uid,
        "exp": int(NOW.timestamp()) + 1,
    }


def test_quotas_are_bytes_and_an_owners_needs_an_owner():
    assert {key: claims(BOTH).get(key) for key in ("jobBytes", "ownerBytes", "owner")} == {
        "jobBytes": 1 << 30,
        "ownerBytes": None,
        "owner": None,
    }
    found = claims(BOTH, owner="alice")
    assert (found["owner"], found["jobBytes"], found["ownerBytes"]) == ("alice", 1 << 30, 2 * 10**9)


def test_a_namespaces_annotations_come_first():
    found = claims(BOTH, owner="alice", **{QUOTA_JOB: "5Mi", QUOTA_OWNER: "none"})
    assert found["jobBytes"] == 5 << 20
    assert "ownerBytes" not in found


@pytest.mark.parametrize(
    "nonsense", ["", "much", "-", "-1", "-1Gi", "1e999999999", "1e99999999999999999999", "99Ei"]
)
def test_an_annotation_that_nobody_can_read_lifts_no_limit(nonsense):
    assert claims(BOTH, **{QUOTA_JOB: nonsense})["jobBytes"] == 1 << 30

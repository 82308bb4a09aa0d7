from __future__ import annotations

from datetime import timedelta

from opengpu_operator.api.reasons import ConditionType, Reason
from opengpu_operator.api.task import TaskStatus
from opengpu_operator.reconcile.draft import Draft
from tests.unit.reconcile.builders import NOW


def test_a_condition_keeps_its_time_while_its_status_lasts() -> None:
    status = TaskStatus()
    Draft(status=status, generation=1, now=NOW).progressing(Reason.STARTING)
    later = Draft(status=status, generation=2, now=NOW + timedelta(seconds=9))
    later.progressing(Reason.WAITING_FOR_GPUS, "2 Insufficient nvidia.com/gpu")
    ready = later.get(ConditionType.READY)
    assert ready is not None
    assert (ready.reason, ready.last_transition_time) == ("WaitingForGPUs", "2026-03-01T12:00:00Z")
    assert ready.observed_generation == 2
    assert status.observed_generation == 2
    later.ready(Reason.ANSWERED)
    assert [condition.type for condition in status.conditions] == ["Ready"]
    assert status.conditions[0].last_transition_time == "2026-03-01T12:00:09Z"


def test_stalled_and_reconciling_exclude_each_other() -> None:
    draft = Draft(status=TaskStatus(), generation=1, now=NOW)
    draft.progressing(Reason.STARTING)
    draft.stalled(Reason.TERMS_REFUSED.about("payment"), "too little")
    assert [condition.type for condition in draft.status.conditions] == ["Ready", "Stalled"]
    draft.progressing(Reason.STARTING)
    assert [condition.type for condition in draft.status.conditions] == ["Ready", "Reconciling"]

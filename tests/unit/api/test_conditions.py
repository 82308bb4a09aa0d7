from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from opengpu_operator.api.conditions import (
    MESSAGE_LIMIT,
    Condition,
    get_condition,
    is_true,
    set_condition,
    timestamp,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def put(conditions=(), *, status=True, reason="Running", message="", generation=1, now=NOW, type="Ready"):  # noqa: A002
    return set_condition(
        conditions, type=type, status=status, reason=reason, message=message, generation=generation, now=now
    )


def test_timestamp_is_utc_in_whole_seconds():
    assert timestamp(NOW) == "2026-01-02T03:04:05Z"
    assert timestamp(NOW.astimezone(timezone(timedelta(hours=2)))) == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(("status", "text"), [(True, "True"), (False, "False"), (None, "Unknown")])
def test_status(status, text):
    (condition,) = put(status=status)
    assert condition.status == text
    assert is_true([condition], "Ready") is (status is True)


def test_the_time_changes_only_with_the_status():
    first = put()
    again = put(first, reason="Called", message="more", generation=2, now=LATER)
    assert again[0].last_transition_time == timestamp(NOW)
    assert again[0].reason == "Called"
    assert again[0].observed_generation == 2
    assert put(again, status=False, now=LATER)[0].last_transition_time == timestamp(LATER)


def test_order_is_kept_and_a_new_one_is_last():
    conditions = put(put(put(type="Ready"), type="Scheduled"), type="Routed")
    conditions = put(conditions, type="Ready", status=False)
    assert [condition.type for condition in conditions] == ["Ready", "Scheduled", "Routed"]


def test_what_was_given_is_not_changed():
    before = put()
    copy = list(before)
    put(before, status=False, now=LATER)
    assert before == copy


def test_absent():
    assert get_condition([], "Ready") is None
    assert not is_true([], "Ready")


@given(st.text(max_size=3 * MESSAGE_LIMIT))
def test_messages_are_bounded(message):
    (condition,) = put(message=message)
    assert len(condition.message) <= MESSAGE_LIMIT
    assert condition.message == message or (
        condition.message.endswith("…") and message.startswith(condition.message[:-1])
    )


@pytest.mark.parametrize("reason", ["", "not a word", "1st", "ends:", "a" * 129])
def test_a_reason_is_one_word(reason):
    with pytest.raises(ValidationError):
        put(reason=reason)


def test_dumped_as_kubernetes_names_it():
    (condition,) = put()
    assert condition.model_dump(by_alias=True) == {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "reason": "Running",
        "message": "",
    }
    assert Condition.model_validate(condition.model_dump(by_alias=True)) == condition

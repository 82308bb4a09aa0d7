from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from opengpu_operator.reconcile.expiry import expires_at, finished_at, removal_at
from opengpu_operator.settings import TaskSettings
from tests.unit.reconcile.builders import NOW, at, source, task

SETTINGS = TaskSettings(default_expiry_seconds=3600, max_expiry_seconds=7200)


@pytest.mark.parametrize(
    ("wish", "limit", "seconds"),
    [
        ({}, None, 3600),
        ({"expirySeconds": 60}, None, 60),
        ({"expirySeconds": 9999}, None, 7200),
        ({}, 600, 600),
        ({"expirySeconds": 60}, 600, 60),
        ({"expirySeconds": 9999}, 8000, 7200),
    ],
)
def test_the_tightest_bound_holds(wish: dict[str, Any], limit: int | None, seconds: int) -> None:
    terms = source(maxExpirySeconds=limit) if limit else source()
    assert expires_at(task(**wish), terms, SETTINGS) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("wish", "limit", "seconds"),
    [
        ({}, 60, 600),
        ({"expirySeconds": 600}, 60, 600),
        ({"expirySeconds": 300}, 60, 300),
        ({"expirySeconds": 900}, 60, 600),
        ({"expirySeconds": 900}, 1200, 900),
        ({}, 1200, 600),
    ],
)
def test_a_running_task_keeps_what_it_started_with_unless_it_is_itself_told_otherwise(
    wish: dict[str, Any], limit: int, seconds: int
) -> None:
    running = task(status={"revision": "ocr-cpu-1", "expiresAt": at(600)}, **wish)
    assert expires_at(running, source(maxExpirySeconds=limit), SETTINGS) == NOW + timedelta(seconds=seconds)
    waiting = task(status={"expiresAt": at(600)}, **wish)
    assert expires_at(waiting, source(maxExpirySeconds=60), SETTINGS) == NOW + timedelta(seconds=60)


def test_settings_that_change_leave_running_tasks_alone() -> None:
    running = task(status={"revision": "ocr-cpu-1", "expiresAt": at(3600)})
    less = TaskSettings(default_expiry_seconds=60, max_expiry_seconds=60)
    assert expires_at(running, source(), less) == NOW + timedelta(seconds=3600)


def test_the_clock_runs_without_a_source() -> None:
    assert expires_at(task(age=100), None, SETTINGS) == NOW + timedelta(seconds=3500)


def ended(type_: str, seconds: float) -> dict[str, object]:
    return {
        "conditions": [
            {"type": type_, "status": "True", "reason": "Answered", "lastTransitionTime": at(seconds)}
        ]
    }


@pytest.mark.parametrize("type_", ["Complete", "Failed"])
def test_a_finished_task_is_removed_after_its_ttl(type_: str) -> None:
    done = task(ttlSecondsAfterFinished=30, status=ended(type_, 10))
    assert finished_at(done) == NOW + timedelta(seconds=10)
    assert removal_at(done) == NOW + timedelta(seconds=40)


def test_without_a_ttl_the_object_stays() -> None:
    assert removal_at(task(status=ended("Complete", 0))) is None


def test_an_unfinished_task_is_never_removed() -> None:
    assert removal_at(task(ttlSecondsAfterFinished=0)) is None

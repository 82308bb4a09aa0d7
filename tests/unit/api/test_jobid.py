import base64
import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from opengpu_operator.api.jobid import job_id, job_name, task_address

FIRST = datetime(2020, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 80 * 365 * 86400 * 1000).map(lambda passed: FIRST + timedelta(milliseconds=passed))
UIDS = st.uuids().map(str)


def test_the_form_is_gpuxs():
    """From GPUX's documentation: job 061i6uku7ie62tg1 ran in September 2022."""
    known = "061i6uku7ie62tg1"
    milliseconds = int.from_bytes(base64.b32hexdecode(known.upper())[:6], "big")
    created = datetime.fromtimestamp(milliseconds / 1000, UTC)
    assert (created.year, created.month) == (2022, 9)
    assert job_id(created, "any")[:9] == known[:9]


@given(MOMENTS, UIDS)
def test_sixteen_characters_of_a_dns_label(created, uid):
    assert re.fullmatch(r"[0-9a-v]{16}", job_id(created, uid))
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job_name(job_id(created, uid)))


@given(MOMENTS, UIDS)
def test_a_function_of_the_object_alone(created, uid):
    """Kubernetes keeps whole seconds; a restart must find the same id."""
    assert job_id(created, uid) == job_id(created, uid)


@given(MOMENTS, UIDS, UIDS, st.integers(1, 10**6))
def test_sorts_by_time(created, one, other, milliseconds):
    assert job_id(created, one) < job_id(created + timedelta(milliseconds=milliseconds), other)


def test_tasks_of_the_same_moment_differ():
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert len({job_id(moment, str(n)) for n in range(1000)}) == 1000


@given(UIDS, st.integers(0, 100))
def test_task_address(uid, attempt):
    address = task_address(uid, attempt)
    assert re.fullmatch(r"0x[0-9a-f]{40}", address)
    assert address == task_address(uid, attempt)
    assert address != task_address(uid, attempt + 1)

import logging
from datetime import UTC, datetime, timedelta

import pytest

from opengpu_operator.kube.errors import AlreadyExists, Forbidden, NotFound, Unavailable
from opengpu_operator.kube.events import BURST, MESSAGE_LIMIT, REFILL_SECONDS, Recorder

TASK = {
    "apiVersion": "opengpu.network/v1alpha1",
    "kind": "OpenGPUTask",
    "namespace": "ns",
    "name": "t",
    "uid": "u",
}


class Cluster:
    """The part of a Gateway that Events need, over a dict."""

    def __init__(self):
        self.events = {}
        self.error = None
        self.requests = 0

    async def create(self, obj):
        self.requests += 1
        if self.error:
            raise self.error
        name = obj["metadata"]["name"]
        if name in self.events:
            raise AlreadyExists("taken", code=409)
        self.events[name] = obj
        return obj

    async def get(self, _kind, _namespace, name):
        self.requests += 1
        return self.events.get(name)

    async def merge_patch(self, _kind, _namespace, name, patch):
        self.requests += 1
        if name not in self.events:
            raise NotFound("expired", code=404)
        self.events[name] |= patch
        return self.events[name]


class Clock:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder(cluster, clock):
    return Recorder(gateway=cluster, clock=clock)


async def test_an_event_says_what_happened_to_whom(recorder, cluster):
    await recorder.event(TASK, type_="Warning", reason="NoNodeFits", message="too big")
    ((name, event),) = cluster.events.items()
    assert name.startswith("t.")
    assert event["metadata"]["namespace"] == "ns"
    assert event["involvedObject"] == TASK
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "NoNodeFits", "too big")
    assert event["count"] == 1
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T00:00:00Z"


async def test_the_same_again_raises_the_count(recorder, cluster, clock):
    for _ in range(3):
        await recorder.event(TASK, type_="Normal", reason="Called", message="m")
        clock.now += timedelta(minutes=1)
    await recorder.event(TASK, type_="Normal", reason="Called", message="other")
    counts = sorted((event["count"], event["lastTimestamp"]) for event in cluster.events.values())
    assert counts == [(1, "2026-01-01T00:03:00Z"), (3, "2026-01-01T00:02:00Z")]
    assert cluster.requests == 4


async def test_after_a_restart_the_count_goes_on(recorder, cluster, clock):
    await recorder.event(TASK, type_="Normal", reason="Called", message="m")
    await Recorder(gateway=cluster, clock=clock).event(TASK, type_="Normal", reason="Called", message="m")
    (event,) = cluster.events.values()
    assert event["count"] == 2


async def test_an_event_that_expired_is_made_again(recorder, cluster):
    await recorder.event(TASK, type_="Normal", reason="Called", message="m")
    cluster.events.clear()
    await recorder.event(TASK, type_="Normal", reason="Called", message="m")
    (event,) = cluster.events.values()
    assert event["count"] == 1


async def test_who_says_too_much_is_cut_short_and_nobody_else(recorder, cluster, clock):
    for number in range(BURST + 5):
        await recorder.event(TASK, type_="Normal", reason="R", message=str(number))
    assert len(cluster.events) == BURST
    await recorder.event({**TASK, "uid": "u2"}, type_="Normal", reason="R", message="m")
    assert len(cluster.events) == BURST + 1
    clock.now += timedelta(seconds=REFILL_SECONDS)
    for number in range(5):
        await recorder.event(TASK, type_="Normal", reason="R", message=f"later {number}")
    assert len(cluster.events) == BURST + 2


async def test_long_names_and_messages_are_cut(recorder, cluster):
    await recorder.event({**TASK, "name": "x" * 253}, type_="Normal", reason="R", message="m" * 5000)
    ((name, event),) = cluster.events.items()
    assert len(name) == 253
    assert len(event["message"]) == MESSAGE_LIMIT


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (Unavailable("no answer"), logging.WARNING),
        (Forbidden("no", code=403), logging.WARNING),
        (Forbidden("in namespace x because it is being terminated", code=403), logging.DEBUG),
    ],
)
async def test_an_event_that_cannot_be_written_stops_nobody(recorder, cluster, caplog, error, level):
    cluster.error = error
    with caplog.at_level(logging.DEBUG):
        await recorder.event(TASK, type_="Normal", reason="R", message="m")
    (record,) = caplog.records
    assert record.levelno == level


async def test_memory_is_bounded(recorder, monkeypatch):
    monkeypatch.setattr("opengpu_operator.kube.events._REMEMBERED", 10)
    for number in range(50):
        await recorder.event({**TASK, "uid": str(number)}, type_="Normal", reason="R")
    assert len(recorder._buckets) == len(recorder._counts) == 10

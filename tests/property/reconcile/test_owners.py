"""Whatever tasks, people, time and restarts do: storage goes only as it was announced, and only unused."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from opengpu_operator.api.labels import EXPIRES_AT, KEEP
from tests.unit.reconcile.builders import NOW
from tests.unit.reconcile.test_owners import POLICY, World

UNUSED, GRACE = timedelta(seconds=POLICY["unusedSeconds"]), timedelta(seconds=POLICY["graceSeconds"])
#: How exactly the end of a use is known: to the hour while it lasts, to the minute at its end.
SLACK = timedelta(hours=1, minutes=1)

Step = Literal["start", "end", "delete", "keep", "unkeep", "restart", "look"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "delete", "keep", "unkeep", "restart", "look", "look", "look"]),
        st.sampled_from([0, 60, 3600, 24 * 3600, 8 * 24 * 3600, 31 * 24 * 3600]),
    ),
    max_size=25,
)


@given(steps=STEPS)
def test_storage_goes_only_as_announced_and_unused(steps: list[tuple[Step, int]]) -> None:
    asyncio.run(_live(steps))


async def _live(steps: list[tuple[Step, int]]) -> None:
    world = World()
    running = False
    last_use = NOW
    announced: datetime | None = None
    for step, seconds in steps:
        world.clock.now += timedelta(seconds=seconds)
        now = world.clock.now
        last_use = now if running else last_use
        if step == "start":
            world.task()
            running, last_use = True, now
        elif step == "end" and running:
            world.task(finished=(now - NOW).total_seconds())
            running = False
        elif step == "delete" and running:
            world.delete()
            running = False
        elif step in {"keep", "unkeep"}:
            world.annotate(**{KEEP: "true" if step == "keep" else "false"})
        elif step == "restart":
            world.restart()
        kept = world.annotations.get(KEEP) == "true"
        await world.look()
        if not world.has():
            assert not running
            assert not kept
            assert announced is not None, "nobody was told"
            assert now >= announced
            assert now >= last_use - SLACK + UNUSED + GRACE
            assert world.events.reasons.count("StorageExpires")
            return
        expires = world.annotations.get(EXPIRES_AT)
        if expires is None:
            announced = None
        else:
            assert not running
            assert not kept
            assert announced in {None, datetime.fromisoformat(expires)}, "the date doesn't move"
            announced = datetime.fromisoformat(expires)

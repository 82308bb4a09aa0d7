from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.gpux.processes import laboratory, ogpu_python

# Told that there is no loop, pytest-asyncio doesn't make one at the first test that it then never closes.
asyncio.set_event_loop(None)


@pytest.fixture
def lab(tmp_path):
    with laboratory(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """Where commands remember what they were at: not in anybody's home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def worker_python() -> Path:
    return ogpu_python()

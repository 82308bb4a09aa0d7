from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.s3 import s3_server

# Told that there is no loop, pytest-asyncio doesn't make one at the first test that it then never closes.
asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as running:
        yield running


@pytest.fixture
def bucket(server):
    with server.bucket() as opened:
        yield opened


@pytest.fixture
def executor():
    with ThreadPoolExecutor(8) as pool:
        yield pool

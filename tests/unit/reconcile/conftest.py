"""An API server, and the cache of a process that works with it."""

from __future__ import annotations

import pytest

from opengpu_operator.kube.cache import Cache
from tests.unit.reconcile.fakes import ApiServer


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
def cache() -> Cache:
    return Cache()

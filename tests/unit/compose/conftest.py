from __future__ import annotations

import pytest

from opengpu_operator.compose.kompose import Kompose
from tests.support.compose import NO_KOMPOSE, real_kompose
from tests.support.environment import unavailable


@pytest.fixture
def kompose() -> Kompose:
    found = real_kompose()
    if found is None:
        unavailable(NO_KOMPOSE)
    return found

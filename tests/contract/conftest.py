from datetime import UTC, datetime

import pytest


@pytest.fixture
def now():
    """A moment; tests that depend on the time get it from here."""
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

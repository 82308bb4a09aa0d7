"""Tests that the machine can't run: skipped with a reason for a person, failed where nobody looks at skips."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """End a test for want of something in its environment; with CI set, which promises that all is there, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must run every test, but {reason}", pytrace=False)
    pytest.skip(reason)

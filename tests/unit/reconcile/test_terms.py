from __future__ import annotations

from typing import Any

import pytest

from opengpu_operator.reconcile.terms import violations
from tests.unit.reconcile.builders import source, task


@pytest.mark.parametrize(
    ("terms", "wish", "fields"),
    [
        ({}, {}, []),
        ({"minPayment": "10"}, {"payment": "10"}, []),
        ({"minPayment": "10"}, {"payment": "9"}, ["payment"]),
        ({"minPayment": "10"}, {}, ["payment"]),
        ({"minPayment": "0"}, {}, []),
        # Amounts are wei: far beyond what a float or a 64-bit integer holds.
        (
            {"minPayment": "100000000000000000000000001"},
            {"payment": "100000000000000000000000000"},
            ["payment"],
        ),
        ({"maxExpirySeconds": 60}, {"expirySeconds": 60}, []),
        ({"maxExpirySeconds": 60}, {"expirySeconds": 61}, ["expirySeconds"]),
        ({"maxExpirySeconds": 60}, {}, []),
        ({}, {"environment": "nvidia"}, []),
        ({}, {"environment": "amd"}, ["environment"]),
        ({}, {"environment": "Auto"}, []),
        (
            {"minPayment": "10", "maxExpirySeconds": 60},
            {"expirySeconds": 61, "environment": "amd"},
            ["payment", "expirySeconds", "environment"],
        ),
    ],
)
def test_every_broken_term_is_named(terms: dict[str, Any], wish: dict[str, Any], fields: list[str]) -> None:
    assert [violation.field for violation in violations(task(**wish), source(**terms))] == fields


def test_the_message_says_what_would_be_accepted() -> None:
    (violation,) = violations(task(environment="amd"), source())
    assert violation.message == "environment amd is not offered; the source has cpu, nvidia"

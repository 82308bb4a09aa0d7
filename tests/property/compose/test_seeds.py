"""What the fuzzer starts from, and what it found once: none of it is a crash. ``make fuzz`` looks for more."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import mutate, target

SEEDS = list(target.seeds())


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_seed(number: int) -> None:
    target.check(SEEDS[number])


def test_a_crash_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opengpu_operator.compose.gpu.read", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        target.check(b"services: {app: {image: x}}")


def test_the_fuzzers_own_changes_leave_files() -> None:
    chance = random.Random(0)
    seed = next(seed for seed in SEEDS if seed.startswith(b"services:\n  app:"))
    made = {
        mutate.mutated(seed, 4096, seed=number, bytewise=lambda data, size: chance.randbytes(8)[:size])
        for number in range(200)
    }
    assert len(made) > 100
    for data in made:
        target.check(data)
    # Most of them get past the reading, which changed bytes rarely do.
    assert sum(mutate._tree(data) is not None for data in made) > 60

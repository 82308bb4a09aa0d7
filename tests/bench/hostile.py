"""The worst that a file can do to the translator and to the job builder, of all that the tests attack them with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.compose import pipeline
from opengpu_operator.desired.job import build
from tests.bench import fresh
from tests.bench.row import Figure, Row
from tests.support import jobs
from tests.support.attacks import ATTACKS
from tests.support.compose import VARIABLES, Echo

#: What a file may take, whatever is in it.
CPU_MS = 200
MEMORY_MIB = 64
_MEBI = 2**20
_OPTIONS = TranslateOptions(variables=VARIABLES)


def _translate(text: str | bytes) -> Translation:
    return asyncio.run(pipeline.translate(text, _OPTIONS, kompose=Echo()))


def _each(action: Callable[[str | bytes], Callable[[], object]]) -> dict[str, fresh.Cost]:
    _translate(ATTACKS[0].text)  # whatever is made once
    return {str(attack): fresh.memory(action(attack.text)) for attack in ATTACKS}


def _translated() -> dict[str, fresh.Cost]:
    return _each(lambda text: lambda: _translate(text))


def _built() -> dict[str, fresh.Cost]:
    def building(text: str | bytes) -> Callable[[], object]:
        translation = _translate(text)

        def run() -> None:
            if not translation.refused:
                with contextlib.suppress(Invalid):
                    build(translation, jobs.context(), jobs.settings())

        return run

    return _each(building)


_TRANSLATED, _BUILT = fresh.Shared(_translated), fresh.Shared(_built)


def translating() -> Figure:
    worst = max(cost.cpu for cost in _TRANSLATED.next("cpu").values())
    return Figure(value=1000 * worst, reference=CPU_MS, unit="cpu-ms")


def remembering() -> Figure:
    worst = max(cost.growth for cost in _TRANSLATED.next("memory").values())
    return Figure(value=worst / _MEBI, reference=MEMORY_MIB, unit="MiB")


def building() -> Figure:
    worst = max(cost.cpu for cost in _BUILT.next("cpu").values())
    return Figure(value=1000 * worst, reference=CPU_MS, unit="cpu-ms")


ROWS = [
    Row(name="translate-hostile", measure=translating, target=1.0, why="what any file may take: 200 ms"),
    Row(
        name="translate-hostile-memory", measure=remembering, target=1.0, why="what any file may need: 64 MiB"
    ),
    Row(name="build-hostile", measure=building, target=1.0, why="what any file may take: 200 ms"),
]

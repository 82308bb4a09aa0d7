"""Translating Compose files, against kompose alone; and a job's objects, against writing them as JSON.

The files are those of ``files``; where the corpus of public files is there, they are measured in rows of their own.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opengpu_operator.api.jobid import job_id, job_name
from opengpu_operator.api.source import Environment
from opengpu_operator.api.task import SourceRef, TaskSpec
from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.kompose import Kompose, find
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.job import build
from opengpu_operator.settings import Settings
from tests.bench import fresh
from tests.bench.row import Figure, Row
from tests.support.corpus import CORPUS

# The shape of OpenGPU's own sources: a worker, a model server with a GPU, and what they need.
FILE = """
services:
  worker:
    image: example.org/worker:1
    ports: ["${PORT}:5555"]
    environment: {CALLBACK_URL: "${CALLBACK_URL}", MODEL: small}
    depends_on: {server: {condition: service_healthy}}
  server:
    image: example.org/server:1
    volumes: ["models:/root/.cache/huggingface"]
    healthcheck: {test: [CMD, curl, -f, "http://localhost:8000"], interval: 10s, start_period: 60s}
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
  cache:
    image: redis:7
    command: redis-server --save ""
volumes: {models: {}}
"""
# What is left of it that kompose has something to say about.
PLAIN = """
services:
  worker: {image: "example.org/worker:1", ports: ["5555:5555"], environment: {MODEL: small}}
  server: {image: "example.org/server:1"}
  cache: {image: "redis:7", command: redis-server --save ""}
"""
OPTIONS = TranslateOptions(
    environment="nvidia", variables={"PORT": "5555", "CALLBACK_URL": "http://127.0.0.1:20000"}
)


FILES = sorted((Path(__file__).parent / "files").glob("*.yaml"))
_TIMES = 5
_MEBI = 2**20


def _seconds(action: object) -> float:
    start = time.perf_counter()
    assert callable(action)
    action()
    return time.perf_counter() - start


def _translated() -> Translation:
    result = asyncio.run(pipeline.translate(FILE, OPTIONS, kompose=Kompose(find())))
    assert not result.refused, result.findings
    return result


def translate() -> Figure:
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "compose.yaml").write_text(PLAIN)
        command = [str(find()), "convert", "--stdout", "--with-kompose-annotation=false"]

        def kompose() -> None:
            subprocess.run(command, cwd=folder, env={}, capture_output=True, check=True)

        for _ in range(7):
            ours.append(1000 * _seconds(_translated))
            plain.append(1000 * _seconds(kompose))
    return Figure(value=statistics.median(ours), reference=statistics.median(plain), unit="ms")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One translation: how long it took, how much of that was kompose's, and kompose alone on the same file; ms."""

    total: float
    inside: float
    alone: float


class _Watched:
    """kompose, with the time that it takes and the file that it gets."""

    def __init__(self, kompose: Kompose) -> None:
        self._kompose = kompose
        self.took = 0.0
        self.file = b""

    async def convert(self, file: bytes) -> dict[str, dict[str, Any]]:
        start = time.perf_counter()
        found = await self._kompose.convert(file)
        self.took, self.file = 1000 * (time.perf_counter() - start), file
        return found


def _samples(files: Iterable[Path]) -> list[Sample]:
    found = []
    options = TranslateOptions(variables=OPTIONS.variables, profiles=["*"])
    command = [str(find()), "convert", "--stdout", "--with-kompose-annotation=false"]
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        for path in files:
            text, watched = path.read_bytes(), _Watched(Kompose(find()))
            for _ in range(_TIMES):
                total = 1000 * _seconds(
                    lambda: runner.run(pipeline.translate(text, options, kompose=watched))  # noqa: B023 - called at once
                )
                if not watched.file:
                    break  # refused: kompose has no part in it
                (Path(folder) / "compose.yaml").write_bytes(watched.file)
                alone = 1000 * _seconds(
                    lambda: subprocess.run(command, cwd=folder, env={}, capture_output=True, check=True)
                )
                found.append(Sample(total=total, inside=watched.took, alone=alone))
    return found


def _quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def translated(name: str, files: list[Path]) -> list[Row]:
    """Return the rows for a set of files, which are measured once for all of them."""
    taken = fresh.Shared(lambda: _samples(files))

    def at(share: float) -> Callable[[], Figure]:
        def measure() -> Figure:
            samples = taken.next(f"{name}-{share}")
            return Figure(
                value=_quantile((sample.total for sample in samples), share),
                reference=_quantile((sample.alone for sample in samples), share),
                unit="ms",
            )

        return measure

    def part() -> Figure:
        samples = taken.next(f"{name}-part")
        inside = statistics.median(sample.inside for sample in samples)
        return Figure(
            value=inside, reference=statistics.median(sample.total for sample in samples), unit="ms"
        )

    why = "kompose alone, on the files that it is given"
    return [
        Row(name=f"{name}-p50", measure=at(0.50), target=1.5, why=why),
        Row(name=f"{name}-p99", measure=at(0.99), target=2.0, why=why),
        Row(
            name=f"{name}-kompose-share",
            measure=part,
            target=0.7,
            better="higher",
            why="the whole translation, of which kompose should be most",
        ),
    ]


def memory() -> Figure:
    """Return what a process that translates all the files needs at most, against one that translates none."""
    options = TranslateOptions(variables=OPTIONS.variables, profiles=["*"])
    texts = [path.read_bytes() for path in FILES]

    def all_of_them() -> None:
        for text in texts:
            asyncio.run(pipeline.translate(text, options, kompose=Kompose(find())))

    before, after = fresh.memory(lambda: None), fresh.memory(all_of_them)
    return Figure(value=after.peak / _MEBI, reference=before.peak / _MEBI, unit="MiB")


def context() -> JobContext:
    """Return what a job is made from besides its translation."""
    created, uid = datetime(2026, 1, 1, tzinfo=UTC), "7f1c0a52-93f3-4b9f-8f0a-2f6f0d6f8c11"
    job = job_id(created, uid)
    owner = {"apiVersion": "v1", "kind": "OpenGPUTask", "name": "t", "uid": uid, "controller": True}
    return JobContext(
        name=job_name(job),
        job_id=job,
        namespace="bench",
        task="t",
        task_uid=uid,
        source="s",
        source_uid=uid,
        owner_reference=owner,
        source_owner_reference=owner,
        environment=Environment.NVIDIA,
        spec=TaskSpec(source_ref=SourceRef(name="s")),
        volumes={},
        image_pull_secrets=[],
        resolvers=["10.96.0.10"],
        token="token",
        call=True,
    )


def objects() -> Figure:
    translation, job, settings, times = _translated(), context(), Settings(), 200
    made = build(translation, job, settings).everything

    def each(action: object) -> float:
        assert callable(action)
        start = time.process_time()
        for _ in range(times):
            action()
        return 1000 * (time.process_time() - start) / times / len(made)

    value = each(lambda: build(translation, job, settings))
    return Figure(value=value, reference=each(lambda: json.loads(json.dumps(made))), unit="cpu-ms/object")


ROWS = [
    Row(
        name="translate-file",
        measure=translate,
        target=2.0,
        why="kompose alone, on what it can read of the file",
    ),
    *translated("translate", FILES),
    *(translated("translate-corpus", sorted(CORPUS.glob("*.yaml"))) if CORPUS.is_dir() else ()),
    Row(
        name="translate-memory",
        measure=memory,
        target=1.25,
        why="the same process, before it translates anything",
    ),
    Row(name="build-objects", measure=objects, target=15.0, why="the same objects to JSON and back"),
]

"""Translating a Compose file, against kompose alone; and a job's objects, against writing them as JSON."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from opengpu_operator.api.jobid import job_id, job_name
from opengpu_operator.api.source import Environment
from opengpu_operator.api.task import SourceRef, TaskSpec
from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.kompose import Kompose, find
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.job import build
from opengpu_operator.settings import Settings
from tests.bench.row import Figure, Row

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
    Row(name="build-objects", measure=objects, target=15.0, why="the same objects to JSON and back"),
]

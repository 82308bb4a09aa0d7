"""The operator, with translator and store, beside a control plane of its own: what a task costs, how fast it goes.

A round is one life of the operator: it starts, gets its tasks one by one, then many at once, and is stopped. Meanwhile
a loop of bare requests makes the same objects where the operator doesn't look. All rows read the same rounds.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import json
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from opengpu_operator.api.labels import TASK_UID
from opengpu_operator.api.translation import Translation
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.kompose import Kompose, find
from opengpu_operator.desired.job import build
from opengpu_operator.kube.gateway import HttpGateway
from opengpu_operator.kube.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    INGRESS,
    NETWORK_POLICY,
    POD,
    PVC,
    SECRET,
    SERVICE,
    SOURCE,
    TASK,
    Kind,
    kind_of,
)
from opengpu_operator.settings import Settings
from tests.bench import translate
from tests.bench.row import REPEATS, Figure, Row
from tests.support.stack import BIN, WRITES, Stack, eventually

CLUSTER = "bench"
CRDS = Path(__file__).resolve().parents[2] / "crds"
ONE_BY_ONE, AT_ONCE, CONCURRENCY = 50, 300, 32
FILE = """
services:
  worker:
    image: example.org/worker:1
    ports: ["${PORT}:5555", "8080:8080"]
    environment: {CALLBACK_URL: "${CALLBACK_URL}"}
"""
CHILDREN = (SECRET, SERVICE, PVC, NETWORK_POLICY, INGRESS, DEPLOYMENT, CONFIG_MAP)
API = "opengpu.network/v1alpha1"
#: Where the bare requests go; the operator doesn't look there.
BARE = [f"bare-{os.getpid()}-{number}" for number in range(REPEATS)]
UID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one life of the operator showed."""

    children: float
    """How many objects a task has."""
    writes: float
    gets: float
    """Requests per task, whatever their answer, once nothing moves any more."""
    latencies: list[float]
    """Seconds from a task's creation until its status shows its job."""
    config_maps: list[float]
    """Seconds that creating a ConfigMap took, between those tasks."""
    burst_seconds: float
    burst_cpu: float
    bare_seconds: float
    bare_cpu: float
    resident: float
    """MiB at the highest."""
    bare_resident: float
    restart_seconds: float
    restart_writes: float
    bare_restart_seconds: float


class Bench:
    """A control plane and an operator."""

    def __init__(self, directory: Path, kubeconfig: Path) -> None:
        self.directory = directory
        self.kubeconfig = kubeconfig
        excluded = {"excluded": ["kube-system", "kube-public", "kube-node-lease", *BARE]}
        self.stack = Stack(directory, kubeconfig, namespaces=excluded)
        self.settings = Settings.load(directory / "config.yaml")
        self.translation = _translation()

    def requests(self) -> tuple[float, float]:
        """Return how many writes and GETs the operator has sent, but those for a source's own status."""
        # A source counts its tasks every few seconds, however many there are.
        sent = [(verb, count) for (verb, kind), count in self.stack.requests().items() if kind != SOURCE.kind]
        writes = sum(count for verb, count in sent if verb in WRITES)
        return writes, sum(count for verb, count in sent if verb == "get")

    def cpu(self) -> float:
        """Return the operator's CPU seconds so far."""
        fields = Path(f"/proc/{self.stack.operator.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # --- one life -------------------------------------------------------------------------------------------------

    async def round(self, number: int) -> Round:
        """Measure everything once."""
        async with await HttpGateway.connect(kubeconfig=self.kubeconfig) as gateway:
            if not self.stack.operator.running:
                self.stack.start()
            single, burst = f"single-{os.getpid()}-{number}", f"burst-{os.getpid()}-{number}"
            for namespace in (single, burst):
                await self._source(gateway, namespace)
            self.stack.settle()
            before = self.requests()
            latencies, config_maps = await self._one_by_one(gateway, single)
            self.stack.settle()
            writes, gets = (after - then for after, then in zip(self.requests(), before, strict=True))
            children = await self._children(gateway, single) / ONE_BY_ONE

            cpu = self.cpu()
            burst_seconds = await self._at_once(gateway, burst)
            burst_cpu = self.cpu() - cpu
            assert await self._children(gateway, burst) == children * AT_ONCE
            await self._pods(gateway, burst)
            self.stack.settle()
            resident = _peak(Path(f"/proc/{self.stack.operator.pid}/status").read_text())

            self.stack.operator.stop()
            status = (await gateway.list(TASK, burst))[0]["status"]
            bare_seconds, bare_cpu = await self._bare(gateway, BARE[number], status)
            assert await self._children(gateway, BARE[number]) == children * AT_ONCE
            await self._pods(gateway, BARE[number])

            bare_restart, bare_resident = _bare_start()
            started = time.perf_counter()
            self.stack.operator.start()
            eventually(self.stack.ready, within=60, otherwise=self.stack.logs)
            restart = time.perf_counter() - started
            self.stack.settle()
            return Round(
                children=children,
                writes=writes / ONE_BY_ONE,
                gets=gets / ONE_BY_ONE,
                latencies=sorted(latencies),
                config_maps=config_maps,
                burst_seconds=burst_seconds,
                burst_cpu=burst_cpu,
                bare_seconds=bare_seconds,
                bare_cpu=bare_cpu,
                resident=resident,
                bare_resident=bare_resident,
                restart_seconds=restart,
                restart_writes=self.requests()[0],
                bare_restart_seconds=bare_restart,
            )

    async def _source(self, gateway: HttpGateway, namespace: str) -> None:
        """Make a namespace with a source that is ready."""
        await gateway.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        metadata = {"name": "file", "namespace": namespace}
        data = {"cpu.yaml": FILE}
        await gateway.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        reference = {"configMapKeyRef": {"name": "file", "key": "cpu.yaml"}}
        source = {"apiVersion": API, "kind": SOURCE.kind, "metadata": {"name": "s", "namespace": namespace}}
        await gateway.create({**source, "spec": {"imageEnvs": {"cpu": reference}}})

        async def ready() -> bool:
            found = await gateway.get(SOURCE, namespace, "s") or {}
            conditions = found.get("status", {}).get("conditions", [])
            return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)

        await _until(ready)

    async def _one_by_one(self, gateway: HttpGateway, namespace: str) -> tuple[list[float], list[float]]:
        latencies, config_maps = [], []
        async with self._jobs(gateway, namespace) as jobs:
            for number in range(ONE_BY_ONE):
                start = time.perf_counter()
                metadata = {"name": f"c{number}", "namespace": namespace, "labels": {"bench": "bare"}}
                await gateway.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
                config_maps.append(time.perf_counter() - start)
                start = time.perf_counter()
                await gateway.create(_task(namespace, number))
                async with asyncio.timeout(30):
                    await anext(jobs)
                latencies.append(time.perf_counter() - start)
                await self._pods(gateway, namespace, number + 1)
        return latencies, config_maps

    async def _at_once(self, gateway: HttpGateway, namespace: str) -> float:
        """Return the seconds from the first task's creation until the last one's status was written."""
        async with self._jobs(gateway, namespace) as jobs:
            start = time.perf_counter()
            numbers = iter(range(AT_ONCE))

            async def make() -> None:
                for number in numbers:
                    await gateway.create(_task(namespace, number))

            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(make())
                async with asyncio.timeout(120):
                    for _ in range(AT_ONCE):
                        await anext(jobs)
            return time.perf_counter() - start

    @contextlib.asynccontextmanager
    async def _jobs(self, gateway: HttpGateway, namespace: str) -> AsyncIterator[AsyncIterator[str]]:
        """Watch a namespace's tasks; yield the name of each when its status shows a job for the first time."""
        version = (await gateway.list(TASK, namespace)).resource_version
        path = gateway.configuration.host + TASK.path(namespace)

        async def follow(session: aiohttp.ClientSession, version: str) -> AsyncIterator[str]:
            seen = set()
            while True:
                query = {"watch": "1", "resourceVersion": version}
                async with session.get(path, params=query) as response:
                    async for line in response.content:
                        task = json.loads(line)["object"]
                        name, version = task["metadata"]["name"], task["metadata"]["resourceVersion"]
                        if name not in seen and "jobId" in task.get("status", {}):
                            seen.add(name)
                            yield name

        async with _session(gateway) as session:
            yield follow(session, version)

    async def _bare(
        self, gateway: HttpGateway, namespace: str, status: dict[str, Any]
    ) -> tuple[float, float]:
        """Make the same objects with as little as it takes; return seconds, and seconds of our own CPU."""
        await gateway.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        base, numbers = gateway.configuration.host, iter(range(AT_ONCE))
        prepared = [
            (_task(namespace, number), self._manifests(namespace, number)) for number in range(AT_ONCE)
        ]

        async def send(session: aiohttp.ClientSession, method: str, path: str, body: str, kind: str) -> Any:
            headers = {"Content-Type": f"application/{kind}"}
            async with session.request(method, base + path, data=body, headers=headers) as response:
                answer = json.loads(await response.read())
                assert response.status < 300, answer
                return answer

        async def make(session: aiohttp.ClientSession) -> None:
            for number in numbers:
                task, manifests = prepared[number]
                made = await send(session, "POST", TASK.path(namespace), json.dumps(task), "json")
                uid = made["metadata"]["uid"]
                for kind, manifest in manifests:
                    body = json.dumps(manifest).replace(UID, uid)
                    await send(session, "POST", kind.path(namespace), body, "json")
                patch = [
                    {"op": "test", "path": "/metadata/uid", "value": uid},
                    {"op": "add", "path": "/status", "value": status},
                ]
                path = TASK.path(namespace, task["metadata"]["name"], "status")
                await send(session, "PATCH", path, json.dumps(patch), "json-patch+json")

        async with _session(gateway) as session:
            start, cpu = time.perf_counter(), time.process_time()
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(make(session))
            return time.perf_counter() - start, time.process_time() - cpu

    def _manifests(self, namespace: str, number: int) -> list[tuple[Kind, dict[str, Any]]]:
        """Return a task's children, with a UID that is to be replaced."""
        job = f"{number:016x}"
        owner = {"apiVersion": API, "kind": TASK.kind, "name": f"t{number}", "uid": UID, "controller": True}
        context = replace(
            translate.context(),
            name=f"j-{job}",
            job_id=job,
            namespace=namespace,
            task=f"t{number}",
            task_uid=UID,
            owner_reference=owner,
        )
        return [(kind_of(obj), obj) for obj in build(self.translation, context, self.settings).everything]

    async def _children(self, gateway: HttpGateway, namespace: str) -> int:
        """Return how many objects of tasks there are."""
        found = [
            await gateway.list(kind, namespace, label_selector=TASK_UID, metadata_only=True)
            for kind in CHILDREN
        ]
        return sum(map(len, found))

    async def _pods(self, gateway: HttpGateway, namespace: str, number: int = AT_ONCE) -> None:
        """Wait until the controllers of Kubernetes have made the tasks' pods, so that nobody else is busy."""

        async def there() -> bool:
            return len(await gateway.list(POD, namespace, metadata_only=True)) >= number

        await _until(there)


def _task(namespace: str, number: int) -> dict[str, Any]:
    metadata = {"name": f"t{number}", "namespace": namespace}
    spec = {"sourceRef": {"name": "s"}, "functionName": "read", "data": {"text": f"page {number}"}}
    return {"apiVersion": API, "kind": TASK.kind, "metadata": metadata, "spec": spec}


def _translation() -> Translation:
    result = asyncio.run(pipeline.translate(FILE, translate.OPTIONS, kompose=Kompose(find())))
    assert not result.refused, result.findings
    return result


def _session(gateway: HttpGateway) -> aiohttp.ClientSession:
    """Return plain connections with the gateway's credentials."""
    configuration = gateway.configuration
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    assert configuration.cert_file
    context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONCURRENCY, ssl=context),
        headers={"Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=300),
        read_bufsize=2**20,
    )


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110 - it is the API server's
            await asyncio.sleep(0.05)


def _peak(status: str) -> float:
    """Return the most memory that a process had, in MiB."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def _bare_start() -> tuple[float, float]:
    """Return how long the operator's modules take to be loaded, and the memory they take."""
    code = "import opengpu_operator.__main__; print(open('/proc/self/status').read())"
    start = time.perf_counter()
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - start, _peak(shown)


# --- rounds, shared by the rows ------------------------------------------------------------------------------------


@functools.cache
def _bench() -> Bench:
    """Return what is measured; what is started for it is stopped when this process ends."""
    program = str(BIN / "localcluster")

    def localcluster(command: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, command, "--name", CLUSTER, *options], capture_output=True, text=True, check=False
        )

    if localcluster("status").returncode:
        started = localcluster("up", "--control-plane-only")
        assert started.returncode == 0, started.stderr
        atexit.register(localcluster, "down")
    kubeconfig = Path(localcluster("kubeconfig").stdout.strip())
    kubectl = [str(BIN / "kubectl"), "--kubeconfig", str(kubeconfig)]
    subprocess.run([*kubectl, "apply", "--server-side", "-f", str(CRDS)], check=True, capture_output=True)
    wait = [*kubectl, "wait", "--for=condition=Established", "crd", "--all"]
    subprocess.run(wait, check=True, capture_output=True)
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory)
    bench = Bench(directory, kubeconfig)
    atexit.register(bench.stack.stop)
    return bench


_rounds: list[Round] = []


def _row(name: str, read: Callable[[Round], Figure], target: float, **more: Any) -> Row:
    """Return a row that reads the first round when it is measured first, the second one then, and so on."""
    numbers: Iterator[int] = itertools.count()

    def measure() -> Figure:
        number = next(numbers)
        if number == len(_rounds):
            _rounds.append(asyncio.run(_bench().round(number)))
        return read(_rounds[number])

    return Row(name=name, measure=measure, target=target, **more)


def _milliseconds(seconds: float, reference: float) -> Figure:
    return Figure(value=1000 * seconds, reference=1000 * reference, unit="ms")


ROWS = [
    _row(
        "task-writes",
        lambda round_: Figure(value=round_.writes, reference=round_.children + 1, unit="writes"),
        1.0,
        why="one per object and one for the status",
    ),
    _row(
        "task-gets",
        lambda round_: Figure(value=round_.gets, reference=round_.children + 1, unit="GETs"),
        0.0,
        why="the writes",
    ),
    _row(
        "task-latency-p50",
        lambda round_: _milliseconds(
            statistics.median(round_.latencies), statistics.median(round_.config_maps)
        ),
        12.0,
        why="creating one ConfigMap, half of the times",
    ),
    _row(
        "task-latency-p99",
        lambda round_: _milliseconds(
            statistics.quantiles(round_.latencies, n=100, method="inclusive")[98],
            statistics.median(round_.config_maps),
        ),
        30.0,
        why="creating one ConfigMap, half of the times",
    ),
    _row(
        "task-burst",
        lambda round_: Figure(
            value=AT_ONCE / round_.burst_seconds, reference=AT_ONCE / round_.bare_seconds, unit="tasks/s"
        ),
        0.65,
        better="higher",
        why="bare requests that make the same objects",
    ),
    _row(
        "operator-cpu",
        lambda round_: Figure(
            value=1000 * round_.burst_cpu / AT_ONCE / round_.children,
            reference=1000 * round_.bare_cpu / AT_ONCE / (round_.children + 2),
            unit="cpu-ms/write",
        ),
        1.7,
        why="bare requests that make the same objects",
    ),
    _row(
        "operator-rss",
        lambda round_: Figure(value=round_.resident, reference=round_.bare_resident, unit="MiB"),
        1.25,
        why="a Python that has loaded the operator's modules and does nothing",
    ),
    _row(
        "operator-restart",
        lambda round_: Figure(value=round_.restart_seconds, reference=round_.bare_restart_seconds, unit="s"),
        3.0,
        why="loading the operator's modules",
    ),
    _row(
        "operator-restart-writes",
        lambda round_: Figure(value=round_.restart_writes, reference=AT_ONCE, unit="writes"),
        0.0,
        why="the tasks that are there",
    ),
]

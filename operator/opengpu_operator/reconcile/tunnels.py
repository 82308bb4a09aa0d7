"""Cloudflare tunnels that containers open by themselves, noticed in the first seconds of their logs.

The logs are read beside the reconciles, by few workers, and by their timestamps: it makes no difference whether a line
is looked at a moment after it was printed or after the operator was away for an hour. A container's log is read twice
while its window is open, so that somebody who waits for the URL gets it soon, and once more a little after it has
closed, which is the time that counts; then never again while this process lives. The task's status says where
its tunnel was found, so nothing else has to be remembered: what a former process found stays for as long as that
container runs, and of those that opened none each log is read once more by the next process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from opengpu_operator.api.conditions import timestamp
from opengpu_operator.api.task import Task, Tunnel
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import Forbidden, KubeError
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import NODE
from opengpu_operator.reconcile import tunnelurl
from opengpu_operator.reconcile.gates import component
from opengpu_operator.reconcile.queue import KeyedQueue
from opengpu_operator.settings import TunnelSettings

logger = logging.getLogger(__name__)

Object = Mapping[str, Any]

#: How many logs are read at once: the kubelets' time is the jobs', and reconciles share the way to the API server.
WORKERS: Final = 4
#: Seconds after a container's start at which its log is looked at while the window is open.
EARLY: Final = (4.0, 10.0)
#: Seconds after the end of the window at which it is looked at last. A line takes a moment to arrive, clocks differ,
#: and times of starts are cut to whole seconds.
GRACE: Final = 5.0
#: A read takes this many bytes …
LIMIT: Final = 256 * 1024
#: … and a container gets this many reads, so that one that prints without end costs little more than any other.
READS: Final = 10
#: A second that fills a whole read by itself counts as this many: it isn't one in which people look for a URL.
FLOOD: Final = 3
#: For so long one read may take, in seconds.
PATIENCE: Final = 10.0
#: After a failure: seconds to the next try, doubled up to the longest.
FIRST_DELAY: Final = 2.0
LONGEST_DELAY: Final = 300.0
#: A refusal may be of a moment (a container about to start), so it is believed at this one.
REFUSALS: Final = 5

_SECOND: Final = timedelta(seconds=1)


class Run(NamedTuple):
    """One run of a container, from one start to its end."""

    namespace: str
    task_uid: str
    pod: str
    service: str
    """The container's name, which is the DNS name of its service."""
    restarts: int
    started: datetime
    """To the second."""
    node: str

    def opened(self, tunnel: Tunnel) -> bool:
        """Return whether a tunnel is this run's."""
        return (self.pod, self.service, self.restarts, timestamp(self.started)) == (
            tunnel.pod,
            tunnel.service,
            tunnel.restarts,
            tunnel.started_at,
        )


def runs(task: Task, pods: Iterable[Object], *, main: str) -> list[Run]:
    """Return the containers of a task's pods that run, the main service's first, the others in order of their names.

    The agent is no container of the job's. What is told to stop counts as gone.
    """
    found = []
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        for container in pod.get("status", {}).get("containerStatuses", []):
            started = (container.get("state", {}).get("running") or {}).get("startedAt")
            if started:
                run = Run(
                    namespace=task.metadata.namespace,
                    task_uid=task.metadata.uid,
                    pod=pod["metadata"]["name"],
                    service=container["name"],
                    restarts=container.get("restartCount", 0),
                    started=datetime.fromisoformat(started),
                    node=pod["spec"].get("nodeName", ""),
                )
                found.append((component(pod) != main, run.service, run))
    return [run for _, _, run in sorted(found)]


class Excerpt(NamedTuple):
    """What a read of a log gave."""

    url: str | None
    """The first tunnel's within the window."""
    last: datetime | None
    """When the last whole line was printed; None if there is none."""
    readable: bool
    """Whether it is a log: the kubelet says in its place why there is none."""


def excerpt(raw: bytes, *, until: datetime) -> Excerpt:
    """Look for a tunnel in what was logged before ``until``, each line with its time in front.

    A last line without an end was cut off, and is left for the next read.
    """
    lines = raw.decode(errors="replace").split("\n")
    times = [_moment(line) for line in lines]
    stamped = [(moment, line) for moment, line in zip(times[:-1], lines[:-1], strict=True) if moment]
    return Excerpt(
        url=tunnelurl.find(line.partition(" ")[2] for moment, line in stamped if moment < until),
        last=stamped[-1][0] if stamped else None,
        readable=not raw or times[0] is not None,
    )


def _moment(line: str) -> datetime | None:
    """Return the time at the start of a line, as the kubelet writes it."""
    try:
        found = datetime.fromisoformat(line[:40].partition(" ")[0])
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


@dataclass(slots=True)
class _Look:
    """What became of one run so far."""

    since: datetime
    """What was printed before this is known."""
    url: str | None = None
    over: bool = False
    reads: int = 0
    failures: int = 0


class Tunnels:
    """Looks for tunnels in logs. What it holds, the next process finds out again."""

    def __init__(
        self,
        *,
        settings: TunnelSettings,
        gateway: Gateway,
        cache: Cache,
        changed: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """``changed(uid)`` is called when a tunnel of a task was found."""
        self._enabled = settings.enabled
        self._window = timedelta(seconds=settings.window_seconds)
        self._times = [early for early in EARLY if early < settings.window_seconds]
        self._times.append(settings.window_seconds + GRACE)
        self._gateway = gateway
        self._cache = cache
        self._changed = changed
        self._clock = clock
        self._looks: dict[str, dict[Run, _Look]] = {}
        """By the UID of the task: the runs that are looked at, or were in vain."""
        self._told = False
        self._queue: KeyedQueue[Run] = KeyedQueue(
            self._look, workers=WORKERS, group=lambda run: run.namespace
        )

    def observe(self, task: Task, pods: Iterable[Object], *, main: str) -> None:
        """Have a task's status say what is known of its tunnels, and its logs looked at as long as it has none.

        The first that is found stays until its container restarts or goes. Never waits, never fails.
        """
        status, uid = task.status, task.metadata.uid
        running = runs(task, pods, main=main) if self._enabled else []
        if status.tunnel is not None and any(run.opened(status.tunnel) for run in running):
            self.forget(uid)
            return
        status.tunnel = status.cftunnel = None
        known = self._looks.pop(uid, {})
        if running:
            self._looks[uid] = {run: known.get(run) or _Look(since=run.started) for run in running}
        for run in running:
            if run not in known:
                self._queue.add_after(run, self._times[0] - self._age(run))
        found = next((run for run in running if run in known and known[run].url), None)
        if found is not None:
            status.cftunnel = known[found].url
            status.tunnel = Tunnel(
                service=found.service,
                pod=found.pod,
                started_at=timestamp(found.started),
                restarts=found.restarts,
            )

    def forget(self, uid: str) -> None:
        """Look at a task's logs no more."""
        self._looks.pop(uid, None)

    async def run(self, stop: asyncio.Event) -> None:
        """Read logs until ``stop``."""
        await self._queue.run(stop)

    def _age(self, run: Run) -> float:
        return (self._clock() - run.started).total_seconds()

    async def _look(self, run: Run) -> float | None:
        """Read a piece of a log; return in how many seconds to read on, None when all is known."""
        look = self._looks.get(run.task_uid, {}).get(run)
        if look is None or look.over or look.url:
            return None
        if not self._node_ready(run.node):
            # Nobody would answer, and each who asks all the same keeps a worker from others.
            return GRACE
        age = self._age(run)
        try:
            async with asyncio.timeout(PATIENCE):
                raw = await self._gateway.pod_log(
                    run.namespace,
                    run.pod,
                    container=run.service,
                    since=timestamp(look.since),
                    limit_bytes=LIMIT,
                    timestamps=True,
                )
        except (KubeError, TimeoutError) as error:
            return self._failed(run, look, error)
        # Of a start at 0.9 s only the 0 is known.
        until = run.started + self._window + _SECOND
        found = excerpt(raw, until=until)
        if not found.readable:
            return self._failed(run, look, None)
        look.failures = 0
        if found.url is not None:
            look.url = found.url
            self._changed(run.task_uid)
            return None
        cut = len(raw) >= LIMIT
        # The last second once more: a line of it may be missing.
        since = max(look.since, found.last.replace(microsecond=0)) if found.last is not None else look.since
        flooded = cut and since == look.since
        look.since = since + _SECOND if flooded else since
        look.reads += FLOOD if flooded else 1
        later = next((moment - age for moment in self._times if moment > age), None)
        look.over = look.since >= until or look.reads >= READS or (later is None and not cut)
        if look.over:
            return None
        return 0.0 if cut else later

    def _node_ready(self, name: str) -> bool:
        """Return whether a node's kubelet is there, as far as is known."""
        node = self._cache.get(NODE, None, name)
        conditions = node.get("status", {}).get("conditions", []) if node else []
        return not any(entry["type"] == "Ready" and entry["status"] != "True" for entry in conditions)

    def _failed(self, run: Run, look: _Look, error: Exception | None) -> float | None:
        """Return in how many seconds a log that couldn't be read is tried again; None if it isn't."""
        look.failures += 1
        if isinstance(error, Forbidden) and not self._told:
            self._told = True
            logger.warning("tunnels aren't noticed: the operator may not get pods/log: %s", error)
        refused = isinstance(error, KubeError) and 400 <= error.code < 500
        look.over = refused and look.failures >= REFUSALS
        delay = min(FIRST_DELAY * 2.0 ** min(look.failures - 1, 16), LONGEST_DELAY)
        logger.debug("the log of %s/%s can't be read: %s", run.pod, run.service, error or "there is none yet")
        return None if look.over else delay

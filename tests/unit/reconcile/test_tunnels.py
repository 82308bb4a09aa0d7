"""Which logs are read when and how often, what is taken from them, and what of it outlives a process.

The kubelets are lists of lines, and time is the event loop's.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, cast

import looptime
import pytest

from opengpu_operator.api.task import Task
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import Forbidden, KubeError, NotFound, Unavailable, Unprocessable
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import NODE
from opengpu_operator.reconcile import tunnels
from opengpu_operator.reconcile.tunnels import LIMIT, READS, Tunnels, excerpt, runs
from opengpu_operator.settings import TunnelSettings
from tests.unit.reconcile.builders import NOW, at, pod, task, terminated

URL = "https://amber-birch-cedar-delta.trycloudflare.com"
OTHER = "https://ember-fjord-grove-heron.trycloudflare.com"


def running(service: str = "web", *, since: float = 0, restarts: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a pod whose container started ``since`` seconds after NOW."""
    state = {"running": {"startedAt": at(since)}}
    return pod(
        service, containerStatuses=[{"name": service, "restartCount": restarts, "state": state}], **fields
    )


def stamp(moment: datetime) -> str:
    """Return a time as the kubelet writes it, with nine digits of a second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z"


class Kubelets:
    """The logs of all pods: ``printed[pod]`` are the seconds after NOW at which lines were printed, and the lines."""

    def __init__(self) -> None:
        self.printed: dict[str, list[tuple[float, str]]] = {}
        self.reads: list[tuple[float, str]] = []
        """When which pod's log was read."""
        self.bytes = 0
        self.error: Exception | None = None
        self.instead: bytes | None = None
        """What a kubelet says that has no log."""
        self.hang = False
        self.delay = 0.0
        """How long a line takes to arrive."""

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()

    async def pod_log(
        self, namespace: str, name: str, *, container: str, since: str, limit_bytes: int, timestamps: bool
    ) -> bytes:
        assert namespace == "team"
        assert timestamps
        assert name == f"j-x-{container}"
        self.reads.append((self.now(), name))
        if self.hang:
            await asyncio.sleep(3600)
        if self.error is not None:
            raise self.error
        if self.instead is not None:
            return self.instead
        first = (datetime.fromisoformat(since) - NOW).total_seconds()
        lines = [
            f"{stamp(NOW + timedelta(seconds=second))} {text}\n"
            for second, text in self.printed.get(name, [])
            if first <= second <= self.now() - self.delay
        ]
        raw = "".join(lines).encode()[:limit_bytes]
        self.bytes += len(raw)
        return raw


class Process:
    """One operator's process, which reconciles a task whenever it hears of news."""

    def __init__(self, kubelets: Kubelets, seen: Task, **settings: Any) -> None:
        self.kubelets, self.task = kubelets, seen
        self.cache = Cache()
        self.changes = 0
        self.pods: list[dict[str, Any]] = []
        self.tunnels = Tunnels(
            settings=TunnelSettings.model_validate(settings),
            gateway=cast("Gateway", kubelets),
            cache=self.cache,
            changed=self._changed,
            clock=lambda: NOW + timedelta(seconds=Kubelets.now()),
        )

    def _changed(self, uid: str) -> None:
        assert uid == self.task.metadata.uid
        self.changes += 1
        self.look()

    def look(self, *pods: dict[str, Any]) -> None:
        """Reconcile, with what pods there are now."""
        self.pods = list(pods) or self.pods
        self.tunnels.observe(self.task, self.pods, main="web")

    def url(self) -> str | None:
        assert (self.task.status.cftunnel is None) == (self.task.status.tunnel is None)
        return self.task.status.cftunnel


def in_time(main: Any) -> Any:
    """Run a test in an event loop whose time passes at once. Given are the kubelets and a process."""

    async def work(**parameters: Any) -> None:
        kubelets = Kubelets()
        process, stop = Process(kubelets, task()), asyncio.Event()
        reading = asyncio.create_task(process.tunnels.run(stop))
        await main(kubelets, process, **parameters)
        stop.set()
        await reading

    def test(**parameters: Any) -> None:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(work(**parameters))

    test.__name__, test.__doc__ = main.__name__, main.__doc__
    return test


async def until(seconds: float) -> None:
    await asyncio.sleep(seconds - Kubelets.now())


async def restarted(kubelets: Kubelets, seen: Task) -> Process:
    """Return the process that comes after another; it reads until the loop ends."""
    process = Process(kubelets, seen)
    process.reading = asyncio.create_task(process.tunnels.run(asyncio.Event()))  # type: ignore[attr-defined]
    return process


# --- what is taken ----------------------------------------------------------------------------------------------------


@in_time
async def test_a_url_is_found_soon_and_costs_one_change(kubelets, process):
    kubelets.printed["j-x-web"] = [(0.5, "starting"), (1.5, f"|  {URL}   |")]
    process.look(running())
    await until(6)
    assert process.url() == URL
    assert process.task.status.tunnel.model_dump() == {
        "service": "web",
        "pod": "j-x-web",
        "started_at": at(0),
        "restarts": 0,
    }
    await until(200)
    assert process.changes == 1
    assert len(kubelets.reads) == 1


@pytest.mark.parametrize(("second", "url"), [(1, URL), (29, URL), (30.4, URL), (31, None), (120, None)])
def test_the_line_s_own_time_decides(second, url):
    @in_time
    async def test(kubelets, process):
        kubelets.printed["j-x-web"] = [(second, URL)]
        kubelets.delay = 1.0
        process.look(running())
        await until(300)
        assert process.url() == url

    test()


@pytest.mark.parametrize(("second", "url"), [(1, URL), (29, URL), (120, None)])
def test_an_operator_that_was_away_finds_the_same(second, url):
    @in_time
    async def test(kubelets, process):
        kubelets.printed["j-x-web"] = [(second, URL), (200, OTHER)]
        await until(3600)
        process.look(running())
        await until(3610)
        assert process.url() == url
        assert len(kubelets.reads) == 1

    test()


@in_time
async def test_a_container_without_a_tunnel_costs_three_reads_and_no_change(kubelets, process):
    kubelets.printed["j-x-web"] = [(second, "GET / 200") for second in range(600)]
    process.look(running())
    for second in range(1, 600, 7):
        await until(second)
        process.look()
    assert [round(when) for when, _ in kubelets.reads] == [4, 10, 35]
    assert process.changes == 0
    assert process.url() is None


@in_time
async def test_the_window_is_a_setting(kubelets, process):
    short = Process(kubelets, task(), windowSeconds=3)
    reading = asyncio.create_task(short.tunnels.run(asyncio.Event()))
    kubelets.printed["j-x-web"] = [(5, URL)]
    short.look(running())
    await until(60)
    assert [round(when) for when, _ in kubelets.reads] == [8]
    assert short.url() is None
    reading.cancel()


@in_time
async def test_switched_off_nothing_is_read_and_nothing_is_said(kubelets, process):
    off = Process(kubelets, task(), enabled=False)
    off.task.status.cftunnel = URL
    off.look(running())
    assert off.url() is None
    await until(60)
    assert kubelets.reads == []


# --- which one --------------------------------------------------------------------------------------------------------


@in_time
async def test_the_main_service_s_comes_first(kubelets, process):
    kubelets.printed = {"j-x-api": [(1, OTHER)], "j-x-web": [(1, URL)]}
    quiet, process.tunnels._changed = process.tunnels._changed, lambda _: None
    process.look(running("api"), running("web"))
    await until(6)
    quiet(process.task.metadata.uid)
    assert process.url() == URL


@in_time
async def test_the_first_stays(kubelets, process):
    kubelets.printed = {"j-x-api": [(1, OTHER)], "j-x-web": [(8, URL)]}
    process.look(running("api"), running("web"))
    await until(60)
    assert process.url() == OTHER


@in_time
async def test_one_that_starts_as_another_s_is_found_is_not_forgotten(kubelets, process):
    kubelets.printed["j-x-web"] = [(1, URL)]
    quiet, process.tunnels._changed = process.tunnels._changed, lambda _: None
    process.look(running("web"))
    await until(6)
    kubelets.printed["j-x-api"] = [(7, OTHER)]
    process.look(running("web"), running("api", since=6))
    assert process.url() == URL
    process.tunnels._changed = quiet
    process.look(running("api", since=6))
    await until(60)
    assert process.url() == OTHER


@in_time
async def test_every_container_but_the_agent_is_looked_at(kubelets, process):
    agent = {"name": "gpux-agent", "restartCount": 0, "state": {"running": {"startedAt": at(0)}}}
    both = [
        {"name": name, "restartCount": 0, "state": {"running": {"startedAt": at(0)}}} for name in ("web", "b")
    ]
    found = runs(task(), [pod("web", initContainerStatuses=[agent], containerStatuses=both)], main="web")
    assert [run.service for run in found] == ["b", "web"]


# --- restarts ---------------------------------------------------------------------------------------------------------


@in_time
async def test_a_restart_clears_it_and_has_it_found_again(kubelets, process):
    kubelets.printed["j-x-web"] = [(1, URL)]
    process.look(running())
    await until(10)
    assert process.url() == URL
    crashed = {"name": "web", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    process.look(pod("web", containerStatuses=[crashed]))
    assert process.url() is None
    kubelets.printed["j-x-web"] = [(62, OTHER)]
    process.look(running(since=60, restarts=1))
    assert process.url() is None
    await until(70)
    assert process.url() == OTHER
    assert process.task.status.tunnel.restarts == 1


@in_time
async def test_a_restart_within_the_same_second_is_seen(kubelets, process):
    kubelets.printed["j-x-web"] = [(1, URL)]
    process.look(running())
    await until(10)
    process.look(running(restarts=1))
    assert process.url() is None


@pytest.mark.parametrize(
    "gone",
    [
        running(metadata={"deletionTimestamp": at(9)}),
        pod("web", containerStatuses=[{"name": "web", "restartCount": 0, "state": terminated(9)}]),
        running("db"),
    ],
    ids=["told to stop", "ended", "another pod"],
)
def test_it_goes_with_its_container(gone):
    @in_time
    async def test(kubelets, process):
        kubelets.printed["j-x-web"] = [(1, URL)]
        process.look(running())
        await until(10)
        assert process.url() == URL
        process.look(gone)
        assert process.url() is None

    test()


@in_time
async def test_the_next_process_keeps_what_was_found_without_a_read(kubelets, process):
    kubelets.printed["j-x-web"] = [(1, URL)]
    process.look(running())
    await until(10)
    again = Task.model_validate(process.task.model_dump(mode="json", by_alias=True))
    kubelets.reads.clear()
    following = await restarted(kubelets, again)
    following.look(running())
    await until(100)
    assert following.url() == URL
    assert kubelets.reads == []


@in_time
async def test_a_write_that_failed_is_made_up_for(kubelets, process):
    """What a reconcile could not write is still known to the next."""
    kubelets.printed["j-x-web"] = [(1, URL)]
    process.look(running())
    await until(10)
    process.task = task()
    process.look()
    assert process.url() == URL
    assert len(kubelets.reads) == 1


@in_time
async def test_a_task_that_is_gone_is_not_read_any_more(kubelets, process):
    process.look(running())
    process.tunnels.forget(process.task.metadata.uid)
    await until(100)
    assert kubelets.reads == []
    assert process.tunnels._looks == {}


# --- hostile logs -----------------------------------------------------------------------------------------------------


@in_time
async def test_a_busy_log_is_read_to_the_end_of_the_window(kubelets, process):
    """Fifty kilobytes a second, as of an installation, and then the tunnel."""
    kubelets.printed["j-x-web"] = [
        (second + part / 50, "x" * 990) for second in range(30) for part in range(50)
    ]
    kubelets.printed["j-x-web"] += [(29.99, URL), *((second, "y" * 990) for second in range(30, 60))]
    process.look(running())
    await until(100)
    assert process.url() == URL
    assert len(kubelets.reads) <= READS


@pytest.mark.parametrize(
    "line", ["x" * 4000, "x" * (8 * 1024 * 1024), "https://a-b.trycloudflare.com." * 300, "\x00\ufffd" * 999]
)
def test_a_flood_costs_little(line):
    @in_time
    async def test(kubelets, process):
        per_second = max(2 * 1024 * 1024 // len(line), 1)
        kubelets.printed["j-x-web"] = [
            (second + part / per_second, line) for second in range(8) for part in range(per_second)
        ]
        process.look(running())
        await until(100)
        assert process.url() is None
        assert len(kubelets.reads) <= 4
        assert kubelets.bytes <= 4 * LIMIT

    test()


def test_a_line_that_is_cut_is_left_for_the_next_read():
    line = f"{stamp(NOW)} {URL}"
    end = NOW + timedelta(seconds=30)
    whole = f"{line}\n".encode()
    assert excerpt(whole, until=end).url == URL
    for cut in range(len(whole)):
        assert excerpt(whole[:cut], until=end).url is None
    assert excerpt(f"{line}.evil.example\n".encode(), until=end).url is None


def test_a_url_that_two_reads_share():
    @in_time
    async def test(kubelets, process):
        kubelets.printed["j-x-web"] = [(0.5, "z" * (LIMIT - 92)), (1.5, URL), (1.6, "after")]
        process.look(running())
        await until(4.001)
        assert kubelets.bytes == LIMIT
        assert process.url() is None
        await until(100)
        assert process.url() == URL
        assert len(kubelets.reads) == 2

    test()


def test_only_the_kubelet_s_own_times_count():
    end = NOW + timedelta(seconds=30)
    late = stamp(NOW + timedelta(seconds=90))
    assert excerpt(f"{late} {stamp(NOW)} {URL}\n".encode(), until=end).url is None


# --- when logs can't be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("dial tcp 10.0.0.7:10250: connect: connection refused", code=500),
        NotFound('pods "j-x-web" not found', code=404),
        Unprocessable("container is waiting to start: ContainerCreating", code=400),
        Forbidden("may not get pods/log", code=403),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_read_yet_is_tried_again(error):
    @in_time
    async def test(kubelets, process):
        kubelets.printed["j-x-web"] = [(1, URL)]
        kubelets.error = error
        process.look(running())
        await until(8)
        assert process.url() is None
        kubelets.error = None
        await until(60)
        assert process.url() == URL

    test()


@in_time
async def test_a_kubelet_s_excuse_is_no_log(kubelets, process):
    kubelets.printed["j-x-web"] = [(1, URL)]
    kubelets.instead = b'failed to try resolving symlinks in path "/var/log/pods/x": no such file'
    await until(100)
    process.look(running())
    await until(101)
    kubelets.instead = None
    await until(110)
    assert process.url() == URL


@pytest.mark.parametrize("error", [NotFound("gone", code=404), Forbidden("no", code=403)])
def test_a_refusal_is_believed_after_a_few_tries(error):
    @in_time
    async def test(kubelets, process):
        kubelets.error = error
        process.look(running())
        await until(7200)
        assert len(kubelets.reads) == tunnels.REFUSALS

    test()


def test_a_right_that_is_missing_is_said_once(caplog):
    @in_time
    async def test(kubelets, process):
        kubelets.error = Forbidden("no pods/log for you", code=403)
        process.look(running(), running("db"))
        await until(60)

    test()
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "may not get pods/log" in record.getMessage()


@pytest.mark.parametrize("error", [Unavailable("away", code=500), KubeError("odd")])
def test_a_kubelet_that_stays_away_is_asked_seldom(error):
    @in_time
    async def test(kubelets, process):
        kubelets.error = error
        process.look(running())
        await until(3600)
        assert 8 <= len(kubelets.reads) <= 22

    test()


@in_time
async def test_a_kubelet_that_hangs_holds_nobody_up_for_long(kubelets, process):
    kubelets.hang = True
    kubelets.printed["j-x-web"] = [(1, URL)]
    process.look(running())
    await until(5)
    kubelets.hang = False
    await until(40)
    assert process.url() == URL


@in_time
async def test_nobody_asks_a_node_that_is_away(kubelets, process):
    def node(version: str, ready: str) -> None:
        metadata = {"name": "node-a", "uid": "n", "resourceVersion": version}
        conditions = [{"type": "Ready", "status": ready}]
        process.cache.put(NODE, {"metadata": metadata, "status": {"conditions": conditions}})

    kubelets.printed["j-x-web"] = [(1, URL)]
    node("1", "Unknown")
    process.look(running())
    await until(300)
    assert kubelets.reads == []
    node("2", "True")
    await until(310)
    assert process.url() == URL


@in_time
async def test_few_logs_are_read_at_once(kubelets, process):
    most = 0
    asked = kubelets.pod_log
    under_way = 0

    async def slow(*args: Any, **options: Any) -> bytes:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.5)
        under_way -= 1
        raw: bytes = await asked(*args, **options)
        return raw

    kubelets.pod_log = slow
    process.look(*(running(f"s{number}") for number in range(40)))
    await until(120)
    assert {name for _, name in kubelets.reads} == {f"j-x-s{number}" for number in range(40)}
    assert len(kubelets.reads) <= 40 * 3
    assert most <= tunnels.WORKERS

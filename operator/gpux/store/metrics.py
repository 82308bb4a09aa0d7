"""What the store tells Prometheus. Every label has a handful of values, whatever the clients do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpux.blobs import Usage

if TYPE_CHECKING:
    from gpux.s3.cache import Figures

_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300)


class Metrics:
    """The store's metrics, in a registry of their own."""

    def __init__(
        self,
        *,
        free_bytes: Callable[[], int],
        usage: Callable[[], Usage],
        calls: Callable[[], Mapping[str, int]],
        cache: Callable[[], Figures] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "gpux_store_requests_total", "Requests.", ["route", "method", "code"], registry=self._registry
        )
        self.seconds = Histogram(
            "gpux_store_request_seconds",
            "Time per request; long polls apart, which wait on purpose.",
            ["route", "method"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.received = self._counter("received_bytes", "Bytes of files taken in.")
        self.sent = self._counter("sent_bytes", "Bytes of files given out.")
        self.waiting = Gauge("gpux_store_long_polls", "Long polls that wait.", registry=self._registry)
        self.uploads = Gauge("gpux_store_uploads", "Uploads under way.", registry=self._registry)
        self.over_quota = self._counter("over_quota", "Uploads refused for a quota.")
        self.sweeps = self._counter("sweeps", "Sweeps done.")
        self.swept_objects = self._counter("swept_objects", "Contents that nobody needed any more, removed.")
        self.swept_bytes = self._counter("swept_bytes", "Bytes of these contents.")
        self.scrubbed_bytes = self._counter(
            "scrubbed_bytes", "Bytes read again to see whether they are right."
        )
        self.quarantined = self._counter("quarantined", "Contents that had rotted, moved aside.")
        self.unreadable = self._counter("unreadable", "Times that a content couldn't be read again.")
        self.upkeep_failures = Counter(
            "gpux_store_upkeep_failures_total",
            "Sweeps and scrubs that failed.",
            ["step"],
            registry=self._registry,
        )
        self._registry.register(_State(free_bytes, usage, calls, cache))

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"gpux_store_{name}_total", text, registry=self._registry)

    def text(self) -> bytes:
        """Render the exposition format."""
        return generate_latest(self._registry)


class _State(Collector):
    """Figures that are looked up when somebody asks."""

    def __init__(
        self,
        free_bytes: Callable[[], int],
        usage: Callable[[], Usage],
        calls: Callable[[], Mapping[str, int]],
        cache: Callable[[], Figures] | None,
    ) -> None:
        self._free_bytes = free_bytes
        self._usage = usage
        self._calls = calls
        self._cache = cache

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        """Make the families."""
        yield GaugeMetricFamily("gpux_store_free_bytes", "Room left for files.", value=self._free_bytes())
        usage = self._usage()
        yield GaugeMetricFamily(
            "gpux_store_objects", "Contents stored, each counted once.", value=usage.objects
        )
        yield GaugeMetricFamily("gpux_store_bytes", "Bytes of these contents.", value=usage.size)
        calls = GaugeMetricFamily("gpux_store_calls", "Attempts by state.", labels=["state"])
        for state, count in self._calls().items():
            calls.add_metric([state], count)
        yield calls
        if self._cache is not None:
            yield from _cached(self._cache())


def _cached(figures: Figures) -> Iterable[Metric]:
    prefix = "gpux_store_cache"
    yield CounterMetricFamily(f"{prefix}_hits", "Files opened in the cache.", value=figures.hits)
    yield CounterMetricFamily(f"{prefix}_misses", "Files opened in the bucket.", value=figures.misses)
    yield CounterMetricFamily(
        f"{prefix}_failures", "Times that the cache couldn't be filled or read.", value=figures.failures
    )
    yield GaugeMetricFamily(f"{prefix}_bytes", "Bytes in the cache.", value=figures.size)

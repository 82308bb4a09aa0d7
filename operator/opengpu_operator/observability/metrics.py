"""Metrics for Prometheus. Labels are few and bounded: never an object's name, and never what a tenant writes."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

PREFIX: Final = "opengpu_operator"

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


# Half of all samples, of no use without OpenMetrics.
disable_created_metrics()


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Info(f"{PREFIX}_build", "The version that runs", registry=self.registry)
        build.info({"version": version(), "python": platform.python_version()})
        self._requests = Counter(
            f"{PREFIX}_kube_api_requests_total",
            "Requests to the API server (code 0: no answer)",
            ("verb", "code", "kind"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            f"{PREFIX}_kube_api_request_seconds",
            "How long requests to the API server took",
            ("verb",),
            buckets=_FAST,
            registry=self.registry,
        )
        self._reconciles = Counter(
            f"{PREFIX}_reconcile_total",
            "Reconciles by their result",
            ("kind", "result"),
            registry=self.registry,
        )
        self._reconcile_seconds = Histogram(
            f"{PREFIX}_reconcile_seconds",
            "How long reconciles took",
            ("kind",),
            buckets=_SLOW,
            registry=self.registry,
        )
        self._wait_seconds = Histogram(
            f"{PREFIX}_queue_wait_seconds",
            "How long keys waited for a worker",
            ("kind",),
            buckets=_SLOW,
            registry=self.registry,
        )
        self._synced = Gauge(
            f"{PREFIX}_synced", "Whether every watched kind was listed", registry=self.registry
        )

    def request(self, verb: str, code: int, kind: str, seconds: float) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, str(code), kind).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def reconcile(self, kind: str, result: str, waited: float, seconds: float) -> None:
        """Count a reconcile."""
        self._reconciles.labels(kind, result).inc()
        self._reconcile_seconds.labels(kind).observe(seconds)
        self._wait_seconds.labels(kind).observe(waited)

    def synced(self) -> None:
        """Say that every watched kind was listed."""
        self._synced.set(1)

    def watch(self, read: Callable[[], dict[str, float]], help_: dict[str, str]) -> None:
        """Add gauges that are read when somebody looks: ``read`` returns a value for each name in ``help_``."""
        self.registry.register(_Reading(read, help_))


class _Reading(Collector):
    def __init__(self, read: Callable[[], dict[str, float]], help_: dict[str, str]) -> None:
        self._read = read
        self._help = help_

    def describe(self) -> Iterator[Metric]:
        for name, text in self._help.items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text)

    def collect(self) -> Iterator[Metric]:
        values = self._read()
        for name, text in self._help.items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=values[name])


def version() -> str:
    """Return the version that is installed."""
    try:
        return metadata.version("opengpu-operator")
    except metadata.PackageNotFoundError:
        return "unknown"

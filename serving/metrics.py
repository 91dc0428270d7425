"""Figures for Prometheus: requests by endpoint and status, seconds, and how many are in work.

BentoML's own are turned off: they take whatever path a client sends for an endpoint, keep it for ever and show it.
"""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OTHER = "other"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The figures of one process; only the endpoints named at the start have a label of their own."""

    def __init__(self, endpoints: Collection[str]) -> None:
        self._registry = CollectorRegistry()
        self._endpoints = frozenset(endpoints)
        self._requests = Counter(
            "aftersales_requests", "Requests answered", ["endpoint", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "aftersales_request_seconds",
            "From request to answer",
            ["endpoint"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self.dropped = Counter(
            "aftersales_exposures_dropped",
            "Rows of the log of recommendations that could not be written",
            registry=self._registry,
        )
        self.running = Gauge("aftersales_requests_running", "Requests in work", registry=self._registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        endpoint = path if path in self._endpoints else OTHER
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        return generate_latest(self._registry)

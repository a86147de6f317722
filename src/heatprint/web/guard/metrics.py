"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OUTCOMES = {429: "full", 503: "failed", 500: "failed"}
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one application, in a registry of its own.

    Args:
        depth: Says how many images wait.
    """

    def __init__(self, depth: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "heatprint_guard_requests", "Requests by what became of them.", ["outcome"], registry=self.registry
        )
        self.images = Counter(
            "heatprint_guard_images", "Images answered, by verdict.", ["verdict"], registry=self.registry
        )
        self.failures = Counter(
            "heatprint_guard_failures", "Images that the guard failed to check.", registry=self.registry
        )
        self.batches = Histogram(
            "heatprint_guard_batch_size", "Images checked at one time.", registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )  # fmt: skip
        self.seconds = Histogram(
            "heatprint_guard_seconds", "Time of a check, from the first byte to the answer.", registry=self.registry,
            buckets=SECONDS,
        )  # fmt: skip
        Gauge("heatprint_guard_queue_depth", "Images that wait.", registry=self.registry).set_function(depth)

    def count(self, status: int) -> None:
        """One request more, of this status."""
        self.requests.labels(OUTCOMES.get(status, "answered" if status < 400 else "refused")).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)

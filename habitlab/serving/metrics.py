"""What Prometheus sees of a service."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from habitlab.serving.exposures import BOUNDS
from habitlab.serving.lists import LEVELS

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder in which several workers gather; set before this module is imported."""


class Metrics:
    """Counters of one app, in a registry of their own; of several workers they are added up."""

    def __init__(self) -> None:
        """All at 0."""
        self.registry = CollectorRegistry()
        answers = Histogram(
            "habitlab_answer_seconds",
            "Time to answer /v1/recommend; the count by served_from gives the hit rate of each level",
            ["served_from"],
            buckets=BOUNDS,
            registry=self.registry,
        )
        self.answers = {level: answers.labels(level) for level in LEVELS}
        self.computed = self._counter("computed", "Lists that were computed")
        self.refused = self._counter("refused", "Requests that were not answered as asked", "status")
        self.events = self._counter("events", "Events received", "result")
        self.registrations = self._counter("registrations", "People who registered")
        self.failures = self._counter("level_failures", "Failures of a level that another level went on from", "level")
        self.lost = self._counter("exposures_lost", "Answers whose exposures could not be kept")
        self.waiting = Gauge(
            "habitlab_exposures_waiting",
            "Lists shown that are not written yet",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"habitlab_{name}", meaning, labels, registry=self.registry)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        everybody = CollectorRegistry()
        multiprocess.MultiProcessCollector(everybody)
        return generate_latest(everybody)

"""Prometheus metrics of a worker; the engine's `Observer`.

With PROMETHEUS_MULTIPROC_DIR set, as `recsys serve` sets it for its workers, values lie in files of that
folder and the parent shows the sum of all workers; else they are of this object alone.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from recsys.serving.engine.observing import STAGES
from recsys.serving.http.facts import Facts

_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_STAGE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_COUNT = (1, 2, 4, 8, 16, 32, 64)
_EVENTS = (1, 8, 32, 128, 512, 2048, 8192)
_OVERLAP = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


class Metrics:
    """Everything that a worker counts; methods may be called from any thread and never raise."""

    def __init__(self) -> None:
        together = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": None if together else self.registry}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"recsys_{name}", text, labels, **own)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"recsys_{name}", text, labels, buckets=buckets, **own)

        def gauge(name: str, text: str, mode: Any, *labels: str) -> Gauge:
            return Gauge(f"recsys_{name}", text, labels, multiprocess_mode=mode, **own)

        self._requests = counter("http_requests", "Requests answered.", "route", "method", "status")
        self._duration = histogram(
            "http_request_duration_seconds", "From first byte to last.", _REQUEST, "route"
        )
        self.in_flight = gauge("http_in_flight", "Requests being answered.", "livesum")
        self._queue = gauge("queue_requests", "Requests that wait to be computed.", "livesum")
        self._wait = histogram("queue_wait_seconds", "Time in the queue.", _STAGE)
        self._batch = histogram("batch_requests", "Requests computed together.", _COUNT)
        self._batch_events = histogram("batch_events", "Events computed together.", _EVENTS)
        stages = histogram("stage_seconds", "Parts of a batch.", _STAGE, "stage")
        self._stages = {name: stages.labels(name) for name in STAGES}
        self._rejected = counter("rejected", "Requests not taken.", "reason")
        self._deadline = counter("deadline", "Requests given up at their deadline.")
        self._failed = counter("compute_failures", "Computing raised what no request explains.")
        self._fallback = counter("fallback", "Answers of popular items.", "reason")
        self._unknown = counter("unknown_items", "Items of requests that the model does not know.")
        self._events = counter("events", "Events taken in.", "result")
        self._commit = histogram("event_commit_seconds", "Until events were durable.", _REQUEST)
        self._free = gauge("events_disk_free_bytes", "Room where events are written.", "livemin")
        self._hits = counter("state_cache_hits", "Users whose vector or answer was kept.")
        self._misses = counter("state_cache_misses", "Users whose vector was computed.")
        self._evictions = counter("state_cache_evictions", "Vectors that made room.")
        self._kept = gauge("state_cache_bytes", "Vectors kept.", "livesum")
        self._kept_answers = gauge("answer_cache_bytes", "Answers kept.", "livesum")
        self._index = counter("index_queries", "Queries of the item index.", "how")
        self._info = gauge("model_info", "1 for a model in service.", "livemax", "name", "version")
        self._loaded = gauge("model_loaded_timestamp_seconds", "When it was loaded.", "livemax", "name")
        self._loads = counter("model_loads", "Models loaded.", "result")
        self._heartbeat = gauge(
            "compute_heartbeat_seconds", "Age of the compute thread's last sign of life.", "livemax"
        )
        self._overlap = histogram("shadow_overlap", "Share of a shadow's answers sent.", _OVERLAP, "k")
        self._exposed = counter("exposures", "Answers kept beside the events.", "result")
        # Finding a metric by its labels takes longer than counting.
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._versions: dict[str, str] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        counted = self._counted.get((route, method, status))
        if counted is None:
            kind = method if method in _METHODS else "other"
            counted = self._requests.labels(route, kind, str(status)), self._duration.labels(route)
            if kind == method:
                self._counted[route, method, status] = counted
        requests, duration = counted
        requests.inc()
        duration.observe(seconds)

    def refused(self, facts: Facts) -> None:
        """Count a request that was refused before the engine heard of it."""
        if facts.refused is not None:
            self._rejected.labels(facts.refused).inc()

    def events(self, accepted: int, duplicates: int, rejected: int, seconds: float | None = None) -> None:
        """Count events; `seconds` is the time until they were durable, if they were written."""
        for result, count in (("accepted", accepted), ("duplicate", duplicates), ("rejected", rejected)):
            if count:
                self._events.labels(result).inc(count)
        if seconds is not None:
            self._commit.observe(seconds)

    def sample(self, waiting: int, heartbeat: float, free_bytes: int | None, answer_bytes: int) -> None:
        """Note what changes without a request."""
        self._queue.set(waiting)
        self._kept_answers.set(answer_bytes)
        self._heartbeat.set(heartbeat)
        if free_bytes is not None:
            self._free.set(free_bytes)

    def expose(self) -> bytes:
        """What is counted by this object, in Prometheus' text format; only without the folder of workers."""
        return generate_latest(self.registry)

    def batch(self, requests: int, events: int) -> None:
        """See `Observer`."""
        self._batch.observe(requests)
        self._batch_events.observe(events)

    def waited(self, seconds: float) -> None:
        """See `Observer`."""
        self._wait.observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """See `Observer`."""
        self._stages[name].observe(seconds)

    def cache(self, hits: int, misses: int, evictions: int, kept_bytes: int) -> None:
        """See `Observer`."""
        for counter, count in ((self._hits, hits), (self._misses, misses), (self._evictions, evictions)):
            if count:
                counter.inc(count)
        if misses:
            self._kept.set(kept_bytes)

    def kept_answer(self) -> None:
        """See `Observer`."""
        self._hits.inc()

    def fallback(self, reason: str) -> None:
        """See `Observer`."""
        self._fallback.labels(reason).inc()

    def unknown_items(self, count: int) -> None:
        """See `Observer`."""
        self._unknown.inc(count)

    def rejected(self, reason: str) -> None:
        """See `Observer`."""
        self._rejected.labels(reason).inc()

    def late(self) -> None:
        """See `Observer`."""
        self._deadline.inc()

    def failed(self, error: BaseException) -> None:
        """See `Observer`."""
        self._failed.inc()

    def searched(self, counts: Mapping[str, int]) -> None:
        """See `Observer`."""
        for how, count in counts.items():
            self._index.labels(how).inc(count)

    def loaded(self, name: str, version: str, result: str) -> None:
        """See `Observer`."""
        self._loads.labels(result).inc()
        if result == "refused":
            return
        if result == "unloaded":
            self._info.labels(name, self._versions.pop(name, version)).set(0)
            return
        before = self._versions.get(name)
        if before is not None and before != version:
            self._info.labels(name, before).set(0)
        self._versions[name] = version
        self._info.labels(name, version).set(1)
        self._loaded.labels(name).set(time.time())

    def shadowed(self, name: str, k: int, overlap: float) -> None:
        """See `Observer`."""
        self._overlap.labels(str(k)).observe(overlap)

    def exposed(self, kept: int, dropped: int) -> None:
        """See `Observer`."""
        for result, count in (("kept", kept), ("dropped", dropped)):
            if count:
                self._exposed.labels(result).inc(count)

"""Figures for Prometheus: requests, their time and the time of their stages, events, and the model that serves.

On the floor of `service`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from ecom_pipeline.service.messages import Ready

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # of what clients make up there is no end
_REQUESTS = Counter("ecom_requests", "Requests answered.", ["path", "method", "status"])
_SECONDS = Histogram("ecom_request_seconds", "Seconds until the answer.", ["path"], buckets=_BUCKETS)
_STAGES = Histogram("ecom_stage_seconds", "Seconds of a part of an answer.", ["stage"], buckets=_BUCKETS)
_EVENTS = Counter("ecom_events_kept", "Events kept for certain.")
_MODEL = Gauge("ecom_model", "1 for the model that serves.", ["name", "day"])
_REFUSED = Gauge("ecom_publication_refused", "1 while the latest publication does not serve.")
_AWAY = Gauge("ecom_journal_refused", "1 while the journal cannot be used.")
_PENDING = Gauge("ecom_events_since_model", "Events that the model knows only from the journal.")
_SWAPS = Gauge("ecom_model_swaps", "Models that took the place of another since the start.")


def seen(path: str, method: str, status: int, seconds: float) -> None:
    """Note a request."""
    _REQUESTS.labels(path, method if method in _METHODS else "other", str(status)).inc()
    _SECONDS.labels(path).observe(seconds)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Note how long a part of an answer takes."""
    started = time.perf_counter()
    try:
        yield
    finally:
        _STAGES.labels(name).observe(time.perf_counter() - started)


def events(n: int) -> None:
    """Note events that were kept."""
    _EVENTS.inc(n)


def told(ready: Ready, *, n_swaps: int, journal_away: bool) -> tuple[bytes, str]:
    """The page that Prometheus reads, and its media type."""
    _MODEL.clear()
    _MODEL.labels(ready.model, ready.day).set(1)
    _REFUSED.set(bool(ready.refused))
    _AWAY.set(journal_away)
    _PENDING.set(ready.events_since)
    _SWAPS.set(n_swaps)
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST

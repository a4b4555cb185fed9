"""Prometheus metrics of this process, in one registry, with one prefix.

Make a metric once, at import: `SENT = metrics.counter("frames_sent", "Frames sent to agents")`.
Units are part of the name (`_seconds`, `_bytes`). Where a metric with labels is hot, keep the child
that `.labels()` returns.
"""

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

NAMESPACE = "deltaplane"

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds. From a local call to our longest deadline."""


def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows. The exposed name is deltaplane_<name>_total."""
    return Counter(name, text, labels, namespace=NAMESPACE)


def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down."""
    return Gauge(name, text, labels, namespace=NAMESPACE)


def histogram(
    name: str,
    text: str,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = LATENCY_BUCKETS,
) -> Histogram:
    """A distribution. Name ends with its unit."""
    return Histogram(name, text, labels, namespace=NAMESPACE, buckets=buckets)


def exposition() -> tuple[bytes, str]:
    """Everything in text form, with its content type; the process's CPU and memory, too."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST

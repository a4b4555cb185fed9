"""How often each of many may do something: a token bucket for each. Pure."""

from dataclasses import dataclass

_FORGET_ABOVE = 10_000
"""Buckets; full ones are then forgotten, which changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Calls per second in the long run, and at once after a pause. rate: 0 means no limit."""

    rate: float
    burst: int


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """All buckets of a server."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, now: float) -> float:
        """Takes a token. Returns 0.0, or the seconds after which there is one again.

        Args:
            name: whose.
            now: seconds of a clock that never goes back.
        """
        rate, burst = self._limit.rate, float(self._limit.burst)
        if not rate:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= _FORGET_ABOVE:
                self._forget(now)
            bucket = self._buckets[name] = _Bucket(burst, now)
        tokens = min(burst, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if tokens >= 1.0:
            bucket.tokens = tokens - 1.0
            return 0.0
        bucket.tokens = tokens
        return (1.0 - tokens) / rate

    def _forget(self, now: float) -> None:
        full = self._limit.burst / self._limit.rate
        for name in [name for name, bucket in self._buckets.items() if now - bucket.at >= full]:
            del self._buckets[name]

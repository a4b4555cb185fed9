import pytest

from deltaplane.runtime import limiting
from deltaplane.runtime.limiting import Buckets, Limit


def test_a_burst_then_the_rate() -> None:
    buckets = Buckets(Limit(rate=10, burst=3))
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.1]
    assert buckets.take("a", 0.05) == 0.05, "what was refused has cost nothing"
    assert buckets.take("a", 0.1) == 0.0
    assert buckets.take("a", 0.1) > 0
    assert buckets.take("b", 0.1) == 0.0, "everybody has a bucket of their own"
    assert [buckets.take("a", 100.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_no_rate_no_limit() -> None:
    buckets = Buckets(Limit(rate=0, burst=1))
    assert not any(buckets.take("a", 0.0) for _ in range(100))


def test_full_buckets_are_forgotten_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limiting, "_FORGET_ABOVE", 2)
    buckets = Buckets(Limit(rate=1, burst=2))
    buckets.take("old", 0.0)
    buckets.take("busy", 9.0)
    assert buckets.take("busy", 9.0) == 0.0
    buckets.take("new", 9.5)
    assert set(buckets._buckets) == {"busy", "new"}
    assert buckets.take("busy", 9.5) > 0

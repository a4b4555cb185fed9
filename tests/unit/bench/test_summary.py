import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.summary import percentile, rows, summarize, table


def test_a_percentile_is_a_sample() -> None:
    ordered = [1.0, 2.0, 3.0, 4.0]
    assert [percentile(ordered, f) for f in (0.01, 0.25, 0.5, 0.51, 0.99, 1)] == [1, 1, 2, 3, 4, 4]


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
def test_so_many_samples_do_not_exceed_it(samples: list[float], fraction: float) -> None:
    ordered = sorted(samples)
    found = percentile(ordered, fraction)
    assert sum(value <= found for value in ordered) >= fraction * len(ordered)
    assert sum(value < found for value in ordered) < fraction * len(ordered)


def test_times_are_milliseconds_and_failures_are_kept() -> None:
    found = summarize("x", [0.003, 0.001, 0.002], failures=2)
    assert (found.count, found.failures) == (3, 2)
    assert (found.min_ms, found.p50_ms, found.max_ms) == (1.0, 2.0, 3.0)
    assert rows([found])[0]["p99_ms"] == 3.0
    assert table("t", [found]).row_count == 1


def test_nothing_measured_is_no_summary() -> None:
    with pytest.raises(ValueError, match="3 attempts failed"):
        summarize("x", [], failures=3)

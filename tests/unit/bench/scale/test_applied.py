from array import array

from hypothesis import example, given
from hypothesis import strategies as st

from bench.scale.applied import Histogram, Log, change_key, measure
from bench.summary import percentile

MS = 1_000_000


@given(st.lists(st.integers(0, 10**8), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
@example([33_554_431], 1.0)  # 33554.431 ms * 1000 is less than that
def test_a_quantile_is_the_exact_one_or_3_percent_above(samples: list[int], share: float) -> None:
    histogram = Histogram()
    for sample in samples:
        histogram.add(sample)
    exact = percentile(sorted(samples), share)
    # Milliseconds as floats: back to the whole microseconds that they stand for.
    found = round(histogram.quantile(share) * 1000)
    assert exact <= found <= exact * (1 + 1 / 32) + 1


def test_what_comes_before_the_answer_counts_as_no_time() -> None:
    histogram = Histogram()
    histogram.add(-5)
    assert histogram.quantile(1.0) == 0.0


def test_halves_measured_apart_are_the_whole() -> None:
    times = {change_key(number, gone=False): (0, 0) for number in range(10)}
    logs = [Log([(number * MS, array("Q", range(10)), array("Q"))]) for number in range(1, 5)]
    apart = measure(logs[:2], times)
    apart.merge(measure(logs[2:], times))
    assert apart == measure(logs, times)


def test_each_change_has_its_own_time_and_its_last_agent() -> None:
    came, went = change_key(7, gone=False), change_key(7, gone=True)
    logs = [
        Log([(12 * MS, array("Q", [7, 8]), array("Q")), (40 * MS, array("Q"), array("Q", [7]))]),
        Log([(15 * MS, array("Q", [7]), array("Q"))]),
    ]
    found = measure(logs, {came: (5 * MS, 10 * MS), went: (30 * MS, 30 * MS)})
    assert found.last == {came: 15 * MS, went: 40 * MS}
    assert found.agents == {came: 2, went: 1}
    assert found.spread.total == 3
    assert 10 <= found.spread.quantile(1.0) < 10.5
    assert 10 <= found.from_begin.quantile(1.0) < 10.5
    assert 2 <= found.spread.quantile(0.3) < 2.1
    assert 7 <= found.from_begin.quantile(0.3) < 7.3

import math

import pytest

from bench.datapath.comparing import PLAIN, interval, ratio, slope, turns


def test_the_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0])
    # t(0.975, 3) = 3.182; s = sqrt(5/3).
    half = 3.182 * math.sqrt(5 / 3) / 2
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


def test_one_sample_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two rounds"):
        interval([1.0])


def test_more_rounds_than_the_table_has() -> None:
    samples = [1.0, 3.0] * 20
    assert interval(samples).high == pytest.approx(2 + 1.96 * math.sqrt(40 / 39 / 40))


def test_a_ratio_compares_within_the_round() -> None:
    # The machine becomes three times slower; the ratio stays.
    rounds = [{PLAIN: 100.0, 10: 110.0}, {PLAIN: 300.0, 10: 330.0}, {PLAIN: 200.0, 10: 220.0}]
    found = ratio(rounds, 10)
    assert (found.mean, found.low, found.high) == pytest.approx((1.1, 1.1, 1.1))


def test_a_ratio_is_the_geometric_mean() -> None:
    assert ratio([{PLAIN: 1.0, 1: 2.0}, {PLAIN: 1.0, 1: 0.5}], 1).mean == pytest.approx(1.0)


def test_the_slope_is_per_tenfold_entries() -> None:
    rounds = [{PLAIN: 1.0, 1: 100.0, 100: 121.0, 10_000: 146.41}] * 2
    found = slope(rounds)
    assert found is not None
    assert found.mean == pytest.approx(1.1)


def test_one_number_of_entries_has_no_slope() -> None:
    assert slope([{PLAIN: 1.0, 100: 1.0}] * 2) is None


def test_every_variant_is_as_often_at_each_place() -> None:
    variants = [0, 1, 100, 10_000]
    orders = [turns(variants, round_) for round_ in range(8)]
    for place in range(4):
        assert sorted(order[place] for order in orders) == sorted(variants * 2)

import pytest

from bench.datapath.comparing import PLAIN
from bench.datapath.generator import Load, Sample, two_of
from bench.datapath.measuring import Turns
from bench.datapath.report import compare
from deltaplane.errors import Refused, Unavailable


def sample(p50: float, *, failures: int = 0, count: int = 10) -> Sample:
    return Sample(count=count, failures=failures, p50_ns=p50, p99_ns=2 * p50, mean_ns=p50 + 1)


def test_lines_are_by_entries_and_failures_are_summed() -> None:
    rounds = [
        {100: sample(120.0), PLAIN: sample(100.0), 1: sample(90.0, failures=2)},
        {PLAIN: sample(200.0, failures=1), 1: sample(180.0), 100: sample(240.0)},
    ]
    found = compare(Turns(Load.UDP, "ipv6", rounds))
    assert [line.entries for line in found.lines] == [1, 100]
    assert found.failures == 3
    assert (found.plain.median_ns, found.plain.mean_ns, found.plain.samples) == (150.0, 151.0, 20)
    assert found.plain.of_plain is None
    ratios = [line.of_plain.mean for line in found.lines if line.of_plain]
    assert ratios == pytest.approx([0.9, 1.2])
    assert found.tenfold
    assert found.tenfold.mean == pytest.approx((1.2 / 0.9) ** 0.5)


def test_a_round_without_a_sample_is_left_out_and_its_failures_are_not() -> None:
    good = {PLAIN: sample(100.0), 1: sample(110.0)}
    cold = {PLAIN: sample(900.0), 1: sample(0.0, failures=7, count=0)}
    found = compare(Turns(Load.RR, "ipv4", [good, cold, good]))
    assert (found.rounds, found.left_out, found.failures) == (2, 1, 7)
    assert found.lines[0].of_plain
    assert found.lines[0].of_plain.mean == pytest.approx(1.1)
    with pytest.raises(Unavailable, match="1 of 3 rounds measured something, 14 attempts failed"):
        compare(Turns(Load.RR, "ipv4", [cold, good, cold]))


def test_the_ends_need_two_processors() -> None:
    assert two_of([2, 5, 7]) == (2, 5)
    with pytest.raises(Refused):
        two_of([3])

from collections import Counter

import pytest

from bench.services.calling import Call
from bench.services.pinger_report import ratio, rows
from bench.services.pinging import Pings, Place


def call(target: int, took_us: int, failed: str = "") -> Call:
    return Call(target=target, failed=failed, ended_ms=0, took_ns=took_us * 1000)


def pings() -> Pings:
    """Two rounds in which the service takes twice and three times what its backends do."""
    made = Pings(Place.DELTAPLANE, 4)
    for factor in (2, 3):
        # Targets of IPv4 are 0 and 1 of each four.
        made.add(
            [call(4 * turn, factor * 100) for turn in range(4)]
            + [call(4 * turn + 1, 100) for turn in range(4)]
        )
    return made


def test_a_ratio_is_of_the_same_round() -> None:
    found = ratio(pings())
    assert found.p50.mean == pytest.approx(6**0.5)
    assert found.p50.low < 2
    assert found.p50.high > 3
    assert found.failed == {}


def test_rows_are_of_all_rounds() -> None:
    service, straight = rows(pings())
    assert (service.what, service.count, service.p50_us, service.max_us) == ("service", 8, 200, 300)
    assert (straight.what, straight.count, straight.p999_us) == ("straight", 8, 100)
    assert sum(service.histogram.values()) == 8
    assert list(service.histogram.values()) == [4, 4]
    assert [round(upper / 100) for upper in service.histogram] == [2, 3]


def test_calls_that_fail_are_counted_and_not_timed() -> None:
    made = Pings(Place.KUBE_PROXY, 6)
    made.add([call(2, 5, "connect 111"), call(2, 7), call(3, 9, "receive 104")])
    assert (made.service, made.straight) == ([[7000]], [[]])
    assert made.failed == Counter({"connect 111": 1, "receive 104": 1})

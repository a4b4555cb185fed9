"""From calls to figures. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.datapath.comparing import Interval, interval
from bench.scale.applied import Histogram
from bench.services.pinging import Pings
from bench.summary import percentile

GOAL = 1.2
"""What a service may cost, as a multiple of what goes straight to a backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Calls of all rounds, times in microseconds.

    Attributes:
        what: "service" or "straight".
        histogram: number of calls by the upper end of a bucket, which is 3 % wide at most.
    """

    place: str
    family: int
    what: str
    count: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    histogram: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Calls to a service as a multiple of those straight to a backend, of the same rounds.

    Attributes:
        p50, p99: geometric means over the rounds, with their 95 % intervals.
        failed: calls of both.
    """

    place: str
    family: int
    p50: Interval
    p99: Interval
    failed: dict[str, int]


def rows(pings: Pings) -> list[Row]:
    """Two: the service, and its floor."""
    return [
        _row(pings, what, [took for round_ in rounds for took in round_])
        for what, rounds in (("service", pings.service), ("straight", pings.straight))
    ]


def _row(pings: Pings, what: str, took_ns: Sequence[int]) -> Row:
    ordered = sorted(took / 1000 for took in took_ns)
    histogram = Histogram()
    for took in ordered:
        histogram.add(int(took))
    figures = (percentile(ordered, fraction) for fraction in (0.5, 0.9, 0.99, 0.999, 1))
    p50, p90, p99, p999, most = (round(figure, 1) for figure in figures)
    return Row(
        place=pings.place.value,
        family=pings.family,
        what=what,
        count=len(ordered),
        p50_us=p50,
        p90_us=p90,
        p99_us=p99,
        p999_us=p999,
        max_us=most,
        histogram={
            Histogram.upper(bucket): number for bucket, number in sorted(histogram.counts.items())
        },
    )


def ratio(pings: Pings) -> Ratio:
    """Compares the rounds, of which there are two at least, with calls that went well in each.

    Raises:
        ValueError: there are not.
    """
    return Ratio(
        place=pings.place.value,
        family=pings.family,
        p50=_ratio(pings, 0.5),
        p99=_ratio(pings, 0.99),
        failed=dict(pings.failed),
    )


def _ratio(pings: Pings, fraction: float) -> Interval:
    logs = interval(
        [
            math.log(percentile(sorted(ours), fraction) / percentile(sorted(floor), fraction))
            for ours, floor in zip(pings.service, pings.straight, strict=True)
            if ours and floor
        ]
    )
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))

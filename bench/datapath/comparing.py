"""From turns to ratios: each round compares its own turns, so what drifts is in both. Pure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PLAIN = 0
"""The variant without programs; the others are numbers of policy entries."""

# Two-sided 95 % quantiles of Student's t by degrees of freedom, 1 to 30.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_T95_MORE = 1.96

Rounds = Sequence[Mapping[int, float]]
"""A figure, above 0, by variant, for each round."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(samples: Sequence[float]) -> Interval:
    """Student's interval of the mean.

    Raises:
        ValueError: there are not two samples.
    """
    if len(samples) < 2:
        raise ValueError("an interval needs two rounds")
    degrees = len(samples) - 1
    quantile = _T95[degrees - 1] if degrees <= len(_T95) else _T95_MORE
    mean = statistics.fmean(samples)
    half = quantile * statistics.stdev(samples) / math.sqrt(len(samples))
    return Interval(mean, mean - half, mean + half)


def ratio(rounds: Rounds, variant: int) -> Interval:
    """A variant's figure as a multiple of the plain one's: the geometric mean over the rounds."""
    logs = interval([math.log(found[variant] / found[PLAIN]) for found in rounds])
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))


def slope(rounds: Rounds) -> Interval | None:
    """What ten times the entries multiply a figure by; 1: nothing. None: there is one number only.

    The least-squares line of each round, in logarithms of both.
    """
    numbers = sorted(set(rounds[0]) - {PLAIN})
    if len(numbers) < 2:
        return None
    decades = [math.log10(number) for number in numbers]
    logs = interval(
        [
            statistics.linear_regression(decades, [math.log(found[n]) for n in numbers]).slope
            for found in rounds
        ]
    )
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))


def turns(variants: Sequence[int], round_: int) -> list[int]:
    """Variants in the order of a round: each is as often first, and each other way round.

    Who comes after whom changes, too: what one leaves in the caches is not always charged to the
    same.
    """
    start = round_ // 2 % len(variants)
    order = [*variants[start:], *variants[:start]]
    return order[::-1] if round_ % 2 else order

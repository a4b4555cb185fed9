"""From turns to what is reported. Pure."""

import math
import statistics
from dataclasses import dataclass

from bench.datapath.comparing import Interval, interval
from bench.services.measuring import Series
from bench.services.network import Proxy
from deltaplane.errors import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One proxy.

    Attributes:
        proxy: its name.
        p50_us: median over the rounds of their medians, microseconds.
        p99_us: the same of the time below which 99 % are.
        samples: of all rounds.
        failures: of all rounds.
        of_direct: p50 as a multiple of the direct connection's, of the same round; None: it is it.
    """

    proxy: str
    p50_us: float
    p99_us: float
    samples: int
    failures: int
    of_direct: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One load to one service in one family.

    Attributes:
        rounds: that were used.
        left_out: in which something did not get warm in its turn.
        lines: one for each proxy, the direct way first.
    """

    load: str
    service: str
    family: str
    rounds: int
    left_out: int
    lines: tuple[Line, ...]

    @property
    def failures(self) -> int:
        """Of all proxies."""
        return sum(line.failures for line in self.lines)


def compare(series: Series) -> Comparison:
    """Sums up the rounds in which every proxy got warm.

    Raises:
        Unavailable: there are not two.
    """
    rounds = [found for found in series.rounds if all(sample.count for sample in found.values())]
    if len(rounds) < 2:
        failed = sum(sample.failures for found in series.rounds for sample in found.values())
        raise Unavailable(
            f"{series.load} to {series.service}, {series.family}: {len(rounds)} of "
            f"{len(series.rounds)} rounds can be used, {failed} attempts failed; on a busy machine "
            "give turns more --seconds"
        )
    used = Series(series.load, series.service, series.family, rounds)
    return Comparison(
        load=series.load,
        service=series.service,
        family=series.family,
        rounds=len(rounds),
        left_out=len(series.rounds) - len(rounds),
        lines=tuple(_line(used, proxy) for proxy in rounds[0]),
    )


def _line(series: Series, proxy: Proxy) -> Line:
    samples = [found[proxy] for found in series.rounds]
    return Line(
        proxy=proxy.value,
        p50_us=round(statistics.median(sample.p50_ns for sample in samples) / 1000, 2),
        p99_us=round(statistics.median(sample.p99_ns for sample in samples) / 1000, 2),
        samples=sum(sample.count for sample in samples),
        failures=sum(sample.failures for sample in samples),
        of_direct=None if proxy is Proxy.DIRECT else _of_direct(series, proxy),
    )


def _of_direct(series: Series, proxy: Proxy) -> Interval:
    logs = interval(
        [math.log(found[proxy].p50_ns / found[Proxy.DIRECT].p50_ns) for found in series.rounds]
    )
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))

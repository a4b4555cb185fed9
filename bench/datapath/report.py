"""From turns to what is reported. Pure."""

import statistics
from dataclasses import dataclass

from bench.datapath import comparing
from bench.datapath.comparing import PLAIN, Interval
from bench.datapath.measuring import Turns
from deltaplane.errors import Unavailable

LIMIT = 1.05
"""What a packet may cost through our programs, as a multiple of plain routing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One variant.

    Attributes:
        entries: of each policy set; 0: plain routing.
        median_ns: over the rounds, of their medians.
        mean_ns: over the rounds, of their means.
        samples: of all rounds.
        failures: of all rounds; see load.c.
        of_plain: as a multiple of plain routing, medians of the same round; None: it is that.
    """

    entries: int
    median_ns: float
    mean_ns: float
    samples: int
    failures: int
    of_plain: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One load in one family.

    Attributes:
        load: see load.c.
        family: ipv4 or ipv6.
        rounds: that are compared.
        left_out: rounds in which a variant did not even get warm.
        plain: without programs.
        lines: with them, ascending by entries.
        tenfold: what ten times the entries multiply the cost by; None: one number was measured.
    """

    load: str
    family: str
    rounds: int
    left_out: int
    plain: Line
    lines: tuple[Line, ...]
    tenfold: Interval | None

    @property
    def failures(self) -> int:
        """Of all variants."""
        return self.plain.failures + sum(line.failures for line in self.lines)


def compare(turns: Turns) -> Comparison:
    """Sums up.

    Raises:
        Unavailable: there are not two rounds in which every variant has a sample.
    """
    rounds = [found for found in turns.rounds if all(one.count for one in found.values())]
    if len(rounds) < 2:
        failures = sum(one.failures for found in turns.rounds for one in found.values())
        raise Unavailable(
            f"{turns.load} {turns.family}: {len(rounds)} of {len(turns.rounds)} rounds measured "
            f"something, {failures} attempts failed"
        )
    numbers = sorted(set(rounds[0]) - {PLAIN})
    medians = [{entries: sample.p50_ns for entries, sample in found.items()} for found in rounds]
    return Comparison(
        load=turns.load,
        family=turns.family,
        rounds=len(rounds),
        left_out=len(turns.rounds) - len(rounds),
        plain=_line(turns, PLAIN, None),
        lines=tuple(
            _line(turns, entries, comparing.ratio(medians, entries)) for entries in numbers
        ),
        tenfold=comparing.slope(medians),
    )


def _line(turns: Turns, entries: int, of_plain: Interval | None) -> Line:
    samples = [found[entries] for found in turns.rounds]
    warm = [sample for sample in samples if sample.count]
    return Line(
        entries=entries,
        median_ns=statistics.median(sample.p50_ns for sample in warm),
        mean_ns=round(statistics.fmean(sample.mean_ns for sample in warm), 1),
        samples=sum(sample.count for sample in samples),
        failures=sum(sample.failures for sample in samples),
        of_plain=of_plain,
    )

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
        rounds: how many.
        plain: without programs.
        lines: with them, ascending by entries.
        tenfold: what ten times the entries multiply the cost by; None: one number was measured.
    """

    load: str
    family: str
    rounds: int
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
        Unavailable: nothing went well in one of the rounds.
        ValueError: there are not two.
    """
    for number, found in enumerate(turns.rounds):
        for entries, sample in found.items():
            if not sample.count:
                raise Unavailable(
                    f"{turns.load} {turns.family}, {entries} entries, round {number}: "
                    f"nothing was measured, {sample.failures} attempts failed"
                )
    numbers = sorted(set(turns.rounds[0]) - {PLAIN})
    medians = [
        {entries: sample.p50_ns for entries, sample in found.items()} for found in turns.rounds
    ]
    return Comparison(
        load=turns.load,
        family=turns.family,
        rounds=len(turns.rounds),
        plain=_line(turns, PLAIN, None),
        lines=tuple(
            _line(turns, entries, comparing.ratio(medians, entries)) for entries in numbers
        ),
        tenfold=comparing.slope(medians),
    )


def _line(turns: Turns, entries: int, of_plain: Interval | None) -> Line:
    samples = [found[entries] for found in turns.rounds]
    return Line(
        entries=entries,
        median_ns=statistics.median(sample.p50_ns for sample in samples),
        mean_ns=round(statistics.fmean(sample.mean_ns for sample in samples), 1),
        samples=sum(sample.count for sample in samples),
        failures=sum(sample.failures for sample in samples),
        of_plain=of_plain,
    )

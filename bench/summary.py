"""From samples to what is reported. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One row of a report. Times in milliseconds; failures are counted, never timed.

    Attributes:
        name: what was measured.
        count: samples that went well.
        failures: attempts that did not.
    """

    name: str
    count: int
    failures: int
    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest sample that so many of all do not exceed (nearest rank).

    Args:
        ordered: ascending, not empty.
        fraction: above 0, at most 1.
    """
    rank = -(-len(ordered) * fraction // 1)
    return ordered[max(0, int(rank) - 1)]


def summarize(name: str, seconds: Sequence[float], failures: int = 0) -> Summary:
    """Sums up samples.

    Raises:
        ValueError: there is no sample to sum up.
    """
    if not seconds:
        raise ValueError(f"{name}: nothing was measured, {failures} attempts failed")
    ordered = sorted(value * 1000 for value in seconds)
    return Summary(
        name=name,
        count=len(ordered),
        failures=failures,
        min_ms=round(ordered[0], 3),
        p50_ms=round(percentile(ordered, 0.5), 3),
        p90_ms=round(percentile(ordered, 0.9), 3),
        p99_ms=round(percentile(ordered, 0.99), 3),
        max_ms=round(ordered[-1], 3),
    )


def rows(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """For JSON."""
    return [asdict(summary) for summary in summaries]


def table(title: str, summaries: Sequence[Summary]) -> Table:
    """For people."""
    made = Table(title=title)
    made.add_column("what")
    for heading in ("n", "failed", "min ms", "p50 ms", "p90 ms", "p99 ms", "max ms"):
        made.add_column(heading, justify="right")
    for row in summaries:
        times = (row.min_ms, row.p50_ms, row.p90_ms, row.p99_ms, row.max_ms)
        made.add_row(
            row.name, str(row.count), str(row.failures), *(f"{time:.2f}" for time in times)
        )
    return made

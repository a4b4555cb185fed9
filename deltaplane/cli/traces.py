"""One trace put together from the spans of many processes. Pure.

A span of the trace stands below its parent. One that served several traces at once (a transaction,
a tick) stands below the span of this trace that it links to.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

ADD = "cni ADD"
APPLY = "apply"
APPLIED = "applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A finished span, as /traces tells it. Times are Unix ns, by its process's clock."""

    name: str
    process: str
    instance: str
    span: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[tuple[str, int], ...] = ()
    error: str = ""

    def at(self, event: str) -> int | None:
        """When something happened in it, Unix ns; None: it did not."""
        return next((at for name, at in self.events if name == event), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage. depth: 0 for the ADD; milliseconds since it began, and how long it took."""

    depth: int
    stage: str
    where: str
    at_ms: float
    took_ms: float
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When other nodes' kernels had it, milliseconds since the ADD began, by node; fastest first.

    Between machines that is as exact as their clocks agree.
    """

    at_ms: Mapping[str, float]

    @property
    def first(self) -> float:
        """The first node's."""
        return min(self.at_ms.values())

    @property
    def p50(self) -> float:
        """Half of the nodes are not later."""
        return median(self.at_ms.values())

    @property
    def last(self) -> float:
        """The last node's."""
        return max(self.at_ms.values())


def read(answer: Mapping[str, Any], trace_id: str) -> list[Span]:
    """Reads what one process's /traces has answered for a trace."""
    return [_span(item, trace_id) for item in answer["spans"]]


def _span(item: Mapping[str, Any], trace_id: str) -> Span:
    parent = item["parent"]
    if item["trace"] != trace_id:
        parent = next(link["span"] for link in item["links"] if link["trace"] == trace_id)
    return Span(
        name=item["name"],
        process=item["process"],
        instance=item["instance"],
        span=item["span"],
        parent=parent,
        start_ns=item["start_unix_ns"],
        end_ns=item["end_unix_ns"],
        attributes=item["attributes"],
        events=tuple((event["name"], event["unix_ns"]) for event in item["events"]),
        error=item["error"],
    )


def beginning(spans: Iterable[Span]) -> Span | None:
    """The ADD; None when no process has it any more."""
    return next((span for span in spans if span.name == ADD and not span.parent), None)


def rows(spans: Sequence[Span], start: Span) -> tuple[Row, ...]:
    """All stages below the one they are part of, in order of time.

    What lies below a span that nobody has any more stands below the ADD.
    """
    known = {span.span for span in spans}
    below: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        if span is not start:
            below[span.parent if span.parent in known else start.span].append(span)
    found: list[Row] = []

    def add(span: Span, depth: int) -> None:
        found.append(_row(span, start, depth))
        for part in sorted(below.pop(span.span, ()), key=lambda it: (it.start_ns, it.instance)):
            add(part, depth + 1)

    add(start, 0)
    return tuple(found)


def _row(span: Span, start: Span, depth: int) -> Row:
    facts = [f"{key} {value}" for key, value in span.attributes.items()]
    steps = [f"{name} +{(at - span.start_ns) / 1e6:.1f}" for name, at in span.events]
    failure = [f"failed: {span.error}"] if span.error else []
    return Row(
        depth=depth,
        stage=span.name,
        where=span.instance if span.process == "agent" else span.process,
        at_ms=(span.start_ns - start.start_ns) / 1e6,
        took_ms=(span.end_ns - span.start_ns) / 1e6,
        note=", ".join([*failure, *steps, *facts]),
    )


def arrival(spans: Iterable[Span], start: Span) -> Arrival | None:
    """When other nodes had it in their kernels; None: none is known to."""
    at = {
        span.instance: (applied - start.start_ns) / 1e6
        for span in spans
        if span.name == APPLY and span.instance != start.instance
        if (applied := span.at(APPLIED)) is not None
    }
    return Arrival(at_ms=dict(sorted(at.items(), key=lambda item: item[1]))) if at else None

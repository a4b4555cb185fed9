"""Follows changes through the slicer: into a tick, to the agents, and back as acknowledgements.

It observes the stages of every tick, and records one span for a tick that carries sampled changes:
from the watch's delivery to the last writer, child of the first change, with links to others.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from deltaplane.delta.sender import Published
from deltaplane.runtime import propagation, tracing
from deltaplane.runtime.propagation import Stage
from services.slicer.facts import EndpointRecord, Record

TICKS = 4096
"""Ticks that an acknowledgement is looked up among: 40 s at 100 a second."""

_SEEN_TO_CUT = propagation.observer(Stage.SEEN_TO_CUT)
_CUT_TO_SENT = propagation.observer(Stage.CUT_TO_SENT)
_CUT_TO_ACKED = propagation.observer(Stage.CUT_TO_ACKED)


@dataclass(slots=True)
class _Tick:
    """One tick. seen_ns: when the first of its changes was delivered; 0: none was yet."""

    seen_ns: int = 0
    cut_ns: int = 0
    published: Published | None = None
    traceparents: list[str] = field(default_factory=list)


class Stages:
    """One replica's ticks. Times are Unix ns, by this process's clock."""

    def __init__(self) -> None:
        self._open = _Tick()
        self._cut = _Tick()
        self._cuts: OrderedDict[int, int] = OrderedDict()

    def seen(self, records: Iterable[Record], wall_ns: int) -> None:
        """The store has delivered writes; they belong to the next tick."""
        tick = self._open
        if not tracing.is_on():
            if not tick.seen_ns and any(True for _ in records):
                tick.seen_ns = wall_ns
            return
        for record in records:
            tick.seen_ns = tick.seen_ns or wall_ns
            content = record.content
            if isinstance(content, EndpointRecord) and content.traceparent:
                tick.traceparents.append(content.traceparent)

    def cut(self, published: Published, wall_ns: int) -> None:
        """A tick was cut; what is seen from now on belongs to the next one."""
        tick, self._open = self._open, _Tick()
        self._cut = tick
        tick.cut_ns, tick.published = wall_ns, published
        if not tick.seen_ns or not published.changes:
            return
        _SEEN_TO_CUT((wall_ns - tick.seen_ns) / 1e9)
        self._cuts[tick.seen_ns] = wall_ns
        if len(self._cuts) > TICKS:
            self._cuts.popitem(last=False)

    def sent(self, wall_ns: int, *, agents: int) -> None:
        """The writers that keep up have written the last tick, for so many agents."""
        tick = self._cut
        if not tick.seen_ns or tick.published is None or not tick.published.changes:
            return
        _CUT_TO_SENT((wall_ns - tick.cut_ns) / 1e9)
        tracing.record(
            "slicer tick",
            tracing.some_of(tick.traceparents),
            start_ns=tick.seen_ns,
            end_ns=wall_ns,
            events=(("cut", tick.cut_ns), ("sent", wall_ns)),
            attributes={
                "changes": tick.published.changes,
                "bytes": tick.published.size,
                "agents": agents,
            },
        )

    def acked(self, seen_ns: int, wall_ns: int) -> None:
        """An agent has acknowledged the tick whose first change was seen then."""
        cut_ns = self._cuts.get(seen_ns)
        if cut_ns is not None:
            _CUT_TO_ACKED((wall_ns - cut_ns) / 1e9)

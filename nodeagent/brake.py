"""The brake: what would remove much at once removes nothing until somebody confirms it. Pure.

What the stream removes, object by object, somebody has removed. What is merely absent from a whole
new view may as well be a view that is wrong.
"""

from dataclasses import dataclass

from deltaplane.delta.acks import Refusal
from deltaplane.model.objects import BRAKED, Kind
from nodeagent.state import Kernel, Touched, Wanted

ENTRIES = 100
PERCENT = 10
"""A sweep is held that exceeds both: so many entries, and this part of what the kernel holds."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What would go.

    Attributes:
        gone: the keys.
        entries: how many they are.
        held: how many the kernel holds.
    """

    gone: Touched
    entries: int
    held: int

    @property
    def is_too_much(self) -> bool:
        """Whether somebody has to confirm it."""
        return self.entries > ENTRIES and self.entries * 100 > self.held * PERCENT

    def refusal(self, node_index: int) -> Refusal:
        """How the slicer is told: the node refuses itself."""
        reason = f"{BRAKED}{self.entries} of {self.held} entries would go; nothing does until "
        return Refusal(
            kind=Kind.NODE,
            key=node_index.to_bytes(4),
            reason=reason + "`deltaplane node sweep NAME --confirm`",
            retryable=True,
        )


def sweep(wanted: Wanted, kernel: Kernel, keys: Touched) -> Sweep:
    """What would go at these keys.

    Interfaces and their policies do not count: of them the journal decides, and what is missing
    closes.

    Args:
        wanted: at the keys.
        kernel: all of it.
        keys: to look at.
    """
    gone = Touched(
        next_hops=(keys.next_hops & kernel.next_hops.keys()) - wanted.next_hops.keys(),
        ranges=(keys.ranges & kernel.ranges.keys()) - wanted.ranges.keys(),
        routes=(keys.routes & kernel.routes.keys()) - wanted.routes.keys(),
        mappings=(keys.mappings & kernel.mappings.keys()) - wanted.mappings.keys(),
        members=(keys.members & kernel.members.keys()) - wanted.members.keys(),
    )
    return Sweep(gone, _entries(gone), _entries(kernel))


def _entries(of: Touched | Kernel) -> int:
    tables = (of.next_hops, of.ranges, of.routes, of.mappings, of.members)
    return sum(map(len, tables))


class Brake:
    """Whether it is on.

    Attributes:
        sweep: what is held; None: nothing.
    """

    def __init__(self) -> None:
        self.sweep: Sweep | None = None
        self._confirmed = 0

    def confirm(self, entries: int) -> None:
        """Somebody wants a sweep of so many entries, or fewer, to happen."""
        self._confirmed = entries

    def weigh(self, found: Sweep) -> None:
        """Decides about a sweep. One that shrinks, as what is missing comes back, goes on."""
        allowed, self._confirmed = self._confirmed, 0
        self.sweep = found if found.is_too_much and found.entries > allowed else None

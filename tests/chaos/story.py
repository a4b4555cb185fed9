"""Which faults happen, and when, from a seed. Pure.

The order of what happens depends on the seed alone: every time is computed beforehand, none is read
from a clock.
"""

import enum
import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count


class Kind(enum.StrEnum):
    """What can be done to a lab."""

    KILL = "kill -9"
    FREEZE = "freeze"
    CUT_MANAGEMENT = "cut management link"
    CUT_UPLINK = "cut uplink"
    FILL_DISK = "fill disk"
    JUMP_CLOCK = "jump clock"


class Way(enum.StrEnum):
    """Which packets of a link a cut takes, as seen from the node."""

    BOTH = "both ways"
    IN = "in"
    OUT = "out"


DECK = (
    *([Kind.KILL] * 4),
    *([Kind.FREEZE] * 2),
    Kind.CUT_MANAGEMENT,
    Kind.CUT_UPLINK,
    Kind.FILL_DISK,
    Kind.JUMP_CLOCK,
)
"""Drawn without putting back: every ten faults in a row have all kinds."""

JUMPS_SECONDS = (-86_400.0, -3600.0, -61.0, -1.0, 1.0, 61.0, 3600.0, 86_400.0)

LONG_ONE_IN = 8
LONG_SECONDS = (20.0, 75.0)
"""Longer than slicers wait for a silent node (60 s), now and then."""

CUTS = frozenset({Kind.CUT_MANAGEMENT, Kind.CUT_UPLINK})

OF_NODES = frozenset({*CUTS, Kind.FILL_DISK})

LONG = frozenset({Kind.FREEZE, Kind.CUT_MANAGEMENT})
"""What may last that long. A cut uplink that long would only lose pings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Whom faults can hit.

    Attributes:
        etcd: members; at most one of them is away at a time.
        services: replicas of all services.
        agents: name of the process by node, in the order of the nodes.
        small_disk: node whose state folder can be filled.
    """

    etcd: tuple[str, ...]
    services: tuple[str, ...]
    agents: Mapping[str, str]
    small_disk: str

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return tuple(self.agents)

    def targets(self, kind: Kind) -> tuple[str, ...]:
        """Whom a fault of a kind can hit."""
        match kind:
            case Kind.KILL | Kind.FREEZE:
                return (*self.etcd, *self.services, *self.agents.values())
            case Kind.CUT_MANAGEMENT | Kind.CUT_UPLINK:
                return self.nodes
            case Kind.FILL_DISK:
                return (self.small_disk,)
            case Kind.JUMP_CLOCK:
                # etcd is written in Go: it asks the kernel and not the C library for the time.
                return (*self.services, *self.agents.values())


def part(kind: Kind, target: str) -> str:
    """What a fault hits. Nothing is hit twice at a time, but both links of a node may be cut."""
    return f"{kind} {target}" if kind in OF_NODES else target


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        number: from 1, in the order in which they begin.
        seconds: from its beginning to its end; 0: it has no end.
        way: of a cut.
        jump: of a clock, seconds.
    """

    number: int
    kind: Kind
    target: str
    seconds: float = 0.0
    way: Way = Way.BOTH
    jump: float = 0.0

    def __str__(self) -> str:
        text = f"#{self.number} {self.kind} {self.target}"
        if self.kind in CUTS:
            text += f" ({self.way})"
        if self.jump:
            text += f" by {self.jump:+g} s"
        return f"{text} for {self.seconds:.1f} s" if self.seconds else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fault begins or ends.

    Attributes:
        at: seconds from the beginning of the story.
    """

    at: float
    fault: Fault
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a story is told.

    Attributes:
        pause_seconds: shortest and longest time between two beginnings.
        fault_seconds: the same of a fault's life.
        long_ones: some faults last LONG_SECONDS.
        jumps_end: a clock that has jumped is set right again. With TLS it must be: nobody with a
            wrong clock can tell a certificate that is valid from one that is not.
    """

    pause_seconds: tuple[float, float] = (0.5, 4.0)
    fault_seconds: tuple[float, float] = (0.5, 8.0)
    long_ones: bool = True
    jumps_end: bool = False


BRISK = Pace(pause_seconds=(0.1, 0.4), fault_seconds=(0.3, 1.2), long_ones=False)
"""For a story of a few seconds."""


class _Drawer:
    """Draws faults that hit nobody who is hit already."""

    def __init__(self, seed: int, cast: Cast, pace: Pace) -> None:
        self._chance = random.Random(f"faults {seed}")
        self._cast = cast
        self._pace = pace
        self._deck: list[Kind] = []
        self._number = 0

    def pause(self) -> float:
        """Seconds until the next fault begins."""
        return self._chance.uniform(*self._pace.pause_seconds)

    def draw(self, busy: Collection[Fault]) -> Fault:
        """The next fault."""
        if not self._deck:
            self._deck = list(DECK)
            self._chance.shuffle(self._deck)
        kind = self._deck.pop()
        free = self._free(kind, busy)
        if not free:
            kind, free = Kind.KILL, self._free(Kind.KILL, busy)
        self._number += 1
        return Fault(
            number=self._number,
            kind=kind,
            target=self._chance.choice(free),
            seconds=self._seconds(kind),
            way=self._chance.choice(list(Way)) if kind in CUTS else Way.BOTH,
            jump=self._chance.choice(JUMPS_SECONDS) if kind is Kind.JUMP_CLOCK else 0.0,
        )

    def _free(self, kind: Kind, busy: Collection[Fault]) -> list[str]:
        hit = {part(fault.kind, fault.target) for fault in busy}
        etcd = self._cast.etcd if any(name in hit for name in self._cast.etcd) else ()
        return [
            name
            for name in self._cast.targets(kind)
            if part(kind, name) not in hit and name not in etcd
        ]

    def _seconds(self, kind: Kind) -> float:
        if kind is Kind.KILL or (kind is Kind.JUMP_CLOCK and not self._pace.jumps_end):
            return 0.0
        is_long = self._pace.long_ones and kind in LONG
        if is_long and self._chance.randrange(LONG_ONE_IN) == 0:
            return self._chance.uniform(*LONG_SECONDS)
        return self._chance.uniform(*self._pace.fault_seconds)


def events(
    seed: int, cast: Cast, pace: Pace, faults: int | None = None, seconds: float | None = None
) -> Iterator[Event]:
    """Beginnings and ends in the order of their times.

    Args:
        seed: decides all of it.
        cast: whom it can hit.
        pace: how fast.
        faults: so many begin; None: any number.
        seconds: none begins later, and what lasts longer ends then; None: never.
    """
    drawer = _Drawer(seed, cast, pace)
    ending: list[tuple[float, int, Fault]] = []
    now = 0.0
    last = math.inf if seconds is None else seconds
    for _ in count() if faults is None else range(faults):
        now += drawer.pause()
        while ending and ending[0][0] <= min(now, last):
            yield _end(heappop(ending))
        if now > last:
            break
        fault = drawer.draw([fault for _, _, fault in ending])
        yield Event(at=now, fault=fault, ends=False)
        if fault.seconds:
            heappush(ending, (now + fault.seconds, fault.number, fault))
    while ending:
        at, number, fault = heappop(ending)
        yield _end((min(at, last), number, fault))


def _end(item: tuple[float, int, Fault]) -> Event:
    at, _, fault = item
    return Event(at=at, fault=fault, ends=True)

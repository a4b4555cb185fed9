"""What can go wrong where: every fault point of a run has a number, and the plan says what happens.

A *point* is a place where a process talks to something that outlives it.

    READ     a read of the store
    WRITE    a transaction of the store
    CALL     a request from an agent to a service
    JOURNAL  a transaction of the agent's journal, or a change of the kernel
"""

import enum
from collections.abc import Mapping


class Point(enum.Enum):
    """Where something can go wrong."""

    READ = enum.auto()
    WRITE = enum.auto()
    CALL = enum.auto()
    JOURNAL = enum.auto()


class Fate(enum.Enum):
    """What happens there."""

    FINE = "fine"
    LOST = "lost"
    """It never arrives; whoever asked hears Unavailable."""
    ANSWER_LOST = "answer lost"
    """It is done; whoever asked hears Unavailable."""
    LATE = "late"
    """Whoever asked hears Unavailable now; it is done some time later."""
    TWICE = "twice"
    """It is done twice, by two replicas at the same time."""
    CRASH_BEFORE = "crash before"
    """The process dies, nothing is done."""
    CRASH_AFTER = "crash after"
    """It is done, and the process dies."""


FATES: Mapping[Point, tuple[Fate, ...]] = {
    Point.READ: (Fate.LOST, Fate.CRASH_BEFORE),
    Point.WRITE: (
        Fate.LOST,
        Fate.ANSWER_LOST,
        Fate.LATE,
        Fate.CRASH_BEFORE,
        Fate.CRASH_AFTER,
    ),
    Point.CALL: (Fate.LOST, Fate.ANSWER_LOST, Fate.LATE, Fate.TWICE),
    Point.JOURNAL: (Fate.CRASH_BEFORE, Fate.CRASH_AFTER),
}


class Faults:
    """The plan and how far it has come.

    Attributes:
        passed: points that were passed.
        paused: all is well for now, and points do not count.
        fired: (number of the point, what happened), in order.
    """

    def __init__(self, plan: Mapping[int, int]) -> None:
        self.passed = 0
        self.paused = False
        self.fired: list[tuple[int, Point, Fate]] = []
        self._plan = plan

    def next(self, point: Point) -> Fate:
        """What happens at the next point. A plan's number selects one of what is possible there."""
        if self.paused:
            return Fate.FINE
        number = self.passed
        self.passed += 1
        chosen = self._plan.get(number)
        if chosen is None:
            return Fate.FINE
        fates = FATES[point]
        fate = fates[chosen % len(fates)]
        self.fired.append((number, point, fate))
        return fate

    def stop(self) -> Mapping[int, int]:
        """From now on all is well; the plan."""
        plan, self._plan = self._plan, {}
        return plan

    def begin(self, plan: Mapping[int, int]) -> None:
        """From now on points count, by this plan."""
        self.passed, self.paused, self._plan = 0, False, plan

"""How long policies took to be in force: from the commit as this replica saw it to the nodes' Acks.

A replica measures its own agents by its own clock; a receipt adds up what all replicas measured. It
knows nothing of what was written before it started, or while it could not watch the store.
"""

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from deltaplane.delta.changes import Change, Upsert
from deltaplane.model.objects import SubjectPolicy
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.tiers import Policy
from services.slicer.facts import Record

POLICIES_AT_MOST = 50_000
"""Policies of which times are kept, those written last: about 20 MB."""

OPEN_AT_MOST = 10_000
"""Policies that are waited for at the same time; the oldest keep the times that they have."""

SHORTEST_SECONDS = 1e-4
RATIO = 1.05
"""Times are counted in steps of 5 %, and told by the upper end of their step."""

LAST_STEP = 430
"""36 hours and all that is longer."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Times, counted. counts: how many are in each step."""

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float:
        """Seconds that this share of the times, 0..1, does not exceed; 0: there are none."""
        left = max(1, math.ceil(share * self.total))
        for step in sorted(self.counts):
            left -= self.counts[step]
            if left <= 0:
                return float(SHORTEST_SECONDS * RATIO**step)
        return 0.0

    @classmethod
    def sum(cls, spreads: Iterable["Spread"]) -> "Spread":
        """All of them together."""
        counts: Counter[int] = Counter()
        for spread in spreads:
            counts.update(spread.counts)
        return cls(counts)


def step_of(seconds: float) -> int:
    """The step, 0..LAST_STEP, that counts a time."""
    if seconds <= SHORTEST_SECONDS:
        return 0
    return min(LAST_STEP, math.ceil(math.log(seconds / SHORTEST_SECONDS, RATIO)))


@dataclass(slots=True, eq=False)
class _Written:
    """A policy as it was last written. nodes: who must acknowledge it; left: how many have not."""

    revision: int
    seen_at: float
    nodes: frozenset[int] = frozenset()
    left: int = 0
    counts: dict[int, int] = field(default_factory=dict)


class Timings:
    """Of the policies written since this replica watches. Times are seconds of its clock."""

    def __init__(self) -> None:
        self._policies: dict[str, _Written] = {}  # the last to be written at the end
        self._fresh: dict[str, _Written] = {}  # not in a tick yet
        self._open: list[_Written] = []  # by revision

    def seen(self, records: Iterable[Record], now: float) -> None:
        """The store has delivered writes."""
        for record in records:
            if not isinstance(record.content, NetworkPolicy | Policy):
                continue
            reference = record.content.reference
            if (before := self._policies.pop(reference, None)) is not None:
                before.left = 0  # whoever has it not yet will never have it
            written = _Written(record.generation, now)
            self._policies[reference] = self._fresh[reference] = written
            if len(self._policies) > POLICIES_AT_MOST:
                del self._policies[next(iter(self._policies))]

    def cut(self, changes: Iterable[Change], told: Callable[[int], Iterable[int]]) -> None:
        """A tick was cut that shows all that was seen.

        Args:
            changes: of the tick.
            told: the nodes that are told of the policies of an identity.
        """
        fresh, self._fresh = self._fresh, {}
        if not fresh:
            return
        subjects = _subjects(changes, fresh.keys())
        shared: dict[frozenset[int], frozenset[int]] = {}
        for reference, written in sorted(fresh.items(), key=lambda item: item[1].revision):
            identities = frozenset(subjects.get(reference, ()))
            if identities not in shared:
                shared[identities] = frozenset(n for i in identities for n in told(i))
            written.nodes = shared[identities]
            written.left = len(written.nodes)
            if written.left:
                self._open.append(written)
        self._open = [written for written in self._open if written.left][-OPEN_AT_MOST:]

    def passed(self, node: int, before: int, after: int, now: float) -> None:
        """A node agreed with the store at one revision, and has acknowledged a later one."""
        if not self._open or after < self._open[0].revision:
            return
        first = bisect.bisect_right(self._open, before, key=lambda written: written.revision)
        for position in range(first, len(self._open)):
            written = self._open[position]
            if written.revision > after:
                return
            if written.left and node in written.nodes:
                written.left -= 1
                step = step_of(now - written.seen_at)
                written.counts[step] = written.counts.get(step, 0) + 1

    def spread(self, reference: str, revision: int) -> Spread:
        """What was measured of a policy as it was written at a revision; empty: nothing was."""
        written = self._policies.get(reference)
        if written is None or written.revision != revision:
            return Spread()
        return Spread(dict(written.counts))


def _subjects(changes: Iterable[Change], wanted: Iterable[str]) -> dict[str, set[int]]:
    """The identities whose policies a tick changed, by the policies wanted that apply to them."""
    found: dict[str, set[int]] = {reference: set() for reference in wanted}
    for change in changes:
        if isinstance(change, Upsert) and isinstance(change.value, SubjectPolicy):
            value = change.value
            for reference in (*value.ingress.policies, *value.egress.policies):
                if reference in found:
                    found[reference].add(value.identity)
    return found

"""How often rules have decided, whichever policy set held them at the time. Pure.

The kernel counts by set and ruling; a set lives as long as its content. Here the counts get the
names of rules, and those of sets that go are kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from nodeagent.dataplane.port import RuleCount
from nodeagent.policy import RuleName

Names = Mapping[int, tuple[RuleName, ...]]
"""By ruling."""


class RuleHits:
    """Counts since the agent started, and what its first sets had counted before."""

    def __init__(self) -> None:
        self._names: dict[int, Names] = {}
        self._settled: dict[tuple[int, int], int] = {}
        self._totals: Counter[RuleName] = Counter()

    def renames(self, names: Mapping[int, Names]) -> bool:
        """Whether a set that counts already is to count for others: settle before `name`."""
        return any(self._names.get(set_id, each) != each for set_id, each in names.items())

    def name(self, names: Mapping[int, Names]) -> None:
        """Says, by set, for whom it counts."""
        self._names.update(names)

    def settle(self, counts: Iterable[RuleCount]) -> Counter[RuleName]:
        """Takes over what sets have counted so far; returns what is new. Unnamed sets wait."""
        new: Counter[RuleName] = Counter()
        for count in counts:
            named = self._names.get(count.set_id)
            if named is None:
                continue
            key = (count.set_id, count.ruling)
            grown = count.hits - self._settled.get(key, 0)
            self._settled[key] = count.hits
            if grown > 0:
                new.update(dict.fromkeys(named.get(count.ruling, ()), grown))
        self._totals.update(new)
        return new

    def retire(self, set_ids: Iterable[int]) -> None:
        """Forgets sets that are gone; what they had counted must be settled."""
        gone = set(set_ids)
        for set_id in gone:
            self._names.pop(set_id, None)
        self._settled = {key: hits for key, hits in self._settled.items() if key[0] not in gone}

    def prune(self) -> None:
        """Forgets policies that no set counts for any more, so that there are only so many."""
        named = (each for names in self._names.values() for each in names.values())
        kept = {name.policy for each in named for name in each}
        for name in [name for name in self._totals if name.policy not in kept]:
            del self._totals[name]

    def totals(self) -> dict[RuleName, int]:
        """All that was ever more than nothing, ascending."""
        return dict(sorted(self._totals.items()))

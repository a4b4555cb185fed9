"""No address comes back too early, whatever goes wrong; and what goes wrong in the code is found.

`make soak-reuse` tells longer stories.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from deltaplane.delta.log import Log
from deltaplane.delta.sender import Reader, Sender
from services.slicer import fanout, watermark
from services.slicer.fanout import Fanout
from services.slicer.watermark import Coverage, Patience
from tests.sim.reuse_story import tell
from tests.sim.reuse_world import Violation

SEEDS = 2
CYCLES = 400
HUNTED = 4
"""Stories that a mutant has to survive before it counts as not found."""
HUNTED_CYCLES = 1500

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.timeout(180)
def test_no_address_comes_back_too_early(seed: int) -> None:
    tell(seed, CYCLES)


# --- mutants -------------------------------------------------------------------------------------


def uncovered_nodes_do_not_count(patch: pytest.MonkeyPatch) -> None:
    def mutant(nodes: Iterable[int], passed: Mapping[int, int], scanned: int) -> int:
        return min(scanned, min((passed[n] for n in nodes if n in passed), default=scanned))

    patch.setattr(watermark, "_lowest", mutant)


def highest_instead_of_lowest(patch: pytest.MonkeyPatch) -> None:
    def mutant(nodes: Iterable[int], passed: Mapping[int, int], scanned: int) -> int:
        return min(scanned, max((passed.get(n, 0) for n in nodes), default=scanned))

    patch.setattr(watermark, "_lowest", mutant)


def coverage_of_the_fastest(patch: pytest.MonkeyPatch) -> None:
    real = Fanout.coverage

    def mutant(self: Fanout, target: int) -> Coverage:
        found = real(self, target)
        best = max((self.sender.effective(s.reader) for s in self.sessions.values()), default=0)
        groups = tuple(replace(group, revision=min(target, best)) for group in found.groups)
        return replace(found, groups=groups)

    patch.setattr(Fanout, "coverage", mutant)


def sent_counts_as_acknowledged(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Sender, reader: Reader) -> int:
        return self._log.effective(reader.barrier_revision)

    patch.setattr(Sender, "effective", mutant)


def segments_without_changes_are_passed(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Log, applied: int) -> int:
        if not self.start <= applied <= self.head:
            return applied
        for segment in self._segments[self._first_after(applied) :]:
            if segment.changes:
                return max(applied, segment.unchanged_until)
        return self.head

    patch.setattr(Log, "effective", mutant)


def fence_goes_at_once(patch: pytest.MonkeyPatch) -> None:
    def mutant(*, effective: int, renewed: bool, watermark: int) -> bool:
        del effective, renewed, watermark
        return True

    patch.setattr(fanout, "may_unfence", mutant)


def others_agents_are_fenced(patch: pytest.MonkeyPatch) -> None:
    real = Patience.fences_due

    def mutant(self: Patience, **known: Any) -> tuple[int, ...]:
        return real(self, **known | {"covered": frozenset()})

    patch.setattr(Patience, "fences_due", mutant)


def fenced_without_patience(patch: pytest.MonkeyPatch) -> None:
    real = Patience.fences_due

    def mutant(self: Patience, **known: Any) -> tuple[int, ...]:
        self._stale_after = 3.0
        return real(self, **known)

    patch.setattr(Patience, "fences_due", mutant)


MUTANTS: tuple[Patch, ...] = (
    uncovered_nodes_do_not_count,
    highest_instead_of_lowest,
    coverage_of_the_fastest,
    sent_counts_as_acknowledged,
    segments_without_changes_are_passed,
    fence_goes_at_once,
    others_agents_are_fenced,
    fenced_without_patience,
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
@pytest.mark.timeout(600)
def test_a_mutant_is_found(mutant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(Violation):
        tell_many()


def tell_many() -> None:
    for seed in range(HUNTED):
        tell(seed, HUNTED_CYCLES, settle=False)

"""No address comes back too early, whatever goes wrong; and what goes wrong in the code is found.

`make soak-reuse` tells longer stories.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from deltaplane.delta.log import Log
from deltaplane.delta.reader import Reader
from deltaplane.delta.receiver import Receiver
from deltaplane.delta.sender import Sender
from deltaplane.store import keys
from deltaplane.store.port import Put
from services.slicer import fanout, progress, repository, watermark
from services.slicer.fanout import Fanout
from services.slicer.watermark import Coverage, Fence, Patience, Watermark
from tests.sim.reuse_story import tell
from tests.sim.violation import Violation

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


def watermark_written_without_comparing(patch: pytest.MonkeyPatch) -> None:
    async def mutant(
        self: repository.Repository, lineage_id: bytes, following: Watermark, *, stamps: object
    ) -> bool:
        del stamps
        value = watermark.encode_watermark(lineage_id, following)
        return (await self._store.transact([], [Put(keys.WATERMARK, value)])).succeeded

    patch.setattr(repository.Repository, "advance", mutant)


def fence_comes_without_comparing_the_joins(patch: pytest.MonkeyPatch) -> None:
    real = repository.Repository.fence

    async def mutant(
        self: repository.Repository, nodes: Mapping[int, str], *, stamps: Mapping[str, int]
    ) -> tuple[Fence, ...]:
        joins = await self._store.get(keys.JOINS)
        now = {**stamps, keys.JOINS: joins.mod_revision if joins else 0}
        return await real(self, nodes, stamps=now)

    patch.setattr(repository.Repository, "fence", mutant)


def snapshots_below_the_registration(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Receiver, lineage: bytes) -> int:
        kernel = self._floor.revision if lineage == self._floor.lineage else 0
        return max(self.revision if lineage == self.lineage else 0, kernel)

    patch.setattr(Receiver, "_floor_in", mutant)


def strict_like_live(patch: pytest.MonkeyPatch) -> None:
    def mutant(coverages: Iterable[Coverage], **known: Any) -> Watermark | None:
        found = watermark.advance(coverages, **known)
        return found and Watermark(live=found.live, strict=found.live)

    patch.setattr(progress, "advance", mutant)


MUTANTS: dict[Patch, int] = {
    uncovered_nodes_do_not_count: 0,
    highest_instead_of_lowest: 0,
    coverage_of_the_fastest: 0,
    sent_counts_as_acknowledged: 0,
    segments_without_changes_are_passed: 0,
    fence_goes_at_once: 0,
    others_agents_are_fenced: 0,
    fenced_without_patience: 0,
    watermark_written_without_comparing: 0,
    fence_comes_without_comparing_the_joins: 4,
    snapshots_below_the_registration: 4,
    strict_like_live: 0,
}
"""Each with the seed of a story that finds it soon; a change of the world may ask for another."""


@pytest.mark.parametrize(
    ("mutant", "seed"), MUTANTS.items(), ids=[mutant.__name__ for mutant in MUTANTS]
)
@pytest.mark.timeout(600)
def test_a_mutant_is_found(mutant: Patch, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(Violation):
        tell_many(seed)


def tell_many(first: int) -> None:
    for seed in range(first, first + HUNTED):
        tell(seed, HUNTED_CYCLES, settle=False)

"""What barriers say about addresses, on its way into the journal."""

import sqlite3

from deltaplane.delta.view import View
from deltaplane.errors import Unavailable
from deltaplane.model.objects import Kind
from deltaplane.runtime.clock import Clock
from nodeagent.addressing import Progress
from nodeagent.journal import Journal
from nodeagent.stream import BarrierReached
from nodeagent.worker import Worker


class Knowledge:
    """Takes pools, the watermark and single addresses of other nodes from each barrier."""

    def __init__(
        self, journal: Journal, writer: Worker, *, only_strict: bool, clock: Clock
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._only_strict = only_strict
        self._clock = clock
        self._first = True
        self._foreign: frozenset[bytes] = frozenset()

    async def take(self, reached: BarrierReached, *, own_index: int) -> bool:
        """Writes down what is new; True: that was more than how far all are.

        Nothing is taken from a view that is not complete: what it lacks may exist.

        Raises:
            Unavailable: the journal cannot be written, because its disk is full, say. All of it is
                written with the next barrier that it can be.
        """
        if not reached.complete:
            return False
        try:
            return await self._take(reached, own_index)
        except sqlite3.OperationalError as error:
            self._first = True
            raise Unavailable(f"the journal cannot be written: {error}") from error

    async def _take(self, reached: BarrierReached, own_index: int) -> bool:
        first, self._first = self._first, False
        foreign = self._foreign
        if first or any(kind is Kind.BLOCK and _is_single(key) for kind, key in reached.changed):
            foreign = _foreign(reached.view, own_index)
        changed = first or foreign != self._foreign
        self._foreign = foreign
        before = self._journal.ledger.progress
        if first or any(kind is Kind.POOL for kind, _ in reached.changed):
            changed = True
            await self._writer.call(
                self._journal.learn_pools,
                [(held.value, held.generation) for held in reached.view.pools.values()],
                lineage=reached.lineage,
                revision=reached.revision,
            )
        progress = self._progress(reached, before)
        if changed or progress != before:
            now = self._clock.wall_ns() / 1e9
            await self._writer.call(self._journal.observe, progress, foreign, now)
        return changed

    def _progress(self, reached: BarrierReached, before: Progress) -> Progress:
        # What this node has not applied itself it must not act upon.
        watermark = min(reached.watermark, reached.revision)
        strict = min(reached.strict_watermark, reached.revision)
        if before.lineage == reached.lineage:
            # Another slicer may know less.
            watermark, strict = max(watermark, before.watermark), max(strict, before.strict)
        return Progress(
            lineage=reached.lineage,
            head=reached.head_revision,
            watermark=watermark,
            strict=strict,
            only_strict=self._only_strict,
        )


def _is_single(key: bytes) -> bool:
    """Whether a block's key (length, address) names one address."""
    return key[0] == 8 * (len(key) - 1)


def _foreign(view: View, own_index: int) -> frozenset[bytes]:
    return frozenset(
        held.value.prefix.address
        for key, held in view.blocks.items()
        if _is_single(key) and held.value.node_index != own_index
    )

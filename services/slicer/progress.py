"""Progress: what the replicas say of their agents, and what follows: watermark, fences.

The decisions are in `watermark`; this reads, carries out and repeats. All of it may be repeated,
by any replica and at the same time: every write compares what it was decided from.

    acks ─► own coverage ─► progress/coverage/SERVER ─┐
                                                      ├─► watermark ─► barriers
    other replicas ──────── progress/coverage/… ──────┘
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from deltaplane.errors import Compacted, Invalid, NotFound, Unavailable
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from deltaplane.store import keys
from deltaplane.store.port import Event, KeyValue
from services.slicer import metrics
from services.slicer.fanout import Fanout
from services.slicer.repository import FENCES_AT_ONCE, Repository
from services.slicer.watermark import (
    Coverage,
    Patience,
    Watermark,
    advance,
    decode_coverage,
    decode_watermark,
)

RETRY_SECONDS = 0.5
PUBLISH_SECONDS = 0.1
"""Own coverage goes to the store at most this often."""

UNREACHED_SECONDS = 0.3
"""While own agents have not acknowledged what is waited for, saying so is not urgent: it would only
delay the moment at which they all have."""

LAZY_SECONDS = 1.0
"""What no released address waits for, the watermark follows this much later: what agents
quarantine at a revision of their own must come free, too."""

STEP_SECONDS = 0.02
STEP_SECONDS_PER_AGENT = 0.0001
"""Pause between two steps: they look at every agent, and acknowledgements come in bursts."""

IDLE_SECONDS = 1.0

FENCE_SECONDS = 0.5
"""How often it is looked whether a node is too late, at most: they have tens of seconds."""


class Board:
    """The keys of progress as they were at one revision.

    Attributes:
        stamps: mod revisions of all keys.
        coverages: of this lineage, by server.
        watermark: of this lineage.
        revision: what it shows; 0 before the first listing.
        witnessed: nodes that each server covered at any time since somebody emptied it: a watch
            that was late brings many writes at once, and the last one alone would hide a node that
            was back for a while.
        has_gap: a listing took the place of writes that nobody saw, since somebody reset it.
    """

    def __init__(self, lineage: bytes) -> None:
        self.stamps: dict[str, int] = {}
        self.coverages: dict[str, Coverage] = {}
        self.watermark = Watermark()
        self.revision = 0
        self.witnessed: dict[str, set[int]] = {}
        self.has_gap = False
        self._lineage = lineage

    @property
    def epoch(self) -> int:
        """Revision at which the last fence went; 0: none ever did."""
        return self.stamps.get(keys.FENCE_EPOCH, 0)

    def replace(self, items: Iterable[KeyValue], revision: int) -> None:
        """Takes a listing."""
        self.stamps.clear()
        self.coverages.clear()
        self.watermark = Watermark()
        self.has_gap = True
        self.take(items, revision)

    def take(self, entries: Iterable[KeyValue | Event], revision: int) -> None:
        """Takes what was written through a revision."""
        for entry in entries:
            if entry.value is None:
                self.stamps.pop(entry.key, None)
            else:
                self.stamps[entry.key] = entry.mod_revision
            if entry.key == keys.WATERMARK:
                self.watermark = decode_watermark(entry.value, self._lineage)
            elif entry.key.startswith(keys.COVERAGE):
                self._take_coverage(entry.key.removeprefix(keys.COVERAGE), entry.value)
        self.revision = max(self.revision, revision)

    def _take_coverage(self, server_id: str, value: bytes | None) -> None:
        self._witness(server_id, self.coverages.pop(server_id, None))
        if value is None:
            return
        try:
            coverage = decode_coverage(value)
        except Invalid as error:
            log.get().error("coverage_unreadable", server=server_id, reason=str(error))
            return
        if coverage.lineage == self._lineage:
            self.coverages[server_id] = coverage
            self._witness(server_id, coverage)

    def _witness(self, server_id: str, coverage: Coverage | None) -> None:
        if coverage is not None:
            self.witnessed.setdefault(server_id, set()).update(coverage.nodes)


class Progress:
    """One replica's part in it.

    Args:
        lease: the lease of this replica's keys now; 0: there is none.
    """

    def __init__(
        self,
        repository: Repository,
        fanout: Fanout,
        server_id: str,
        clock: Clock,
        *,
        lease: Callable[[], int],
        stale_after: float,
    ) -> None:
        self.board = Board(fanout.sender.lineage)
        self._repository = repository
        self._fanout = fanout
        self._server_id = server_id
        self._clock = clock
        self._lease = lease
        self._patience = Patience(stale_after)
        self._fence_seconds = min(FENCE_SECONDS, stale_after / 10)
        self._fenced_at = float("-inf")
        self._target = fanout.sender.head
        self._aimed_at = float("-inf")
        self._behind_since: float | None = None
        self._published: tuple[int, Coverage] | None = None
        self._published_at = float("-inf")
        self._work = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled; etcd away, it waits."""
        self._fanout.watchers.add(self._work.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch())
                tasks.create_task(self._keep_stepping())
        finally:
            self._fanout.watchers.discard(self._work.set)

    async def _watch(self) -> None:
        listed = False
        while True:
            try:
                if not listed:
                    items, revision = await self._repository.progress()
                    self.take_listing(items, revision)
                    listed = True
                async for batch in self._repository.progress_changes(self.board.revision):
                    self.take(batch.events, batch.revision)
            except Compacted:
                listed = False
            except Unavailable as error:
                log.get().warning("etcd_away", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    def take_listing(self, items: Iterable[KeyValue], revision: int) -> None:
        """Takes all keys of progress."""
        self.board.replace(items, revision)
        self._seen()

    def take(self, events: Iterable[Event], revision: int) -> None:
        """Takes what happened to keys of progress."""
        self.board.take(events, revision)
        self._seen()

    def _seen(self) -> None:
        watermark = self.board.watermark
        self._fanout.set_watermark(watermark)
        metrics.WATERMARK.set(watermark.live)
        metrics.STRICT_WATERMARK.set(watermark.strict)
        self._work.set()

    async def _keep_stepping(self) -> None:
        while True:
            self._work.clear()
            try:
                await self.step()
            except (Unavailable, NotFound) as error:
                # What was written is not known: the coverage is published again with all its nodes.
                self._published = None
                log.get().debug("progress_not_written", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            agents = len(self._fanout.sessions)
            await asyncio.sleep(max(STEP_SECONDS, STEP_SECONDS_PER_AGENT * agents))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._work.wait()

    def _pause(self) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        return PUBLISH_SECONDS if self._waits else IDLE_SECONDS

    @property
    def _waits(self) -> bool:
        return self.board.watermark.live < self._target

    async def step(self) -> None:
        """Does what is to be done now.

        Raises:
            Unavailable: the store could not be reached; do it again.
            NotFound: the lease has expired; there will be another one.
        """
        if not self.board.revision:
            return  # not listed yet
        now = self._clock.now()
        self._aim(now)
        if self._waits:
            own = self._fanout.coverage(self._target)
            await self._publish(own, now)
            await self._advance(own)
        await self._fence(now)
        await self._unfence()

    def _aim(self, now: float) -> None:
        """Decides how far the watermark should come: at once for what is released, else later."""
        cut, live = self._fanout.sender.cut, self.board.watermark.live
        if live < self._target:
            return  # one after another: meanwhile what comes gathers for the next round
        if self._fanout.quarantine.newest <= live < cut:
            if self._behind_since is None:
                self._behind_since = now
            if now < self._behind_since + LAZY_SECONDS:
                return
        self._behind_since = None
        if live < cut:
            self._target, self._aimed_at = cut, now

    async def _publish(self, own: Coverage, now: float) -> None:
        lease = self._lease()
        reached = all(group.revision >= self._target for group in own.groups[:1])
        last = self._published_at if reached else max(self._published_at, self._aimed_at)
        if not lease or now < last + (PUBLISH_SECONDS if reached else UNREACHED_SECONDS):
            return
        before = self._published
        if before == (lease, own):
            return
        known = before[1].nodes if before is not None and before[0] == lease else frozenset[int]()
        self._published, self._published_at = None, now
        await self._repository.publish(self._server_id, own, lease, joins=not own.nodes <= known)
        self._published = lease, own

    def _others(self) -> list[Coverage]:
        return [c for server_id, c in self.board.coverages.items() if server_id != self._server_id]

    async def _advance(self, own: Coverage) -> None:
        facts = self._fanout.facts
        following = advance(
            [own, *self._others()],
            nodes={node.object.index for node in facts.nodes.values()},
            fenced=facts.fences.keys(),
            epoch=self.board.epoch,
            scanned=self._fanout.scanned,
            current=self.board.watermark,
        )
        if following is not None:
            await self._repository.advance(
                self._fanout.sender.lineage, following, stamps=self.board.stamps
            )

    async def _fence(self, now: float) -> None:
        board = self.board
        if self._waits and now < self._fenced_at + self._fence_seconds:
            return  # it looks at every node
        self._fenced_at = now
        covered = board.witnessed
        board.witnessed = {server_id: set(c.nodes) for server_id, c in board.coverages.items()}
        covered.pop(self._server_id, None)
        if not self._waits or board.has_gap:
            board.has_gap = False
            self._patience.rest(now)
            return
        facts = self._fanout.facts
        live = {
            node.object.index: name
            for name, node in facts.nodes.items()
            if node.object.index not in facts.fences
        }
        due = self._patience.fences_due(
            now=now,
            live=live,
            covered=frozenset().union(*covered.values()),
            current=self._fanout.current(now),
        )
        if due:
            made = await self._repository.fence(
                {index: live[index] for index in due}, stamps=dict(self.board.stamps)
            )
            metrics.FENCED.inc(len(made))
            for fence in made:
                log.get().warning("node_fenced", node=fence.node, reason="unreachable")

    async def _unfence(self) -> None:
        outgrown = self._fanout.outgrown(self.board.watermark)
        metrics.FENCES.set(len(self._fanout.facts.fences))
        if outgrown and await self._repository.unfence(outgrown, stamps=self.board.stamps):
            metrics.UNFENCED.inc(min(len(outgrown), FENCES_AT_ONCE))
            log.get().info("nodes_unfenced", nodes=[fence.node for fence in outgrown])

"""The loops that feed the fan-out from etcd and tell the agents: watch, tick, lease, gauges.

etcd away, all streams go on from memory; the watch resumes by itself.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from deltaplane.delta.log import CHUNK_BYTES
from deltaplane.delta.sender import Sender
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.errors import Compacted, Unavailable
from deltaplane.policy.compiler import Compiler
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from services.slicer import checkpoints, metrics
from services.slicer.checkpoints import Checkpoint
from services.slicer.facts import Facts
from services.slicer.fanout import Fanout
from services.slicer.pacing import LONGEST_SECONDS
from services.slicer.repository import LEASE_SECONDS, Batch, Replica, Repository
from services.slicer.tracing import Stages
from services.slicer.waiting import wait

T = TypeVar("T")

RETRY_SECONDS = 0.5
OBSERVE_SECONDS = 1.0
LAGGING_SECONDS = 2.0

WAKE_AT_ONCE = 200
"""Writers woken before other tasks get a turn."""


class Feed:
    """Makes one replica's fan-out and keeps it going.

    Attributes:
        lease: of this replica's keys; 0: there is none at the moment.
    """

    def __init__(
        self,
        repository: Repository,
        replica: Replica,
        clock: Clock,
        stages: Stages | None = None,
        *,
        is_scoped: bool = True,
    ) -> None:
        """is_scoped: agents are told of their span; False: of everything."""
        self._repository = repository
        self._stages = stages or Stages()
        self._replica = replica
        self._clock = clock
        self._is_scoped = is_scoped
        self.lease = 0
        self._work = asyncio.Event()
        self._reported: set[str] = set()

    async def start(self) -> Fanout:
        """Loads everything, waiting for etcd as long as it takes.

        It begins at a checkpoint, if there is one, so that agents that were at another replica
        minutes ago need only what has happened since, and goes on to the head that the store has
        now: whoever connects afterwards is shown nothing older than what was committed before this
        replica started.
        """
        lineage = await self._insist(self._repository.lineage)
        try:
            fanout = self._fanout(lineage, await self._insist(self._past))
            await self._insist(partial(self._catch_up, fanout))
        except Compacted as error:
            log.get().info("checkpoint_compacted", oldest=error.compact_revision)
            fanout = self._fanout(lineage, await self._insist(self._repository.listing))
        log.get().info(
            "view_loaded",
            lineage=lineage.hex(),
            since=fanout.sender.start,
            revision=fanout.scanned,
            objects=len(fanout.sender.view),
        )
        return fanout

    async def _past(self) -> Batch:
        """The listing to begin with.

        Raises:
            Compacted: it is gone.
        """
        known = await self._repository.checkpoints()
        revision = checkpoints.start(known, self._clock.wall_ns() // 10**9)
        return await self._repository.listing(revision or 0)

    async def _catch_up(self, fanout: Fanout) -> None:
        """Takes what was written since, through the head of now.

        Raises:
            Compacted: it is gone.
        """
        head = await self._repository.head()
        if fanout.scanned >= head:
            return
        async for batch in self._repository.changes(fanout.scanned):
            wall_ns = self._clock.wall_ns()
            fanout.take(batch.records, batch.revision, wall_ns=wall_ns)
            if fanout.cut_at() is not None:
                fanout.cut(now=self._clock.now(), wall_ns=wall_ns)
            if fanout.scanned >= head:
                return

    def _fanout(self, lineage: bytes, listing: Batch) -> Fanout:
        facts = Facts(Compiler())
        for record in listing.records:
            facts.apply(record)
        sender = Sender(
            lineage=lineage,
            server_id=self._replica.server_id,
            encoder=ProtobufEncoder(),
            revision=listing.revision,
            objects=facts.flush(listing.revision),
            head_unix_ns=self._clock.wall_ns(),
            is_scoped=self._is_scoped,
        )
        return Fanout(facts, sender)

    async def run(self, fanout: Fanout) -> None:
        """Runs until cancelled.

        Raises:
            ExceptionGroup: of Refused: the store has another lineage now; of Internal: its watch
                cannot be relied on. Whoever starts the process again gets a view that is right.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(fanout))
            tasks.create_task(self._tick(fanout))
            tasks.create_task(self._observe(fanout))
            tasks.create_task(self._keep_lease(fanout))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except Unavailable as error:
                log.get().warning("etcd_away", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, fanout: Fanout) -> None:
        while True:
            try:
                async for batch in self._repository.changes(fanout.scanned):
                    wall_ns = self._clock.wall_ns()
                    fanout.take(batch.records, batch.revision, wall_ns=wall_ns)
                    fanout.timings.seen(batch.records, self._clock.now())
                    self._stages.seen(batch.records, wall_ns)
                    fanout.quarantine.free(fanout.sender.passed()[0])
                    self._work.set()
            except Compacted as error:
                log.get().warning("history_compacted", oldest=error.compact_revision)
                metrics.RELISTS.inc()
                listing = await self._insist(self._repository.listing)
                wall_ns = self._clock.wall_ns()
                fanout.relist(listing.records, listing.revision, wall_ns=wall_ns)
                self._work.set()
            except Unavailable as error:
                log.get().warning("etcd_away", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _tick(self, fanout: Fanout) -> None:
        while True:
            self._work.clear()
            cut_at = fanout.cut_at()
            if cut_at is None:
                await self._work.wait()
            elif (delay := cut_at - self._clock.now()) > 0:
                # Something urgent may come and close the tick early.
                await wait(self._work, delay)
            else:
                await self._publish(fanout)

    async def _publish(self, fanout: Fanout) -> None:
        started = self._clock.now()
        cut_ns = self._clock.wall_ns()
        published = fanout.cut(now=started, wall_ns=cut_ns)
        self._stages.cut(published, cut_ns)
        metrics.TICKS.inc()
        metrics.CHANGES.inc(published.changes)
        metrics.FRAME_BYTES.inc(published.size)
        over = asyncio.Event()
        for number, session in enumerate(fanout.begin_round(over.set)):
            session.wake()
            if number % WAKE_AT_ONCE == 0:
                await asyncio.sleep(0)
        if not over.is_set():
            await wait(over, LONGEST_SECONDS)
        self._stages.sent(self._clock.wall_ns(), agents=len(fanout.sessions))
        fanout.pacer.sent(cut_at=started, round_seconds=self._clock.now() - started)

    async def _observe(self, fanout: Fanout) -> None:
        while True:
            lags = fanout.lags(self._clock.wall_ns())
            metrics.AGENTS.set(len(lags))
            metrics.LAGGING.set(sum(lag > LAGGING_SECONDS for lag in lags))
            metrics.WORST_LAG.set(max(lags, default=0.0))
            metrics.DELIVERIES.set(fanout.admission.deliveries)
            metrics.DELIVERY_BYTES.set(fanout.admission.used * CHUNK_BYTES)
            metrics.HEAD.set(fanout.sender.head)
            metrics.QUARANTINED.set(fanout.quarantine.total)
            metrics.UNREADABLE.set(len(fanout.facts.unreadable))
            for key, reason in fanout.facts.unreadable.items():
                if key not in self._reported:
                    log.get().error("record_unreadable", key=key, reason=reason)
            self._reported = set(fanout.facts.unreadable)
            await asyncio.sleep(OBSERVE_SECONDS)

    async def _keep_lease(self, fanout: Fanout) -> None:
        """Keeps our key alive, and makes sure that the store is still the one we know."""
        try:
            while True:
                try:
                    await self._repository.check_history(fanout.sender.lineage, fanout.scanned)
                    wall = self._clock.wall_ns() // 10**9
                    await self._repository.checkpoint(Checkpoint(wall, fanout.sender.head))
                    if not self.lease or not await self._repository.keep_alive(self.lease):
                        self.lease = 0
                        self.lease = await self._repository.announce(self._replica)
                except Unavailable as error:
                    log.get().warning("lease_not_renewed", reason=str(error))
                await asyncio.sleep(LEASE_SECONDS / 4)
        finally:
            if self.lease:
                with contextlib.suppress(Unavailable):
                    await self._repository.withdraw(self.lease)

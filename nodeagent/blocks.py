"""The blocks of this node.

Claims one of each family, and the next one before the addresses run out.
"""

import asyncio
import hashlib

from deltaplane.errors import DeltaplaneError, Exhausted
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from nodeagent.control import ControlPlane, NodeFacts, Pool
from nodeagent.journal import Journal
from nodeagent.worker import Worker

LOW_WATER = 16
"""Addresses of a family below which another block is claimed: more pods than kubelet starts in the
time that a claim takes.
"""

RETRY_SECONDS = 5.0
"""Between two attempts to get a block in the background; an ADD without an address tries by itself.
"""


def request_id(pool: str, ordinal: int) -> str:
    """Names a claim, the same after a restart: one whose answer got lost gives the same block."""
    return f"{hashlib.blake2b(pool.encode(), digest_size=8).hexdigest()}-{ordinal}"


class Blocks:
    """Keeps the journal in blocks.

    Attributes:
        families: 4, 6 or both: what every interface gets; empty until the pools are known.
    """

    def __init__(
        self,
        journal: Journal,
        writer: Worker,
        control: ControlPlane,
        node: NodeFacts,
        *,
        wanted_pools: frozenset[str],
        clock: Clock,
    ) -> None:
        self.families: frozenset[int] = frozenset(
            4 if block.state.prefix.is_ipv4 else 6 for block in journal.blocks
        )
        self._journal = journal
        self._writer = writer
        self._control = control
        self._node = node
        self._wanted_pools = wanted_pools
        self._clock = clock
        self._claiming = asyncio.Lock()
        self._low = asyncio.Event()

    async def run(self) -> None:
        """Claims what is missing at the start and whenever `used` says so; never gives up."""
        complaint = ""
        while True:
            try:
                await self.ensure(LOW_WATER)
            except DeltaplaneError as error:
                # Once, not every five seconds: the reason seldom changes.
                if str(error) != complaint:
                    log.get().warning("block_not_claimed", reason=str(error))
                complaint = str(error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            complaint = ""
            await self._low.wait()
            self._low.clear()

    def used(self) -> None:
        """An address has been handed out: looks whether the next block is due."""
        now = self._clock.wall_ns() / 1e9
        if any(self._journal.available(family, now) < LOW_WATER for family in self.families):
            self._low.set()

    async def ensure(self, least: int) -> None:
        """Claims blocks until every family has so many addresses, 1 or more.

        Raises:
            Exhausted: a pool has no block left.
            Unavailable: the ipam service does not answer.
        """
        async with self._claiming:
            pools = [
                pool
                for pool in await self._control.pools()
                if not self._wanted_pools or pool.name in self._wanted_pools
            ]
            if not pools:
                raise Exhausted("there is no address pool for this node")
            self.families = frozenset(4 if pool.is_ipv4 else 6 for pool in pools)
            refusals = []
            for family in sorted(self.families):
                of_family = [pool for pool in pools if pool.is_ipv4 == (family == 4)]
                try:
                    while self._journal.available(family, self._clock.wall_ns() / 1e9) < least:
                        await self._claim(of_family)
                except Exhausted as error:
                    # The other family still gets its blocks.
                    refusals.append(error)
            if refusals:
                raise refusals[0]

    async def _claim(self, pools: list[Pool]) -> None:
        """Claims the next block from the first pool that has one."""
        ordinal = self._journal.next_ordinal()
        refusal: Exhausted | None = None
        for pool in pools:
            try:
                prefix = await self._control.claim_block(
                    pool.name, self._node, request_id(pool.name, ordinal)
                )
            except Exhausted as error:
                refusal = error
                continue
            await self._writer.call(self._journal.add_block, ordinal, pool.name, prefix)
            log.get().info("block_claimed", pool=pool.name, prefix=str(prefix))
            return
        if refusal is not None:
            raise refusal

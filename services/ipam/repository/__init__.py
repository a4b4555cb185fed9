"""Pools and blocks in etcd. Every write is one transaction whose compares make it safe to repeat.

pools/NAME                  the pool; compared by every claim
counters/pools              changes when a pool comes, grows or goes: two never overlap
blocks/PREFIX               the block, or an address claimed alone; exists while a node owns it
block-requests/UID/REQUEST  key of the block that the request got; comes and goes with the block
freed-blocks/PREFIX         says since when a block that was owned has no owner
fixed-addresses/ADDRESS     key of the block of one address; comes and goes with it
counters/fixed-addresses    changes with every address claimed alone: they have a limit
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from deltaplane.errors import DeltaplaneError
from deltaplane.model.addresses import Prefix
from deltaplane.store.port import Store
from deltaplane.v1 import ipam_pb2
from services.ipam.changing import Change
from services.ipam.pools import Pool
from services.ipam.repository.addresses import Addresses
from services.ipam.repository.claiming import Claimer, whole
from services.ipam.repository.pools import Pools
from services.ipam.repository.releasing import Releaser
from services.ipam.wire import AddressClaim, Claim, Outcome, StoredPool


class Repository:
    """What ipam can do.

    Args:
        store: where everything is.
        pause: waits that many seconds before a collision is tried again.
    """

    def __init__(
        self, store: Store, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.claimer = Claimer(store, pause)
        self._pools = Pools(store, pause)
        self._addresses = Addresses(store, pause)
        self._releaser = Releaser(store, pause)

    async def create_pool(self, pool: Pool) -> StoredPool:
        """See `Pools.create`."""
        return await self._pools.create(pool)

    async def update_pool(self, change: Change) -> StoredPool:
        """See `Pools.update`."""
        return await self._pools.update(change)

    async def delete_pool(self, name: str) -> int:
        """See `Pools.delete`."""
        return await self._pools.delete(name)

    async def list_pools(self) -> tuple[Sequence[tuple[StoredPool, int]], int]:
        """See `Pools.listed`."""
        return await self._pools.listed()

    async def claim_block(self, claim: Claim) -> ipam_pb2.Block:
        """Claims a free block for a node; a repeated request gets the block it already has.

        Raises:
            NotFound: there is no such pool.
            Refused: the node is not registered with this UID, or the pool is draining.
            Exhausted: every block of the pool is owned.
            Conflict: the request got a block of another pool before.
        """
        (outcome,) = await self.claim_blocks([claim])
        if isinstance(outcome, DeltaplaneError):
            raise outcome
        return outcome

    async def claim_blocks(self, claims: Sequence[Claim]) -> list[Outcome]:
        """A block, or what `claim_block` would raise, for each claim of a node, in their order.

        Raises:
            NotRegistered: the node; nothing was claimed.
            Unavailable: etcd; some may have been claimed.
        """
        outcomes: list[Outcome] = []
        while left := claims[len(outcomes) :]:
            outcomes += await self.claimer.claim(left[: self.claimer.leading(left)])
        return whole(outcomes)

    async def claim_address(self, claim: AddressClaim) -> ipam_pb2.Block:
        """See `Addresses.claim`."""
        return await self._addresses.claim(claim)

    async def release_block(
        self, prefix: Prefix, node_uid: str, request_id: str = "", *, node: str = ""
    ) -> int:
        """See `Releaser.release`."""
        revision, freed = await self._releaser.release(prefix, node_uid, request_id, node=node)
        if freed:
            # Else it would only find out when the pool has no other block.
            self.claimer.forget(prefix, revision)
        return revision

    async def list_blocks(self, *, node: str, pool: str) -> tuple[Sequence[ipam_pb2.Block], int]:
        """See `Releaser.listed`."""
        return await self._releaser.listed(node=node, pool=pool)

"""What a replica believes about a pool. Pure.

It is read once and then kept up by what the replica writes and by what refused transactions show.
It may be wrong: others claim and give back, too. So it only says what to try; the compares of the
transaction decide. Before anybody is told that a pool is exhausted, it is read anew.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deltaplane.errors import Exhausted
from deltaplane.model.addresses import Prefix
from deltaplane.v1 import ipam_pb2
from services.ipam import wire
from services.ipam.choosing import choose, claimable
from services.ipam.pools import Mode, Pool
from services.ipam.wire import StoredPool

OWNERS_NAMED = 3
"""Owners of most blocks that a refusal names."""


@dataclass(slots=True, kw_only=True)
class PoolView:
    """A pool and its blocks, by number.

    Attributes:
        stored: the pool as it was read.
        owners: block → name of the node that owns it.
        freed: block that was owned once → revision at which it was given back.
    """

    stored: StoredPool
    owners: dict[int, str]
    freed: dict[int, int]

    @classmethod
    def of(
        cls, stored: StoredPool, blocks: Iterable[ipam_pb2.Block], freed: Mapping[Prefix, int]
    ) -> "PoolView":
        """The view of one revision: all blocks and all freed keys, those of other pools included.

        Args:
            stored: the pool.
            blocks: every block.
            freed: every prefix that was given back → when.
        """
        pool = stored.pool
        return cls(
            stored=stored,
            owners={
                pool.number(wire.block_prefix(block)): block.node
                for block in blocks
                if block.pool == pool.name and not block.fixed
            },
            freed={
                pool.number(prefix): revision
                for prefix, revision in freed.items()
                if prefix.length == pool.block_length and pool.prefix.contains(prefix)
            },
        )

    @property
    def pool(self) -> Pool:
        """The pool."""
        return self.stored.pool

    @property
    def is_static(self) -> bool:
        """Whether a node gets one block of it."""
        return self.pool.mode is Mode.STATIC

    def choose(self, node: str) -> int | None:
        """The block that a node should try; None when none is free."""
        return choose(self.pool, node, self.owners, self.freed)

    def exhausted(self) -> Exhausted:
        """Says how the pool is used up, and what to do."""
        pool, owners = self.pool, Counter(self.owners.values())
        most = ", ".join(f"{name} {count}" for name, count in owners.most_common(OWNERS_NAMED))
        withheld = pool.blocks - claimable(pool)
        return Exhausted(
            f"pool {pool.name} ({pool.prefix}) has no free block: all {len(self.owners)} of "
            f"{pool.blocks} /{pool.block_length} blocks are claimed"
            + (f", {withheld} are reserved" if withheld else "")
            + (f"; most by {most}" if most else "")
            + f". `deltaplane pool grow {pool.name} PREFIX` adds some"
        )

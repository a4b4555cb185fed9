"""What a replica believes about the pools. Pure.

It is read once and then kept up by what the replica writes and by what refused transactions show.
It may be wrong: others claim and give back, too. So it only says what to try; the compares of the
transaction decide. Before anybody is told that a pool is exhausted, it is read anew.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deltaplane.errors import Exhausted
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import Compare, KeyValue, Unchanged
from deltaplane.v1 import ipam_pb2
from services.ipam import wire
from services.ipam.choosing import choose, claimable, start
from services.ipam.pools import Mode, Pool
from services.ipam.wire import StoredPool

MAX_GUARDS = 64
"""Addresses of a block that are claimed alone; a block of 64 addresses has no more."""

OWNERS_NAMED = 3
"""Owners of most blocks that a refusal names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is read of etcd, at one revision.

    Attributes:
        pools: by name.
        blocks: every claimed block, and every address that is claimed alone.
        freed: every prefix that was given back, and not claimed since → when.
        counter: what changes with every address that is claimed alone; None: there was none yet.
    """

    pools: Mapping[str, StoredPool]
    blocks: Sequence[ipam_pb2.Block]
    freed: Mapping[Prefix, int]
    counter: KeyValue | None


@dataclass(slots=True, kw_only=True)
class PoolView:
    """A pool and its blocks, by number.

    Attributes:
        stored: the pool as it was read.
        counter: of the snapshot.
        owners: block → name of the node that owns it; "" where so many addresses are claimed alone
            that no transaction could guard them.
        freed: block that was owned once → revision at which it was given back.
        parts_freed: block → when a part of it was given back last: an address that was claimed
            alone, or a block of a former pool that was cut in smaller ones.
        whole_freed: larger block of a former pool, as (length, leading bits) → when it was given
            back.
        singles: block → addresses of it that are claimed alone, as they were read.
    """

    stored: StoredPool
    counter: KeyValue | None
    owners: dict[int, str]
    freed: dict[int, int]
    parts_freed: dict[int, int]
    whole_freed: dict[tuple[int, int], int]
    singles: dict[int, list[ipam_pb2.Block]]
    _reached: dict[str, int] = field(default_factory=dict)
    """Node → where its next search begins: it need not pass by its own blocks again."""

    @classmethod
    def of(cls, name: str, snapshot: Snapshot) -> "PoolView":
        """The view of a pool that the snapshot has."""
        stored = snapshot.pools[name]
        view = cls(
            stored=stored,
            counter=snapshot.counter,
            owners={},
            freed={},
            parts_freed={},
            whole_freed={},
            singles={},
        )
        pool = stored.pool
        for block in snapshot.blocks:
            if block.pool != name:
                continue
            number = pool.number(wire.block_prefix(block))
            if block.fixed:
                view.singles.setdefault(number, []).append(block)
            else:
                view.owners[number] = block.node
        for number, singles in view.singles.items():
            if len(singles) > MAX_GUARDS:
                view.owners.setdefault(number, "")
        for prefix, revision in snapshot.freed.items():
            if not prefix.overlaps(pool.prefix):
                continue
            if prefix.length < pool.block_length:
                view.whole_freed[prefix.length, _leading(prefix, prefix.length)] = revision
            elif prefix.length == pool.block_length:
                view.freed[pool.number(prefix)] = revision
            else:
                number = pool.number(prefix)
                view.parts_freed[number] = max(revision, view.parts_freed.get(number, 0))
        return view

    def usable_after(self, number: int) -> int:
        """Revision up to which somebody may have had an address of the block; 0: nobody had."""
        if not (self.freed or self.parts_freed or self.whole_freed):
            return 0
        block = self.pool.block(number)
        lengths = {length for length, _ in self.whole_freed}
        around = (self.whole_freed.get((n, _leading(block, n)), 0) for n in lengths)
        return max(self.freed.get(number, 0), self.parts_freed.get(number, 0), *around)

    def guards(self, number: int) -> tuple[Compare, ...]:
        """Hold while no address of the block that is claimed alone has been given back."""
        return tuple(
            Unchanged(keys.block(wire.block_prefix(single)), single.meta.mod_revision)
            for single in self.singles.get(number, ())
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
        first = self._reached.get(node)
        if first is None:
            first = start(self.pool, node)
        number = choose(self.pool, first, self.owners, self.freed)
        if number is not None and number not in self.freed:
            self._reached[node] = number
        return number

    def take(self, number: int, node: str) -> None:
        """Notes an owner."""
        self.owners[number] = node

    def free(self, number: int) -> None:
        """Notes that a block has no owner; nodes may have gone past it."""
        if self.owners.pop(number, None) is not None:
            self._reached.clear()

    def exhausted(self) -> Exhausted:
        """Says how the pool is used up, and what to do."""
        pool, owners = self.pool, Counter(filter(None, self.owners.values()))
        most = ", ".join(f"{name} {count}" for name, count in owners.most_common(OWNERS_NAMED))
        withheld = pool.blocks - claimable(pool)
        return Exhausted(
            f"pool {pool.name} ({pool.prefix}) has no free block: all {len(self.owners)} of "
            f"{pool.blocks} /{pool.block_length} blocks are claimed"
            + (f", {withheld} are reserved" if withheld else "")
            + (f"; most by {most}" if most else "")
            + f". `deltaplane pool grow {pool.name} PREFIX` adds some"
        )


def _leading(prefix: Prefix, length: int) -> int:
    """The first bits of a prefix that is at least that long."""
    return int.from_bytes(prefix.address) >> (len(prefix.address) * 8 - length)

"""Pools and blocks in etcd. Every write is one transaction whose compares make it safe to repeat.

pools/NAME                  the pool; written once, never changed
counters/pools              changes with every new pool: two pools are never created at one revision
blocks/PREFIX               the block; exists while a node owns it
block-requests/UID/REQUEST  key of the block that the request got; comes and goes with the block
"""

from collections import Counter
from collections.abc import Sequence

from deltaplane import wire as values
from deltaplane.errors import Conflict, Exhausted, NotFound, Refused
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import (
    Absent,
    Compare,
    CreatedAt,
    Delete,
    KeyValue,
    Put,
    Store,
    Unchanged,
)
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import ipam_pb2, registry_pb2
from services.ipam import wire
from services.ipam.choosing import choose, window
from services.ipam.pools import Pool, check_overlap
from services.ipam.wire import Claim, StoredPool

WINDOW = 16
"""Candidates that one read looks at before all blocks are listed. They nearly always hold a free
one, and the read stays below 10 kB."""


class Repository:
    """What ipam knows. Pools never change, so their records are remembered."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pools: dict[str, StoredPool] = {}

    async def create_pool(self, pool: Pool) -> StoredPool:
        """Creates a pool or finds the same one.

        Raises:
            Invalid: it overlaps another pool.
            Conflict: the name belongs to a different pool.
        """

        async def attempt() -> StoredPool | None:
            # The counter first: whatever is created after this read fails the compare.
            counter = await self._store.get(keys.POOL_COUNTER)
            pools = await self._list_pools()
            same = next((known for known in pools if known.pool.name == pool.name), None)
            if same is not None:
                if same.pool != pool:
                    raise Conflict(
                        f"pool {pool.name} exists with prefix {same.pool.prefix} and "
                        f"/{same.pool.block_length} blocks; pools cannot be changed"
                    )
                return same
            check_overlap(pool, (known.pool for known in pools))
            value = wire.pool_to_proto(pool).SerializeToString(deterministic=True)
            committed = await self._store.transact(
                [_as_read(keys.POOL_COUNTER, counter), Absent(keys.pool(pool.name))],
                [
                    Put(keys.pool(pool.name), value),
                    Put(keys.POOL_COUNTER, str(len(pools) + 1).encode()),
                ],
            )
            if not committed.succeeded:
                return None
            return StoredPool(
                pool=pool, stored=_written(keys.pool(pool.name), value, committed.revision)
            )

        return await compare_and_swap(attempt)

    async def list_pools(self) -> tuple[Sequence[tuple[StoredPool, int]], int]:
        """All pools by name with the number of claimed blocks, and the revision that this shows."""
        blocks = await self._store.list(keys.BLOCKS)
        pools = await self._store.list(keys.POOLS, revision=blocks.revision)
        claimed = Counter(ipam_pb2.Block.FromString(item.value).pool for item in blocks.items)
        found = (wire.pool_from_record(item) for item in pools.items)
        return [(pool, claimed[pool.pool.name]) for pool in found], blocks.revision

    async def claim_block(self, claim: Claim) -> ipam_pb2.Block:
        """Claims a free block for a node; a repeated request gets the block it already has.

        Raises:
            NotFound: there is no such pool.
            Refused: the node is not registered with this UID.
            Exhausted: every block of the pool is owned.
        """
        return await compare_and_swap(lambda: self._try_to_claim(claim))

    async def release_block(self, prefix: Prefix, node_uid: str) -> int:
        """Gives a block back and returns the revision at which nobody, or somebody else, owns it.

        Raises:
            Refused: another node owns it.
        """
        owned_before = False

        async def attempt() -> int | None:
            nonlocal owned_before
            (stored,), revision = await self._store.get_many([keys.block(prefix)])
            if stored is None:
                return revision
            block = ipam_pb2.Block.FromString(stored.value)
            if block.node_uid != node_uid:
                if owned_before:  # an earlier attempt was applied though its answer was lost
                    return revision
                raise Refused(f"block {prefix} is owned by node {block.node}, UID {block.node_uid}")
            owned_before = True
            committed = await self._store.transact(
                [Unchanged(stored.key, stored.mod_revision)],
                [Delete(stored.key), Delete(keys.block_request(node_uid, block.request_id))],
            )
            return committed.revision if committed.succeeded else None

        return await compare_and_swap(attempt)

    async def list_blocks(self, *, node: str, pool: str) -> tuple[Sequence[ipam_pb2.Block], int]:
        """Blocks by prefix, IPv4 first, and the revision that this shows. Empty: no filter."""
        listing = await self._store.list(keys.BLOCKS)
        blocks = (wire.block_from_record(item) for item in listing.items)
        chosen = [b for b in blocks if node in ("", b.node) and pool in ("", b.pool)]
        chosen.sort(key=lambda b: (len(b.prefix.address), wire.block_prefix(b)))
        return chosen, listing.revision

    async def _try_to_claim(self, claim: Claim) -> ipam_pb2.Block | None:
        stored_pool = await self._pool(claim.pool)
        pool = stored_pool.pool
        candidates = window(pool, claim.node, WINDOW)
        request_key = keys.block_request(claim.node_uid, claim.request_id)
        found, _ = await self._store.get_many(
            [keys.node(claim.node), request_key, *map(keys.block, candidates)]
        )
        node_record, request, *taken = found
        node = _registered(claim, node_record)
        if request is not None:
            return await self._block_of(claim, request)
        free = next(
            (block for block, owner in zip(candidates, taken, strict=True) if owner is None), None
        )
        if free is None:
            free = await self._search(pool, claim)
        record = ipam_pb2.Block(
            prefix=values.prefix_to_proto(free),
            pool=pool.name,
            node=claim.node,
            node_uid=claim.node_uid,
            node_index=node.index,
            request_id=claim.request_id,
        )
        key, value = keys.block(free), record.SerializeToString(deterministic=True)
        assert node_record is not None
        committed = await self._store.transact(
            [
                Absent(key),
                Absent(request_key),
                # The registration, not its last refresh: a node may refresh while it claims.
                CreatedAt(node_record.key, node_record.create_revision),
                CreatedAt(stored_pool.stored.key, stored_pool.stored.create_revision),
            ],
            [Put(key, value), Put(request_key, key.encode())],
        )
        if not committed.succeeded:
            # Mostly another node was faster; if the pool is not what we remember, look again.
            self._pools.pop(claim.pool, None)
            return None
        return wire.block_from_record(_written(key, value, committed.revision))

    async def _block_of(self, claim: Claim, request: KeyValue) -> ipam_pb2.Block | None:
        """The block that an earlier attempt got; None when it has been released since we looked."""
        stored = await self._store.get(request.value.decode())
        if stored is None:
            return None
        block = wire.block_from_record(stored)
        if (block.node_uid, block.request_id) != (claim.node_uid, claim.request_id):
            return None
        if block.pool != claim.pool:
            raise Conflict(f"request {claim.request_id} got a block of pool {block.pool} before")
        return block

    async def _search(self, pool: Pool, claim: Claim) -> Prefix:
        listing = await self._store.list(keys.BLOCKS)
        blocks = [ipam_pb2.Block.FromString(item.value) for item in listing.items]
        taken = {wire.block_prefix(block) for block in blocks if block.pool == pool.name}
        free = choose(pool, claim.node, taken)
        if free is None:
            own = sum(block.node == claim.node and block.pool == pool.name for block in blocks)
            raise Exhausted(
                f"pool {pool.name} ({pool.prefix}) has no free block: all {len(taken)} of "
                f"{pool.blocks} /{pool.block_length} blocks are claimed, {own} by node {claim.node}"
            )
        return free

    async def _pool(self, name: str) -> StoredPool:
        known = self._pools.get(name)
        if known is None:
            stored = await self._store.get(keys.pool(name))
            if stored is None:
                raise NotFound(f"pool {name} does not exist")
            known = self._pools[name] = wire.pool_from_record(stored)
        return known

    async def _list_pools(self) -> list[StoredPool]:
        return [wire.pool_from_record(item) for item in (await self._store.list(keys.POOLS)).items]


def _registered(claim: Claim, record: KeyValue | None) -> registry_pb2.Node:
    if record is None:
        raise Refused(f"node {claim.node} is not registered")
    node = registry_pb2.Node.FromString(record.value)
    if node.uid != claim.node_uid:
        raise Refused(f"node {claim.node} is registered with UID {node.uid}, not {claim.node_uid}")
    return node


def _as_read(key: str, found: KeyValue | None) -> Compare:
    return Absent(key) if found is None else Unchanged(key, found.mod_revision)


def _written(key: str, value: bytes, revision: int) -> KeyValue:
    """A key that did not exist before the transaction of this revision wrote it."""
    return KeyValue(key=key, value=value, create_revision=revision, mod_revision=revision)

"""Pools come, change and go."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from deltaplane.errors import Conflict, Invalid, NotFound, Refused
from deltaplane.store import keys
from deltaplane.store.port import Compare, Delete, KeyValue, Operation, Put, Store, Unchanged
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import ipam_pb2
from services.ipam import changing, wire
from services.ipam.changing import Change
from services.ipam.pools import Pool, check_overlap
from services.ipam.repository.records import all_pools, as_read, written
from services.ipam.wire import StoredPool

OWNERS_NAMED = 3
"""Owners that a refusal names."""


class Pools:
    """The pools in etcd."""

    def __init__(self, store: Store, pause: Callable[[float], Awaitable[None]]) -> None:
        self._store = store
        self._pause = pause

    async def create(self, pool: Pool) -> StoredPool:
        """Creates a pool or finds it, perhaps grown and changed since; see `changing.meets`.

        Raises:
            Invalid: it overlaps another pool.
            Conflict: the name belongs to a different pool.
        """

        async def attempt() -> StoredPool | None:
            # The counter first: whatever is created after this read fails the compare.
            counter = await self._store.get(keys.POOL_COUNTER)
            pools = await all_pools(self._store)
            known = next((known for known in pools if known.pool.name == pool.name), None)
            if known is None:
                check_overlap(pool, (known.pool for known in pools))
                return await self._write(
                    pool, None, [as_read(keys.POOL_COUNTER, counter)], [_count(counter)]
                )
            if not changing.meets(known.pool, pool):
                raise Conflict(
                    f"pool {pool.name} exists with {_described(known.pool)}, not with "
                    f"{_described(pool)}; change it with UpdatePool, or choose another name"
                )
            return known

        return await compare_and_swap(attempt, pause=self._pause)

    async def update(self, change: Change) -> StoredPool:
        """Changes a pool; all of it, or nothing. Done before: returns the pool as it is.

        Raises:
            NotFound: there is no such pool.
            Invalid: see `changing.apply`; or it would overlap another pool.
        """

        async def attempt() -> StoredPool | None:
            counter = await self._store.get(keys.POOL_COUNTER)
            known = await self._get(change.name)
            changed = changing.apply(change, known.pool)
            if changed == known.pool:
                return known
            if changed.prefix == known.pool.prefix:
                return await self._write(changed, known, [], [])
            others = [it.pool for it in await all_pools(self._store) if it.pool.name != change.name]
            try:
                check_overlap(changed, others)
            except Invalid as error:
                raise Invalid("grow_to", error.reason) from error
            return await self._write(
                changed, known, [as_read(keys.POOL_COUNTER, counter)], [_count(counter)]
            )

        return await compare_and_swap(attempt, pause=self._pause)

    async def delete(self, name: str) -> int:
        """Deletes a pool and returns the revision at which it does not exist.

        A claim compares that its pool is unchanged, and gets nothing of one that is draining. So
        once the pool is draining, who sees no block sees that there will be none.

        Raises:
            Refused: a node owns a block of it.
        """

        async def attempt() -> int | None:
            stored = await self._store.get(keys.pool(name))
            if stored is None:
                return await self._store.head()
            known = wire.pool_from_record(stored)
            await self._check_unowned(name)
            if known.pool.draining:
                return await self._remove(known)
            closed = await self._write(replace(known.pool, draining=True), known, [], [])
            if closed is None:
                return None
            try:
                await self._check_unowned(name)
            except Refused:
                await self._write(known.pool, closed, [], [])
                raise
            return await self._remove(closed)

        return await compare_and_swap(attempt, pause=self._pause)

    async def listed(self) -> tuple[Sequence[tuple[StoredPool, int]], int]:
        """All pools by name with the number of claimed blocks, and the revision that this shows.

        Addresses that were claimed alone are no blocks.
        """
        listing = await self._store.list(keys.BLOCKS)
        pools = await all_pools(self._store, listing.revision)
        blocks = (ipam_pb2.Block.FromString(item.value) for item in listing.items)
        claimed = Counter(block.pool for block in blocks if not block.fixed)
        return [(pool, claimed[pool.pool.name]) for pool in pools], listing.revision

    async def _get(self, name: str) -> StoredPool:
        stored = await self._store.get(keys.pool(name))
        if stored is None:
            raise NotFound(f"pool {name} does not exist")
        return wire.pool_from_record(stored)

    async def _write(
        self,
        pool: Pool,
        before: StoredPool | None,
        compares: Sequence[Compare],
        operations: Sequence[Operation],
    ) -> StoredPool | None:
        key, value = keys.pool(pool.name), wire.pool_to_value(pool)
        old = None if before is None else before.stored
        committed = await self._store.transact(
            [as_read(key, old), *compares], [Put(key, value), *operations]
        )
        if not committed.succeeded:
            return None
        return StoredPool(pool=pool, stored=written(key, value, committed.revision, old))

    async def _remove(self, known: StoredPool) -> int | None:
        counter = await self._store.get(keys.POOL_COUNTER)
        committed = await self._store.transact(
            [
                Unchanged(known.stored.key, known.stored.mod_revision),
                as_read(keys.POOL_COUNTER, counter),
            ],
            [Delete(known.stored.key), _count(counter)],
        )
        return committed.revision if committed.succeeded else None

    async def _check_unowned(self, name: str) -> None:
        listing = await self._store.list(keys.BLOCKS)
        blocks = (ipam_pb2.Block.FromString(item.value) for item in listing.items)
        owners = Counter(block.node for block in blocks if block.pool == name)
        if owners:
            raise Refused(
                f"nodes own {owners.total()} blocks of pool {name} ({_most(owners)}); drain it "
                "first, and wait until its pods are gone"
            )


def _count(counter: KeyValue | None) -> Put:
    return Put(keys.POOL_COUNTER, str(1 if counter is None else int(counter.value) + 1).encode())


def _described(pool: Pool) -> str:
    parts = [f"prefix {pool.prefix}", f"/{pool.block_length} blocks", f"mode {pool.mode.value}"]
    parts += [f"{item} reserved" for item in pool.reserved]
    parts += ["draining"] if pool.draining else []
    parts += ["on request"] if pool.on_request else []
    return ", ".join(parts)


def _most(owners: Counter[str]) -> str:
    named = [f"{node}: {count}" for node, count in owners.most_common(OWNERS_NAMED)]
    return ", ".join(named + ["…"] * (len(owners) > OWNERS_NAMED))

"""Addresses that are claimed alone, wherever in a pool they lie: see docs/design/addresses.md."""

from collections.abc import Awaitable, Callable, Sequence

from deltaplane import wire as values
from deltaplane.errors import Conflict, Exhausted, Invalid, Refused
from deltaplane.model.addresses import format_address
from deltaplane.store import keys
from deltaplane.store.port import Absent, Delete, KeyValue, Put, Store, Unchanged
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import ipam_pb2
from services.ipam import wire
from services.ipam.repository.records import (
    all_pools,
    as_read,
    check_registered,
    granted,
    other_request,
    whole,
    written,
)
from services.ipam.wire import AddressClaim, StoredPool

LIMIT = 1000
"""Addresses claimed alone: each is a route on every node."""


class Addresses:
    """Claims of one address. They are rare: each reads what it depends on."""

    def __init__(self, store: Store, pause: Callable[[float], Awaitable[None]]) -> None:
        self._store = store
        self._pause = pause

    async def claim(self, claim: AddressClaim) -> ipam_pb2.Block:
        """Claims an address; a repeated request gets the block of one address that it has.

        Raises:
            Invalid: the address lies in no pool.
            Conflict: somebody has it, or the request got something else before.
            Refused: the node is not registered with this UID, owns the block around the address, or
                the pool is draining.
            Exhausted: there are LIMIT of them.
        """
        return await compare_and_swap(lambda: self._attempt(claim), pause=self._pause)

    async def _attempt(self, claim: AddressClaim) -> ipam_pb2.Block | None:
        prefix = whole(claim.address)
        request_key = keys.block_request(claim.node_uid, claim.request_id)
        holder_key = keys.address(claim.address)
        (counter, record, request, own, holder), _ = await self._store.get_many(
            (
                keys.FIXED_COUNTER,
                keys.node(claim.node),
                request_key,
                keys.block(prefix),
                holder_key,
            )
        )
        if request is not None:
            return await self._repeated(claim, request)
        node = check_registered(claim.node, claim.node_uid, record)
        pool = _pool_around(claim.address, await all_pools(self._store))
        if own is not None:
            return _known(claim, own)
        await self._check(claim, pool, holder)
        value = ipam_pb2.Block(
            prefix=values.prefix_to_proto(prefix),
            pool=pool.pool.name,
            node=claim.node,
            node_uid=claim.node_uid,
            node_index=node.index,
            request_id=claim.request_id,
            fixed=True,
        ).SerializeToString(deterministic=True)
        key = keys.block(prefix)
        committed = await self._store.transact(
            [
                Unchanged(pool.stored.key, pool.stored.mod_revision),
                node.unchanged,
                Absent(request_key),
                Absent(key),
                Absent(holder_key),
                as_read(keys.FIXED_COUNTER, counter),
            ],
            [
                Put(key, value),
                Put(request_key, key.encode()),
                Put(keys.fixed_address(claim.address), key.encode()),
                # It waits for its own revision, which is later than whatever was before.
                Delete(keys.freed_block(prefix)),
                Put(keys.FIXED_COUNTER, str(1 + int(counter.value if counter else 0)).encode()),
            ],
        )
        if not committed.succeeded:
            return None
        return wire.block_from_record(written(key, value, committed.revision))

    async def _repeated(self, claim: AddressClaim, request: KeyValue) -> ipam_pb2.Block | None:
        stored = await self._store.get(request.value.decode())
        block = granted(stored, claim.node_uid, claim.request_id)
        if block is not None and wire.block_prefix(block) != whole(claim.address):
            raise other_request(claim.request_id, block)
        return block

    async def _check(self, claim: AddressClaim, pool: StoredPool, holder: KeyValue | None) -> None:
        """Refuses what the compares do not look at, and what they would only call a collision."""
        address = format_address(claim.address)
        if pool.pool.draining:
            raise Refused(f"{address} is of pool {pool.pool.name}, which is draining")
        around = pool.pool.block_of(claim.address)
        stored = await self._store.get(keys.block(around))
        block = None if stored is None else wire.block_from_record(stored)
        if block is not None and block.node_uid == claim.node_uid:
            raise Refused(
                f"{address} lies in {around}, which node {claim.node} owns: take it from the block"
            )
        if holder is not None:
            path = holder.value.decode().removeprefix(keys.ENDPOINTS)
            namespace, name, node, _ = path.split("/")
            raise Conflict(f"{address} is held by pod {namespace}/{name} on node {node}")
        count = len((await self._store.list(keys.FIXED_ADDRESSES)).items)
        if count >= LIMIT:
            raise Exhausted(
                f"{count} addresses outside the blocks of their nodes are claimed, the most that "
                "there can be; release some, or take addresses that no pod asks for by number"
            )


def _pool_around(address: bytes, pools: Sequence[StoredPool]) -> StoredPool:
    for known in pools:
        if known.pool.prefix.contains(address):
            return known
    there = ", ".join(f"{it.pool.name} {it.pool.prefix}" for it in pools) or "there is none"
    raise Invalid("address", f"{format_address(address)} lies in no pool; pools: {there}")


def _known(claim: AddressClaim, stored: KeyValue) -> ipam_pb2.Block:
    """The address is claimed. Its node may ask for it again, under another request id, too."""
    block = wire.block_from_record(stored)
    if block.node_uid != claim.node_uid:
        raise Conflict(f"{format_address(claim.address)} is claimed by node {block.node}")
    return block

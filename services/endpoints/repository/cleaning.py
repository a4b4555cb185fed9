"""What a removed node leaves behind: its endpoints with their addresses, then its blocks.

The node's record is gone before anything here happens, so nothing new can come: registrations and
claims compare that record. A node that registered again under the same name has another index, and
keeps what is its.
"""

from collections.abc import Sequence

from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import Delete, KeyValue, Operation, Put, Store, Unchanged
from deltaplane.store.retry import compare_and_swap
from services.endpoints.repository.transactions import alive
from services.endpoints.wire.records import (
    block_from_record,
    endpoint_from_record,
    fence_from_record,
    node_from_record,
)

ENDPOINTS_AT_ONCE = 20
"""Each is up to four deletes."""
BLOCKS_AT_ONCE = 20
"""Each is a compare, two or three deletes and a put."""


def removal(stored: KeyValue) -> list[Operation]:
    """Deletes an endpoint and all that points to it."""
    request = endpoint_from_record(stored).request
    return [
        Delete(stored.key),
        Delete(keys.node_endpoint(request.node, request.id)),
        *(Delete(keys.address(address)) for address in request.addresses),
    ]


def block_removal(stored: KeyValue) -> list[Operation]:
    """Deletes a block and all that points to it; says when, for whoever claims it next."""
    block = block_from_record(stored)
    prefix = Prefix(block.prefix.address, block.prefix.length)
    single = prefix.length == 8 * len(prefix.address)
    return [
        Delete(stored.key),
        Delete(keys.block_request(block.node_uid, block.request_id)),
        *([Delete(keys.fixed_address(prefix.address))] if single else []),
        Put(keys.freed_block(prefix), b""),
    ]


class Cleaner:
    """Removes what belongs to former registrations of a node. All of it may be repeated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def clean(self, node: str) -> int:
        """Removes a node's fence, endpoints and blocks, but for those of its present registration.

        Returns:
            How many endpoints this call removed.
        """
        await self._remove_fence(node)
        names = await self._store.list(keys.endpoints_of_node(node))
        endpoints = [item.value.decode() for item in names.items]
        removed = 0
        for start in range(0, len(endpoints), ENDPOINTS_AT_ONCE):
            removed += await self._remove_endpoints(
                node, endpoints[start : start + ENDPOINTS_AT_ONCE]
            )
        listing = await self._store.list(keys.BLOCKS)
        blocks = [item.key for item in listing.items if block_from_record(item).node == node]
        for start in range(0, len(blocks), BLOCKS_AT_ONCE):
            await self._remove_blocks(node, blocks[start : start + BLOCKS_AT_ONCE])
        return removed

    async def _remove_fence(self, node: str) -> None:
        async def attempt() -> bool | None:
            (record, fence), _ = await self._store.get_many([keys.node(node), keys.fence(node)])
            if fence is None or fence_from_record(fence).node_index == _index(record):
                return True
            committed = await self._store.transact(
                [alive(keys.node(node), record), Unchanged(fence.key, fence.mod_revision)],
                [Delete(fence.key), Put(keys.FENCE_EPOCH, node.encode())],
            )
            return True if committed.succeeded else None

        await compare_and_swap(attempt)

    async def _remove_endpoints(self, node: str, endpoints: Sequence[str]) -> int:
        async def attempt() -> int | None:
            found, _ = await self._store.get_many([keys.node(node), *endpoints])
            record, *stored = found
            index = _index(record)
            stale = [
                item for item in stored if item and endpoint_from_record(item).node_index != index
            ]
            if not stale:
                return 0
            committed = await self._store.transact(
                [
                    alive(keys.node(node), record),
                    *(Unchanged(item.key, item.mod_revision) for item in stale),
                ],
                [operation for item in stale for operation in removal(item)],
            )
            return len(stale) if committed.succeeded else None

        return await compare_and_swap(attempt)

    async def _remove_blocks(self, node: str, blocks: Sequence[str]) -> None:
        async def attempt() -> bool | None:
            found, _ = await self._store.get_many([keys.node(node), *blocks])
            record, *stored = found
            index = _index(record)
            stale = [
                item for item in stored if item and block_from_record(item).node_index != index
            ]
            if not stale:
                return True
            committed = await self._store.transact(
                [
                    alive(keys.node(node), record),
                    *(Unchanged(item.key, item.mod_revision) for item in stale),
                ],
                [operation for item in stale for operation in block_removal(item)],
            )
            return True if committed.succeeded else None

        await compare_and_swap(attempt)


def _index(record: KeyValue | None) -> int:
    """0, which no node has, when the node is not registered."""
    return 0 if record is None else node_from_record(record).index

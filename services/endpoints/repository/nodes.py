"""Nodes: a name belongs to the UID that registered it first, until it is deleted.

A node begins with a fence: it is live, and the watermark waits for it, once it has applied a
snapshot. See docs/design/addresses.md.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from deltaplane.errors import Conflict
from deltaplane.store import keys
from deltaplane.store.port import Delete, KeyValue, Put, Store
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import registry_pb2
from services.endpoints.records import Node
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.transactions import alive, as_read
from services.endpoints.wire.records import (
    joining_fence,
    node_from_record,
    node_to_record,
    with_meta,
    written,
)


class Nodes:
    """Registered nodes."""

    def __init__(self, store: Store, cleaner: Cleaner) -> None:
        self._store = store
        self._cleaner = cleaner
        # A cluster that starts registers all its nodes at once: without it they would fight for the
        # counter, and most would give up.
        self._creating = asyncio.Lock()

    async def register(self, node: Node) -> tuple[registry_pb2.Node, int]:
        """Registers a node, or refreshes what its registration says.

        Returns:
            The stored record, and a revision that the store had reached after the call began: no
            watermark that was written before lies above it.

        Raises:
            Conflict: the name belongs to another UID.
        """
        key = keys.node(node.name)

        async def attempt() -> tuple[KeyValue, int] | None:
            (record,), revision = await self._store.get_many([key])
            if record is not None:
                refreshed = await self._refresh(node, record)
                if refreshed is None:
                    return None
                return refreshed, max(revision, refreshed.mod_revision)
            async with self._creating:
                return await self._create(node, await self._store.get(keys.NODE_COUNTER))

        stored, revision = await compare_and_swap(attempt)
        return with_meta(registry_pb2.Node, stored), revision

    async def delete(self, name: str) -> int:
        """Removes a node, its endpoints and its blocks; returns how many endpoints.

        Record and fence go first: from then on nobody can add to what is being removed, and nobody
        waits for the node. A call that fails later is finished by the next one, or by the repair.
        """
        key, fence_key = keys.node(name), keys.fence(name)

        async def attempt() -> bool | None:
            (record, fence), _ = await self._store.get_many([key, fence_key])
            if record is None and fence is None:
                return True
            epoch = [Put(keys.FENCE_EPOCH, name.encode())] if fence is not None else []
            committed = await self._store.transact(
                [alive(key, record), as_read(fence_key, fence)],
                [Delete(key), Delete(fence_key), *epoch],
            )
            return True if committed.succeeded else None

        await compare_and_swap(attempt)
        return await self._cleaner.clean(name)

    async def list_nodes(
        self,
    ) -> tuple[Sequence[registry_pb2.Node], Sequence[registry_pb2.Fence], int]:
        """All nodes and all fences by name, and the revision that this shows."""
        nodes = await self._store.list(keys.NODES)
        fences = await self._store.list(keys.FENCES, revision=nodes.revision)
        return (
            [with_meta(registry_pb2.Node, item) for item in nodes.items],
            [with_meta(registry_pb2.Fence, item) for item in fences.items],
            nodes.revision,
        )

    async def _create(self, node: Node, counter: KeyValue | None) -> tuple[KeyValue, int] | None:
        key, fence_key = keys.node(node.name), keys.fence(node.name)
        numbered = replace(node, index=1 if counter is None else int(counter.value) + 1)
        value = node_to_record(numbered)
        # A fence of this name is a former registration's, and of no use any more.
        committed = await self._store.transact(
            [as_read(key, None), as_read(keys.NODE_COUNTER, counter)],
            [
                Put(key, value),
                Put(fence_key, joining_fence(numbered)),
                Put(keys.NODE_COUNTER, str(numbered.index).encode()),
            ],
        )
        if not committed.succeeded:
            return None
        return written(key, value, committed.revision), committed.revision

    async def _refresh(self, node: Node, record: KeyValue) -> KeyValue | None:
        known = node_from_record(record)
        if known.uid != node.uid:
            raise Conflict(
                f"node {node.name} is registered with UID {known.uid}, not {node.uid}; if that one "
                f"is gone for good: deltaplane node delete {node.name}"
            )
        value = node_to_record(replace(node, index=known.index))
        if value == record.value:
            return record
        committed = await self._store.transact(
            [as_read(record.key, record)], [Put(record.key, value)]
        )
        if not committed.succeeded:
            return None
        return written(record.key, value, committed.revision, record)

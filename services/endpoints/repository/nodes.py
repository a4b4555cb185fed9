"""Nodes: a name belongs to the UID that registered it first, until it is deleted."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from deltaplane.errors import Conflict
from deltaplane.store import keys
from deltaplane.store.port import CreatedAt, Delete, KeyValue, Put, Store
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import registry_pb2
from services.endpoints.records import Node
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.transactions import as_read
from services.endpoints.wire.records import node_from_record, node_to_record, with_meta, written


class Nodes:
    """Registered nodes."""

    def __init__(self, store: Store, cleaner: Cleaner) -> None:
        self._store = store
        self._cleaner = cleaner
        # A cluster that starts registers all its nodes at once: without it they would fight for the
        # counter, and most would give up.
        self._creating = asyncio.Lock()

    async def register(self, node: Node) -> registry_pb2.Node:
        """Registers a node, or refreshes what its registration says.

        Raises:
            Conflict: the name belongs to another UID.
        """
        key = keys.node(node.name)

        async def attempt() -> KeyValue | None:
            record = await self._store.get(key)
            if record is not None:
                return await self._refresh(node, record)
            async with self._creating:
                return await self._create(node, await self._store.get(keys.NODE_COUNTER))

        return with_meta(registry_pb2.Node, await compare_and_swap(attempt))

    async def delete(self, name: str) -> int:
        """Removes a node, its endpoints and its blocks; returns how many endpoints.

        The record goes first: from then on nobody can add to what is being removed. A call that
            fails
        later is finished by the next one, or by the repair.
        """
        key = keys.node(name)

        async def attempt() -> bool | None:
            record = await self._store.get(key)
            if record is None:
                return True
            committed = await self._store.transact(
                [CreatedAt(key, record.create_revision)], [Delete(key)]
            )
            return True if committed.succeeded else None

        await compare_and_swap(attempt)
        return await self._cleaner.clean(name)

    async def list_nodes(self) -> tuple[Sequence[registry_pb2.Node], int]:
        """All nodes by name, and the revision that this shows."""
        listing = await self._store.list(keys.NODES)
        return [with_meta(registry_pb2.Node, item) for item in listing.items], listing.revision

    async def _create(self, node: Node, counter: KeyValue | None) -> KeyValue | None:
        key = keys.node(node.name)
        index = 1 if counter is None else int(counter.value) + 1
        value = node_to_record(replace(node, index=index))
        committed = await self._store.transact(
            [as_read(key, None), as_read(keys.NODE_COUNTER, counter)],
            [Put(key, value), Put(keys.NODE_COUNTER, str(index).encode())],
        )
        return written(key, value, committed.revision) if committed.succeeded else None

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

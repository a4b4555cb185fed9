"""Finds and finishes what a killed replica, or a call that ran out of time, left half done.

Two things take more than one transaction: applying a pod or namespace (record, then endpoints) and
deleting a node (record, then endpoints and blocks). Both can be recognised from what is stored, so
every replica looks now and then; compares make it safe that several do so at once.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from posixpath import commonprefix
from typing import NoReturn

from deltaplane.errors import DeltaplaneError
from deltaplane.runtime import log
from deltaplane.store import keys
from deltaplane.store.port import KeyValue, Store
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.following import Follower
from services.endpoints.wire.records import (
    block_from_record,
    fence_from_record,
    node_from_record,
    node_of_endpoint,
)

PERIOD_SECONDS = 30.0
PAGE = 1000
"""Endpoints that are looked at before other work gets its turn."""
READS = 100
DENSE = 2
"""A range pays as long as one in so many of its records is wanted."""


class Repairer:
    """Walks through all endpoints, blocks and fences."""

    def __init__(self, store: Store, follower: Follower, cleaner: Cleaner) -> None:
        self._store = store
        self._follower = follower
        self._cleaner = cleaner

    async def run(self, period_seconds: float = PERIOD_SECONDS) -> NoReturn:
        """Repairs now and then until it is cancelled."""
        thorough = True
        while True:
            try:
                await self.repair(thorough=thorough)
                thorough = False
            except DeltaplaneError as error:
                log.get().warning("repair_failed", reason=str(error))
            except Exception:  # noqa: BLE001 - one bad record must not end the service
                log.get().exception("repair_failed")
            await asyncio.sleep(period_seconds)

    async def repair(self, *, thorough: bool) -> None:
        """Puts everything right that it finds.

        Args:
            thorough: computes every identity anew, as after a change of the label filter. Otherwise
                an endpoint is fine that was written after its pod and its namespace: who wrote it
                compared both.
        """
        nodes = await self._nodes()
        gone: set[str] = set()
        start: str | None = ""
        revision = 0
        while start is not None:
            page = await self._store.page(
                keys.ENDPOINTS, limit=PAGE, start_key=start, revision=revision
            )
            revision, start = page.revision, page.next_key
            gone |= {
                node
                for node, index in map(node_of_endpoint, page.items)
                if nodes.get(node) != index
            }
            doubtful = page.items if thorough else await self._doubtful(page.items)
            rewritten = await self._follower.follow([item.key for item in doubtful], "")
            if rewritten:
                log.get().info("endpoints_repaired", revision=rewritten)
        blocks = await self._store.list(keys.BLOCKS)
        gone |= {
            block.node
            for block in map(block_from_record, blocks.items)
            if nodes.get(block.node) != block.node_index
        }
        fences = await self._store.list(keys.FENCES)
        gone |= {
            fence.node
            for fence in map(fence_from_record, fences.items)
            if nodes.get(fence.node) != fence.node_index
        }
        for node in sorted(gone):
            removed = await self._cleaner.clean(node)
            log.get().info("node_leftovers_removed", node=node, endpoints=removed)

    async def _nodes(self) -> Mapping[str, int]:
        """Index by name. Read first: a node that comes later is only looked at twice."""
        listing = await self._store.list(keys.NODES)
        return {node.name: node.index for node in map(node_from_record, listing.items)}

    async def _doubtful(self, endpoints: Sequence[KeyValue]) -> list[KeyValue]:
        followed = [(item, *_followed(item)) for item in endpoints]
        pods = await self._revisions({pod for _, pod, _ in followed})
        namespaces = await self._revisions({namespace for _, _, namespace in followed})
        # An absent record tells nothing about when it went.
        return [
            item
            for item, pod, namespace in followed
            if not (
                0 < pods.get(pod, 0) < item.mod_revision
                and 0 < namespaces.get(namespace, 0) < item.mod_revision
            )
        ]

    async def _revisions(self, wanted: Collection[str]) -> Mapping[str, int]:
        """When keys were last written; those that do not exist are missing.

        The keys that endpoints of one page follow lie next to each other, but for names that begin
        with one another: a range brings them all. Where others lie between them it begins anew at
        the next key that is wanted, and where there are too many of these it reads key by key.
        """
        found: dict[str, int] = {}
        left = sorted(wanted)
        while left:
            # No further than need be: etcd counts what follows, whatever the limit.
            prefix = commonprefix((left[0], left[-1]))
            page = await self._store.page(prefix, limit=len(left), start_key=left[0])
            found |= {item.key: item.mod_revision for item in page.items if item.key in wanted}
            end = page.next_key
            beyond = [] if end is None else [name for name in left if name >= end]
            if DENSE * (len(left) - len(beyond)) < len(page.items):
                return found | await self._one_by_one(beyond)
            left = beyond
        return found

    async def _one_by_one(self, names: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(names), READS):
            items, _ = await self._store.get_many(names[start : start + READS])
            found |= {item.key: item.mod_revision for item in items if item}
        return found


def _followed(endpoint: KeyValue) -> tuple[str, str]:
    """The keys of its pod and its namespace."""
    namespace, pod, *_ = endpoint.key.removeprefix(keys.ENDPOINTS).split("/")
    return keys.pod(namespace, pod), keys.namespace(namespace)

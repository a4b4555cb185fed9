"""Finds and finishes what a killed replica, or a call that ran out of time, left half done.

Two things take more than one transaction: applying a pod or namespace (record, then endpoints) and
deleting a node (record, then endpoints and blocks). Both can be recognised from what is stored, so
every replica looks now and then; compares make it safe that several do so at once.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from deltaplane.errors import DeltaplaneError
from deltaplane.runtime import log
from deltaplane.store import keys
from deltaplane.store.port import KeyValue, Store
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.following import Follower
from services.endpoints.wire.records import (
    block_from_record,
    endpoint_from_record,
    fence_from_record,
    node_from_record,
)

PERIOD_SECONDS = 30.0
PAGE = 500
"""Endpoints that are looked at before other work gets its turn."""
READS = 100


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
                endpoint.request.node
                for endpoint in map(endpoint_from_record, page.items)
                if nodes.get(endpoint.request.node) != endpoint.node_index
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
        names = list(dict.fromkeys(name for item in endpoints for name in _followed(item)))
        revisions: dict[str, int] = {}
        for start in range(0, len(names), READS):
            part = names[start : start + READS]
            found, _ = await self._store.get_many(part)
            revisions |= {
                name: item.mod_revision if item else 0
                for name, item in zip(part, found, strict=True)
            }
        return [
            item
            for item in endpoints
            if any(
                # An absent record tells nothing about when it went.
                not 0 < revisions[name] < item.mod_revision
                for name in _followed(item)
            )
        ]


def _followed(endpoint: KeyValue) -> Iterator[str]:
    namespace, pod, *_ = endpoint.key.removeprefix(keys.ENDPOINTS).split("/")
    yield keys.pod(namespace, pod)
    yield keys.namespace(namespace)

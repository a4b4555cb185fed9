"""Takes endpoints out, and lists them.

A registration may be slower than the release that follows it: its caller has given up, its replica
hung, or etcd took its time. Applied after the release, it would leave an endpoint that nobody knows
of. So a release leaves the number behind for a while, and a registration compares that it is not
there. Numbers are never used twice by one node.
"""

import time
from collections.abc import Callable, Sequence

from deltaplane.errors import NotFound
from deltaplane.store import keys
from deltaplane.store.port import Absent, Compare, CreatedAt, KeyValue, Operation, Put, Store
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import registry_pb2
from services.endpoints.registration import registered
from services.endpoints.repository.cleaning import ENDPOINTS_AT_ONCE, removal
from services.endpoints.repository.paging import page
from services.endpoints.repository.transactions import alive
from services.endpoints.wire.records import endpoint_from_record, node_from_record, with_meta
from services.endpoints.wire.requests import PageRequest, Release

LATE_SECONDS = 60
"""A registration that is applied later than that after its release is not noticed. Its call, its
attempts and its transaction have deadlines that add up to a tenth."""


class Endpoints:
    """Registered endpoints.

    Args:
        store: where they are.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, store: Store, *, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._lease = 0
        self._lease_until = 0.0

    async def release(
        self, node: str, node_uid: str, releases: Sequence[Release]
    ) -> tuple[int, int]:
        """Removes the endpoints of one node whose guard fits, with their addresses.

        A guard that does not fit names an endpoint that is gone already: something newer has its
            key.

        Returns:
            A revision at which none of the named ones exists, and how many this call removed.

        Raises:
            Refused: the node is not registered with this UID.
        """
        revision = removed = 0
        for start in range(0, len(releases), ENDPOINTS_AT_ONCE):
            batch = releases[start : start + ENDPOINTS_AT_ONCE]

            async def attempt(batch: Sequence[Release] = batch) -> tuple[int, int] | None:
                return await self._try_to_release(node, node_uid, batch)

            revision, count = await compare_and_swap(attempt)
            removed += count
        return revision or await self._store.head(), removed

    async def page(self, request: PageRequest) -> tuple[Sequence[registry_pb2.Endpoint], str, int]:
        """One page: the endpoints, the token of the next page ("": there is none), the revision.

        Raises:
            Invalid: the token is of another listing.
            Compacted: the listing took so long that its revision is gone; begin again.
        """
        prefix = keys.ENDPOINTS
        if request.namespace:
            prefix = keys.endpoints_of(request.namespace, request.pod)
        found, token, revision = await page(
            self._store,
            prefix,
            size=request.size,
            start_key=request.start_key,
            revision=request.revision,
            keep=(lambda item: _node(item) == request.node) if request.node else None,
        )
        return [with_meta(registry_pb2.Endpoint, item) for item in found], token, revision

    async def _try_to_release(
        self, node: str, node_uid: str, batch: Sequence[Release]
    ) -> tuple[int, int] | None:
        names = {keys.endpoint(it.namespace, it.pod, it.node, it.id): it for it in batch}
        numbers = [keys.node_endpoint(it.node, it.id) for it in names.values()]
        gone = [keys.released_endpoint(it.node, it.id) for it in names.values()]
        found, revision = await self._store.get_many([keys.node(node), *names, *numbers, *gone])
        record, count = found[0], len(names)
        stored, held, marks = (found[1 + part * count :][:count] for part in range(3))
        nodes = {} if record is None else {node: node_from_record(record)}
        index = str(registered(nodes, node, node_uid).index).encode()
        compares: list[Compare] = [] if record is None else [alive(record.key, record)]
        operations: list[Operation] = []
        lease = await self._current_lease()
        removed = 0
        for item, release, number, mark in zip(stored, names.values(), held, marks, strict=True):
            if item is None and number is not None:
                # The number is another pod's: the named one does not exist, and cannot come late.
                continue
            if item is None:
                if mark is not None and mark.value == index:
                    continue
                compares.append(Absent(keys.node_endpoint(release.node, release.id)))
            elif _fits(release, item):
                # The incarnation, not the last write: a new identity is no reason to keep it.
                compares.append(CreatedAt(item.key, item.create_revision))
                operations += removal(item)
                removed += 1
            else:
                continue
            operations.append(Put(keys.released_endpoint(release.node, release.id), index, lease))
        if not operations:
            return revision, 0
        try:
            committed = await self._store.transact(compares, operations)
        except NotFound:  # the lease is gone: the store was away for long, or restored
            self._lease = 0
            return None
        return (committed.revision, removed) if committed.succeeded else None

    async def _current_lease(self) -> int:
        """A lease that lasts for LATE_SECONDS or more; it is not kept alive."""
        if not self._lease or self._now() > self._lease_until:
            self._lease = await self._store.grant_lease(2 * LATE_SECONDS)
            self._lease_until = self._now() + LATE_SECONDS
        return self._lease


def _fits(release: Release, stored: KeyValue) -> bool:
    if isinstance(release.guard, int):
        return stored.create_revision == release.guard
    return endpoint_from_record(stored).request.owner == release.guard


def _node(stored: KeyValue) -> str:
    return stored.key.split("/")[-2]

"""Takes endpoints out, and lists them."""

from collections.abc import Sequence

from deltaplane.errors import Invalid
from deltaplane.store import keys
from deltaplane.store.port import CreatedAt, KeyValue, Store
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import registry_pb2
from services.endpoints.registration import registered
from services.endpoints.repository.cleaning import ENDPOINTS_AT_ONCE, removal
from services.endpoints.wire.records import endpoint_from_record, node_from_record, with_meta
from services.endpoints.wire.requests import PageRequest, Release, page_token

SCAN = 2000
"""Endpoints that are read at once when most of them may be filtered out."""


class Endpoints:
    """Registered endpoints."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
        if request.start_key and not request.start_key.startswith(prefix):
            raise Invalid("page_token", "belongs to a listing with another filter")
        found: list[registry_pb2.Endpoint] = []
        start, revision = request.start_key, request.revision
        while True:
            part = await self._store.page(
                prefix,
                limit=SCAN if request.node else request.size,
                start_key=start,
                revision=revision,
            )
            revision = part.revision
            for item in part.items:
                if request.node and _node(item) != request.node:
                    continue
                if len(found) == request.size:
                    return found, page_token(revision, item.key), revision
                found.append(with_meta(registry_pb2.Endpoint, item))
            if part.next_key is None:
                return found, "", revision
            if len(found) == request.size:
                return found, page_token(revision, part.next_key), revision
            start = part.next_key

    async def _try_to_release(
        self, node: str, node_uid: str, batch: Sequence[Release]
    ) -> tuple[int, int] | None:
        names = {keys.endpoint(it.namespace, it.pod, it.node, it.id): it for it in batch}
        found, revision = await self._store.get_many([keys.node(node), *names])
        record, *stored = found
        nodes = {} if record is None else {node: node_from_record(record)}
        registered(nodes, node, node_uid)
        fitting = [
            item
            for item, release in zip(stored, names.values(), strict=True)
            if item is not None and _fits(release, item)
        ]
        if not fitting:
            return revision, 0
        committed = await self._store.transact(
            # The incarnation, not the last write: a new identity meanwhile is no reason to keep it.
            [CreatedAt(item.key, item.create_revision) for item in fitting],
            [operation for item in fitting for operation in removal(item)],
        )
        return (committed.revision, len(fitting)) if committed.succeeded else None


def _fits(release: Release, stored: KeyValue) -> bool:
    if isinstance(release.guard, int):
        return stored.create_revision == release.guard
    return endpoint_from_record(stored).request.owner == release.guard


def _node(stored: KeyValue) -> str:
    return stored.key.split("/")[-2]

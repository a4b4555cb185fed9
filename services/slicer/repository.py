"""What the slicer reads of etcd, and its lease key: the only thing that it writes."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from deltaplane.errors import NotFound, Refused
from deltaplane.store import keys, lineage
from deltaplane.store.port import Put, Store
from services.slicer.facts import Record
from services.slicer.wire import record_from_store

LEASE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in revision order, complete through a revision."""

    records: tuple[Record, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A slicer process, as its lease key names it. address: host:port for other replicas."""

    server_id: str
    address: str


class Repository:
    """The records behind the view."""

    def __init__(self, store: Store, expected_lineage: bytes = b"") -> None:
        self._store = store
        self._expected_lineage = expected_lineage

    async def lineage(self) -> bytes:
        """The store's lineage; a new store gets one.

        Raises:
            Refused: it is not the expected one.
        """
        return await lineage.ensure(self._store, self._expected_lineage)

    async def check_history(self, lineage_id: bytes, scanned: int) -> None:
        """Whether it is still the store whose writes up to a revision we have seen.

        Raises:
            Refused: it is not: what is in memory belongs to another life.
        """
        stored = await self._store.get(keys.LINEAGE)
        if stored is None or stored.value != lineage_id:
            raise Refused("the lineage of the store has changed; start again from the new one")
        head = await self._store.head()
        if head < scanned:
            raise Refused(
                f"the store has forgotten writes: it is at revision {head}, we have seen {scanned}"
            )

    async def listing(self) -> Batch:
        """All records, linearisably."""
        listing = await self._store.list(keys.STATE)
        records = tuple(record_from_store(item) for item in listing.items)
        return Batch(tuple(sorted(records, key=lambda r: r.generation)), listing.revision)

    async def changes(self, after: int) -> AsyncIterator[Batch]:
        """Writes after a revision, and marks of progress.

        Raises:
            Compacted: they are gone.
        """
        async for batch in self._store.watch(keys.STATE, after=after):
            yield Batch(tuple(record_from_store(event) for event in batch.events), batch.revision)

    async def head(self) -> int:
        """The store's revision, linearisably."""
        return await self._store.head()

    async def policy_revision(self, reference: str) -> int:
        """The generation of the policy "namespace/name".

        Raises:
            NotFound: there is none.
        """
        namespace, _, name = reference.partition("/")
        stored = await self._store.get(keys.policy(namespace, name))
        if stored is None:
            raise NotFound(f"there is no policy {reference!r}")
        return stored.mod_revision

    async def endpoint_revision(self, reference: str) -> int:
        """The newest generation of the endpoints of the pod "namespace/name".

        Raises:
            NotFound: there is none.
        """
        namespace, _, pod = reference.partition("/")
        # Without a pod the prefix would be that of the whole namespace.
        found = (await self._store.list(keys.endpoints_of(namespace, pod))).items if pod else ()
        if not found:
            raise NotFound(f"there is no endpoint of a pod {reference!r}")
        return max(item.mod_revision for item in found)

    async def announce(self, replica: Replica) -> int:
        """Writes the lease key of this replica; the lease."""
        lease = await self._store.grant_lease(LEASE_SECONDS)
        value = json.dumps({"address": replica.address, "server_id": replica.server_id}).encode()
        key = keys.SLICERS + replica.server_id
        # Nobody else uses this id. An own key of an expired lease goes with that lease.
        await self._store.transact([], [Put(key, value, lease)])
        return lease

    async def keep_alive(self, lease: int) -> bool:
        """Renews the lease; False when it has expired."""
        return await self._store.keep_alive(lease)

    async def withdraw(self, lease: int) -> None:
        """Ends the lease and with it the key."""
        await self._store.revoke_lease(lease)

    async def replicas(self) -> tuple[Replica, ...]:
        """All replicas that are alive; what is not readable is left out."""
        found = []
        for item in (await self._store.list(keys.SLICERS)).items:
            try:
                value = json.loads(item.value)
                found.append(Replica(str(value["server_id"]), str(value["address"])))
            except (ValueError, KeyError, TypeError):
                continue
        return tuple(found)

"""What the slicer reads of etcd, and what it writes there: its lease keys, watermark and fences."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.errors import NotFound, Refused
from deltaplane.model import tiers
from deltaplane.store import keys, lineage
from deltaplane.store.port import (
    Absent,
    Compare,
    CreatedAt,
    Delete,
    KeyValue,
    Put,
    Store,
    Unchanged,
    WatchBatch,
)
from services.slicer import checkpoints
from services.slicer.checkpoints import Checkpoint
from services.slicer.facts import Record
from services.slicer.watching import Watch, of_store
from services.slicer.watermark import (
    Coverage,
    Fence,
    Watermark,
    encode_coverage,
    encode_watermark,
)
from services.slicer.wire import fence_to_record, node_of_record, record_from_store

LEASE_SECONDS = 10

FENCES_AT_ONCE = 30
"""Each takes two compares and one operation."""


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

    def __init__(
        self, store: Store, expected_lineage: bytes = b"", watch: Watch | None = None
    ) -> None:
        """watch: how the state is watched; None: by the store itself."""
        self._store = store
        self._watch = watch or of_store(store)
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

    async def checkpoints(self) -> tuple[Checkpoint, ...]:
        """What was written last."""
        stored = await self._store.get(keys.CHECKPOINTS)
        return () if stored is None else checkpoints.decode(stored.value)

    async def checkpoint(self, now: Checkpoint) -> None:
        """Adds a checkpoint if it is due; another replica may be first."""
        stored = await self._store.get(keys.CHECKPOINTS)
        known = () if stored is None else checkpoints.decode(stored.value)
        following = checkpoints.following(known, now)
        if following is None:
            return
        guard: Compare = Absent(keys.CHECKPOINTS)
        if stored is not None:
            guard = Unchanged(keys.CHECKPOINTS, stored.mod_revision)
        await self._store.transact([guard], [Put(keys.CHECKPOINTS, checkpoints.encode(following))])

    async def listing(self, revision: int = 0) -> Batch:
        """All records, linearisably, or at a revision.

        Raises:
            Compacted: the store does not know that revision any more.
        """
        listing = await self._store.list(keys.STATE, revision=revision)
        records = tuple(record_from_store(item) for item in listing.items)
        return Batch(tuple(sorted(records, key=lambda r: r.generation)), listing.revision)

    async def changes(self, after: int) -> AsyncIterator[Batch]:
        """Writes after a revision, and marks of progress.

        Raises:
            Compacted: they are gone.
        """
        async for batch in self._watch(keys.STATE, after):
            yield Batch(tuple(record_from_store(event) for event in batch.events), batch.revision)

    async def head(self) -> int:
        """The store's revision, linearisably."""
        return await self._store.head()

    async def policy_revision(self, reference: str) -> int:
        """The generation of the policy that `deltaplane.model.tiers.reference` names so.

        Raises:
            NotFound: there is none, or nothing can be named so.
        """
        try:
            kind, namespace, name = tiers.parse_reference(reference)
        except ValueError as error:
            raise NotFound(f"there is no policy {error}") from error
        stored = await self._store.get(keys.policy(namespace, name, kind))
        if stored is None:
            raise NotFound(f"there is no policy {reference!r}")
        return stored.mod_revision

    async def endpoints(self, reference: str) -> tuple[Record, ...]:
        """The endpoints of the pod "namespace/name"; those that cannot be read have no content.

        Raises:
            NotFound: there is none.
        """
        namespace, _, pod = reference.partition("/")
        # Without a pod the prefix would be that of the whole namespace.
        found = (await self._store.list(keys.endpoints_of(namespace, pod))).items if pod else ()
        if not found:
            raise NotFound(f"there is no endpoint of a pod {reference!r}")
        return tuple(record_from_store(item) for item in found)

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

    # --- progress --------------------------------------------------------------------------------

    async def progress(self) -> tuple[Sequence[KeyValue], int]:
        """All keys of progress, linearisably, and the revision that this shows."""
        listing = await self._store.list(keys.PROGRESS)
        return listing.items, listing.revision

    def progress_changes(self, after: int) -> AsyncIterator[WatchBatch]:
        """Writes to keys of progress after a revision, and marks.

        Raises:
            Compacted: they are gone.
        """
        return self._store.watch(keys.PROGRESS, after=after)

    async def publish(self, server_id: str, coverage: Coverage, lease: int, *, joins: bool) -> None:
        """Writes what a replica vouches for. joins: nodes that it did not cover before are in it.

        Raises:
            NotFound: the lease has expired.
        """
        puts = [Put(keys.coverage(server_id), encode_coverage(coverage), lease)]
        if joins:
            puts.append(Put(keys.JOINS, server_id.encode()))
        await self._store.transact([], puts)

    async def advance(
        self, lineage_id: bytes, watermark: Watermark, *, stamps: Mapping[str, int]
    ) -> bool:
        """Writes a watermark; False: it, or the epoch, is not what it was computed from.

        Args:
            lineage_id: of its revisions.
            watermark: the new one.
            stamps: mod revisions of the keys of progress, 0 or absent for those that are not there.
        """
        committed = await self._store.transact(
            [stamped(keys.WATERMARK, stamps), stamped(keys.FENCE_EPOCH, stamps)],
            [Put(keys.WATERMARK, encode_watermark(lineage_id, watermark))],
        )
        return committed.succeeded

    async def fence(
        self, nodes: Mapping[int, str], *, stamps: Mapping[str, int]
    ) -> tuple[Fence, ...]:
        """Fences nodes, by number and name, that nobody began to cover since the stamps.

        Returns:
            The fences that were made, for the log.
        """
        made: list[Fence] = []
        items = list(nodes.items())
        for start in range(0, len(items), FENCES_AT_ONCE):
            part = items[start : start + FENCES_AT_ONCE]
            found, _ = await self._store.get_many(
                [key for _, name in part for key in (keys.node(name), keys.fence(name))]
            )
            compares: list[Compare] = [stamped(keys.JOINS, stamps)]
            fences: list[Fence] = []
            for (index, name), node, fence in zip(part, found[::2], found[1::2], strict=True):
                if node is None or fence is not None or node_of_record(node).index != index:
                    continue
                # The node may not be deleted meanwhile; that it registers anew does no harm.
                compares += [CreatedAt(node.key, node.create_revision), Absent(keys.fence(name))]
                uid = node_of_record(node).uid
                fences.append(
                    Fence(node=name, node_index=index, node_uid=uid, joining=False, created=0)
                )
            puts = [Put(keys.fence(fence.node), fence_to_record(fence)) for fence in fences]
            if puts and (await self._store.transact(compares, puts)).succeeded:
                made += fences
        return tuple(made)

    async def unfence(self, fences: Iterable[Fence], *, stamps: Mapping[str, int]) -> bool:
        """Deletes up to FENCES_AT_ONCE fences; False: one of them, or the watermark, changed."""
        some = list(fences)[:FENCES_AT_ONCE]
        committed = await self._store.transact(
            [
                stamped(keys.WATERMARK, stamps),
                *(CreatedAt(keys.fence(fence.node), fence.created) for fence in some),
            ],
            [
                *(Delete(keys.fence(fence.node)) for fence in some),
                Put(keys.FENCE_EPOCH, some[0].node.encode()),
            ],
        )
        return committed.succeeded


def stamped(key: str, stamps: Mapping[str, int]) -> Compare:
    """Holds while a key is as it was seen, be it absent."""
    stamp = stamps.get(key, 0)
    return Unchanged(key, stamp) if stamp else Absent(key)

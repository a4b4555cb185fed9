"""Finishes the restore of a backup: the store says that what came after the backup never was.

Nodes have applied revisions, and identities and node numbers were given, that the backup does not
know. A new lineage makes every agent take a snapshot, whatever revision it has seen; counters that
are raised give no number a second meaning.

It is idempotent: a finish whose lineage is the last write below our root was followed by nobody,
and is not repeated. Whatever else is written first (a slicer's key, a registration) comes from work
in that lineage, and a backup of it is another one.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from deltaplane.errors import Refused
from deltaplane.store import keys
from deltaplane.store.lineage import LENGTH_BYTES
from deltaplane.store.port import Absent, Compare, KeyValue, Put, Store, Unchanged
from deltaplane.store.retry import compare_and_swap

RAISE = 1 << 20
"""Numbers skipped: more than a cluster gives between two backups. There are 2^31 identities."""

LAST_NUMBER = (1 << 31) - 1
"""Identities end here; numbers of nodes and services, which are fewer, are kept below it, too."""

COUNTERS = (keys.IDENTITY_COUNTER, keys.NODE_COUNTER, keys.SERVICE_COUNTER)

REPLICA_SECONDS = 20.0
"""How long replicas of the backup may still be there: a restored store renews its leases once."""

POLL_SECONDS = 0.5
PAGE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a finish found and wrote.

    Attributes:
        before: lineage of the backup, hexadecimal.
        lineage: the new one; empty in a dry run.
        identities: highest identity number given: in the backup, and as it counts now.
        nodes: the same of node numbers.
        services: the same of service numbers.
        revision: of the store, after it.
        repeated: an earlier finish had done it, and nothing has been written since.
    """

    before: str
    lineage: str
    identities: tuple[int, int]
    nodes: tuple[int, int]
    services: tuple[int, int]
    revision: int
    repeated: bool = False


async def finish(
    store: Store,
    *,
    steps: int = 1,
    dry_run: bool = False,
    patience: float = REPLICA_SECONDS,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Finished:
    """Writes a new lineage and raises the counters, before any service starts.

    Args:
        store: the restored one.
        steps: how often the counters are raised by RAISE; more than 1 where nodes have worked with
            an earlier restore of the very same backup.
        dry_run: look only.
        patience: seconds that keys of replicas may take to expire.
        pause: waits that many seconds.

    Raises:
        Refused: the store is not ours, a replica of a service lives, or numbers would run out.
        Unavailable: the store could not be reached in time.
    """
    await _wait_for_silence(store, 0.0 if dry_run else patience, pause)

    async def attempt() -> Finished | None:
        return await _try(store, steps=steps, dry_run=dry_run)

    return await compare_and_swap(attempt)


async def _try(store: Store, *, steps: int, dry_run: bool) -> Finished | None:
    wanted = [keys.LINEAGE, keys.RESTORED, *COUNTERS]
    read, revision = await store.get_many(wanted)
    lineage, restored, *counters = read
    if lineage is None or len(lineage.value) != LENGTH_BYTES:
        raise Refused(
            f"there is no lineage at {keys.LINEAGE}: this is not a store of Deltaplane, or an "
            "empty one; point --etcd to the restored etcd"
        )
    done_before = restored is not None and restored.mod_revision == lineage.mod_revision
    if restored is not None and done_before and await _is_last_write(store, lineage):
        return _repeated(restored, lineage, revision)
    numbers = [0 if counter is None else int(counter.value) for counter in counters]
    raised = [number + steps * RAISE for number in numbers]
    if max(raised) > LAST_NUMBER:
        raise Refused(f"numbers end at {LAST_NUMBER}: {max(raised)} is too high")
    identities, nodes, services = zip(numbers, raised, strict=True)
    found = Finished(
        before=lineage.value.hex(),
        lineage="" if dry_run else secrets.token_hex(LENGTH_BYTES),
        identities=identities,
        nodes=nodes,
        services=services,
        revision=revision,
    )
    if dry_run:
        return found
    compares: list[Compare] = [
        Absent(key) if value is None else Unchanged(key, value.mod_revision)
        for key, value in zip(wanted, read, strict=True)
    ]
    committed = await store.transact(
        compares,
        [
            Put(keys.LINEAGE, bytes.fromhex(found.lineage)),
            Put(keys.RESTORED, json.dumps(asdict(found)).encode()),
            *(Put(key, str(it).encode()) for key, it in zip(COUNTERS, raised, strict=True)),
        ],
    )
    # An answer that got lost: the next attempt finds its own write as the last one.
    return replace(found, revision=committed.revision) if committed.succeeded else None


def _repeated(restored: KeyValue, lineage: KeyValue, revision: int) -> Finished:
    record = json.loads(restored.value)
    return Finished(
        before=record["before"],
        lineage=lineage.value.hex(),
        identities=tuple(record["identities"]),
        nodes=tuple(record["nodes"]),
        # A finish of a version without services had none to raise.
        services=tuple(record.get("services", (0, 0))),
        revision=revision,
        repeated=True,
    )


async def _is_last_write(store: Store, lineage: KeyValue) -> bool:
    """Whether nothing below our root is newer. Deletions do not count: leases of the backup end."""
    start, revision = "", 0
    while True:
        page = await store.page(keys.ROOT, limit=PAGE, start_key=start, revision=revision)
        if any(item.mod_revision > lineage.mod_revision for item in page.items):
            return False
        if page.next_key is None:
            return True
        start, revision = page.next_key, page.revision


async def _wait_for_silence(
    store: Store, patience: float, pause: Callable[[float], Awaitable[None]]
) -> None:
    """Waits until no replica has a key under a lease.

    Raises:
        Refused: one still has.
    """
    waited = 0.0
    while replicas := await _replicas(store):
        if waited >= patience:
            raise Refused(
                f"services still run on this etcd: {', '.join(replicas)}. Stop ipam, endpoints and "
                "slicer everywhere first, or wait until the leases of the backup have ended "
                f"({REPLICA_SECONDS:g} s at most)"
            )
        await pause(POLL_SECONDS)
        waited += POLL_SECONDS


async def _replicas(store: Store) -> list[str]:
    found = [
        item
        for prefix in (keys.SLICERS, keys.COVERAGE)
        for item in (await store.list(prefix)).items
        if item.lease
    ]
    return sorted({f"slicer {item.key.rpartition('/')[2]}" for item in found})

"""Records that are replaced as a whole: namespaces, pods, policies."""

from collections.abc import Callable, Sequence

from deltaplane.store.port import Delete, DeletePrefix, KeyValue, Put, Store
from deltaplane.store.retry import compare_and_swap
from services.endpoints.repository.transactions import as_read, batches
from services.endpoints.wire.records import written

DELETES = 100
"""Of one transaction; a multiple of the four that a namespace takes."""

Same = Callable[[KeyValue, Put], bool]
"""Whether what is stored and what is to be written mean the same."""


def equal_bytes(stored: KeyValue, wanted: Put) -> bool:
    """For records that say nothing but what they mean."""
    return stored.value == wanted.value


async def write(
    store: Store, puts: Sequence[Put], *, same: Same = equal_bytes
) -> tuple[list[KeyValue], int]:
    """Writes what differs from what is stored, so that nothing goes to the nodes twice.

    Up to 100 puts of together 1 MiB are one transaction. More are several, in order: when the store
    fails in between, the first ones are in effect, and repeating the call completes it.

    Args:
        store: where to.
        puts: at most one a key.
        same: which are not written.

    Returns:
        The records as they are stored now, in order, and a revision at which all of them are.
    """
    stored: list[KeyValue] = []
    revision = 0
    for batch in batches(puts):
        records, revision = await _write_batch(store, batch, same)
        stored += records
    return stored, revision or await store.head()


async def _write_batch(
    store: Store, batch: Sequence[Put], same: Same
) -> tuple[list[KeyValue], int]:
    async def attempt() -> tuple[list[KeyValue], int] | None:
        found, revision = await store.get_many([put.key for put in batch])
        pairs = list(zip(batch, found, strict=True))
        kept = {put.key: old for put, old in pairs if old and same(old, put)}
        changed = [(put, old) for put, old in pairs if put.key not in kept]
        if changed:
            committed = await store.transact(
                [as_read(put.key, old) for put, old in changed], [put for put, _ in changed]
            )
            if not committed.succeeded:
                return None
            revision = committed.revision
        return [
            kept.get(put.key) or written(put.key, put.value, revision, old) for put, old in pairs
        ], revision

    return await compare_and_swap(attempt)


async def delete(store: Store, operations: Sequence[Delete | DeletePrefix]) -> int:
    """Deletes keys, 100 in one transaction; returns a revision at which none of them is."""
    revision = 0
    for start in range(0, len(operations), DELETES):
        batch = operations[start : start + DELETES]

        async def attempt(batch: Sequence[Delete | DeletePrefix] = batch) -> int:
            return (await store.transact([], batch)).revision

        revision = await compare_and_swap(attempt)
    return revision or await store.head()

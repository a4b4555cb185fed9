import asyncio

from deltaplane.store import keys, lineage
from deltaplane.store.port import Absent, Delete, Put, Store, Unchanged
from deltaplane.store.retry import compare_and_swap


async def count_up(store: Store, key: str, times: int) -> None:
    async def attempt() -> int | None:
        current = await store.get(key)
        if current is None:
            outcome = await store.transact([Absent(key)], [Put(key, b"1")])
        else:
            more = str(int(current.value) + 1).encode()
            outcome = await store.transact([Unchanged(key, current.mod_revision)], [Put(key, more)])
        return outcome.revision if outcome.succeeded else None

    for _ in range(times):
        await compare_and_swap(attempt, deadline_seconds=20)


async def test_no_increment_of_a_shared_counter_is_lost(store: Store, prefix: str) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(count_up(store, prefix + "counter", 20))
    counter = await store.get(prefix + "counter")
    assert counter is not None
    assert counter.value == b"160"


async def test_a_key_is_created_by_exactly_one_of_many(store: Store, prefix: str) -> None:
    outcomes = await asyncio.gather(
        *(
            store.transact([Absent(prefix + "a")], [Put(prefix + "a", bytes([n]))])
            for n in range(20)
        )
    )
    assert sum(outcome.succeeded for outcome in outcomes) == 1


async def test_processes_that_start_together_agree_on_the_lineage(store: Store) -> None:
    await store.transact([], [Delete(keys.LINEAGE)])
    found = await asyncio.gather(*(lineage.ensure(store) for _ in range(5)))
    assert len(set(found)) == 1
    assert len(found[0]) == lineage.LENGTH_BYTES
    assert await lineage.ensure(store) == found[0]

"""What memory has beyond the port, whose suite is tests/contract/store: its hooks and its clock."""

import asyncio

import pytest

from deltaplane.errors import Invalid, Unavailable
from deltaplane.store import memory
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Absent, Put


class HandClock:
    """Goes when it is told to."""

    seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def wall_ns(self) -> int:
        return int(self.seconds * 1e9)


async def test_leases_follow_the_given_clock() -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    lease = await store.grant_lease(10)
    await store.transact([], [Put("a", b"", lease)])
    clock.seconds += 9.9
    assert await store.keep_alive(lease)
    clock.seconds += 9.9
    assert await store.get("a") is not None
    clock.seconds += 0.1
    assert await store.get("a") is None
    assert not await store.keep_alive(lease)


async def test_away_it_answers_nothing_and_forgets_nothing() -> None:
    store = MemoryStore()
    await store.transact([], [Put("a", b"1")])
    store.available = False
    for call in (store.head(), store.get("a"), store.transact([], [Put("a", b"2")])):
        with pytest.raises(Unavailable):
            await call
    store.available = True
    stored = await store.get("a")
    assert stored is not None
    assert stored.value == b"1"


async def test_a_lost_answer_is_an_applied_transaction() -> None:
    store = MemoryStore()
    store.lose_next_answer()
    with pytest.raises(Unavailable):
        await store.transact([Absent("a")], [Put("a", b"1")])
    assert not (await store.transact([Absent("a")], [Put("a", b"2")])).succeeded


async def test_only_the_past_can_be_compacted() -> None:
    store = MemoryStore()
    with pytest.raises(Invalid):
        store.compact(await store.head() + 1)


async def test_compaction_frees_what_nobody_can_read() -> None:
    store = MemoryStore()
    for n in range(100):
        await store.transact([], [Put("a", bytes([n])), Put(f"gone/{n}", b"")])
    await store.transact([], [Put("a", b"last")])
    store.compact(await store.head())
    assert len(store._log) == 1
    assert len(store._keys["a"].values) == 1
    assert len((await store.list("gone/")).items) == 100


@pytest.mark.parametrize("turns", range(6))
async def test_a_write_as_the_pause_ends_is_not_passed_over(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PROGRESS_SECONDS", 0.0)
    store = MemoryStore()
    watch = store.watch("a/", after=await store.head())
    coming = asyncio.ensure_future(anext(watch))
    # The pause is over in one turn of the loop and the watch goes on in the next: in between too.
    for _ in range(turns):
        await asyncio.sleep(0)

    written = await store.transact([], [Put("a/1", b"")])

    batch = await coming
    while not batch.events:
        assert batch.revision < written.revision, "a mark that has overtaken the write"
        batch = await anext(watch)
    assert batch.revision == written.revision

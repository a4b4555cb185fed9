import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from deltaplane.errors import Compacted
from deltaplane.store import etcd_watch
from deltaplane.store.port import Delete, DeletePrefix, Event, Put, Store, WatchBatch
from tests.contract.store.conftest import Compact, collect


def opened(store: Store, prefix: str, *, after: int) -> aclosing[Any]:
    """A watch that ends with the block."""
    return aclosing(cast("Any", store.watch(prefix, after=after)))


async def next_mark(watch: AsyncIterator[WatchBatch], at_least: int) -> WatchBatch:
    async for batch in watch:
        if not batch.events and batch.revision >= at_least:
            return batch
    raise AssertionError("the watch ended")


async def test_a_watch_gets_every_later_write_in_order(store: Store, prefix: str) -> None:
    await store.transact([], [Put(prefix + "before", b"")])
    start = await store.head()
    for n in range(3):
        await store.transact([], [Put(prefix + "a", bytes([n])), Put("/test/elsewhere", b"")])
    await store.transact([], [Delete(prefix + "a")])

    events = await collect(store, prefix, after=start, until=lambda e: len(e) >= 4)

    assert events == [
        Event(key=prefix + "a", value=b"\0", create_revision=start + 1, mod_revision=start + 1),
        Event(key=prefix + "a", value=b"\1", create_revision=start + 1, mod_revision=start + 2),
        Event(key=prefix + "a", value=b"\2", create_revision=start + 1, mod_revision=start + 3),
        Event(key=prefix + "a", value=None, create_revision=0, mod_revision=start + 4),
    ]


async def test_a_watch_gets_what_happens_while_it_waits(store: Store, prefix: str) -> None:
    async with opened(store, prefix, after=await store.head()) as watch, asyncio.timeout(10):
        await next_mark(watch, 0)
        written = await store.transact([], [Put(prefix + "a", b"1")])
        batch = await anext(watch)
        while not batch.events:
            batch = await anext(watch)
    assert batch.revision == written.revision
    assert [event.key for event in batch.events] == [prefix + "a"]


async def test_batches_are_whole_revisions(store: Store, prefix: str) -> None:
    start = await store.head()
    for n in range(1500):
        await store.transact([], [Put(f"{prefix}{n % 7}/{part}", b"") for part in range(3)])
    await store.transact([], [DeletePrefix(prefix)])
    sizes: dict[int, int] = {}
    async with opened(store, prefix, after=start) as watch, asyncio.timeout(30):
        async for batch in watch:
            inside = {event.mod_revision for event in batch.events}
            assert not inside & sizes.keys()
            assert not inside or batch.revision == max(inside)
            assert [e.mod_revision for e in batch.events] == sorted(
                e.mod_revision for e in batch.events
            )
            for event in batch.events:
                sizes[event.mod_revision] = sizes.get(event.mod_revision, 0) + 1
            if len(sizes) == 1501:
                break
    assert sizes == dict.fromkeys(range(start + 1, start + 1501), 3) | {start + 1501: 21}


async def test_an_idle_watch_proves_its_progress_every_second(store: Store, prefix: str) -> None:
    loop = asyncio.get_running_loop()
    async with opened(store, prefix, after=await store.head()) as watch, asyncio.timeout(20):
        await next_mark(watch, 0)
        for _ in range(3):
            before = loop.time()
            assert (await anext(watch)).events == ()
            # Twice what the port says: the machine is shared.
            assert loop.time() - before < 2
        elsewhere = await store.transact([], [Put("/test/elsewhere", b"")])
        assert (await next_mark(watch, elsewhere.revision)).events == ()


async def test_a_mark_never_overtakes_an_event(
    store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Answers to progress requests of older servers do overtake, and must not be believed. The more
    # we ask, the more often they do.
    monkeypatch.setattr(etcd_watch, "QUIET_SECONDS", 0.0005)
    monkeypatch.setattr(etcd_watch, "DEAD_AFTER", 100_000)
    start = await store.head()
    total = 4000

    async def write() -> None:
        for n in range(total // 50):
            await store.transact([], [Put(f"{prefix}{n}/{part}", b"x" * 500) for part in range(50)])

    proven = seen = 0
    async with asyncio.TaskGroup() as group, asyncio.timeout(30):
        group.create_task(write())
        async with opened(store, prefix, after=start) as watch:
            async for batch in watch:
                for event in batch.events:
                    assert event.mod_revision > proven
                    seen += 1
                if not batch.events:
                    proven = batch.revision
                if seen == total:
                    break
                await asyncio.sleep(0.01)


async def test_two_watches_do_not_disturb_each_other(store: Store, prefix: str) -> None:
    start = await store.head()
    await store.transact([], [Put(prefix + "a/1", b"")])
    await store.transact([], [Put(prefix + "b/1", b"")])
    async with opened(store, prefix + "b/", after=start) as other, asyncio.timeout(10):
        first = await collect(store, prefix + "a/", after=start, until=bool)
        batch = await anext(other)
        while not batch.events:
            batch = await anext(other)
    assert [event.key for event in first] == [prefix + "a/1"]
    assert [event.key for event in batch.events] == [prefix + "b/1"]


async def test_a_watch_from_before_the_compaction_says_so(
    store: Store, compact: Compact, prefix: str
) -> None:
    start = await store.head()
    for n in range(4):
        await store.transact([], [Put(prefix + "a", bytes([n]))])
    await compact(start + 3)

    with pytest.raises(Compacted) as caught:
        await collect(store, prefix, after=start, until=bool)
    assert caught.value.compact_revision == start + 3
    # The oldest revision that is still there can be watched.
    events = await collect(store, prefix, after=start + 2, until=lambda e: len(e) >= 2)
    assert [event.mod_revision for event in events] == [start + 3, start + 4]


async def test_a_read_from_before_the_compaction_says_so(
    store: Store, compact: Compact, prefix: str
) -> None:
    first = await store.transact([], [Put(prefix + "a", b"1")])
    second = await store.transact([], [Put(prefix + "a", b"2")])
    await compact(second.revision)

    for read in (
        store.list(prefix, revision=first.revision),
        store.page(prefix, limit=1, revision=first.revision),
        store.get(prefix + "a", revision=first.revision),
    ):
        with pytest.raises(Compacted) as caught:
            await read
        assert caught.value.compact_revision == second.revision
    listing = await store.list(prefix, revision=second.revision)
    assert [item.value for item in listing.items] == [b"2"]


async def test_a_compaction_does_not_disturb_a_watch_that_is_up_to_date(
    store: Store, compact: Compact, prefix: str
) -> None:
    async with opened(store, prefix, after=await store.head()) as watch, asyncio.timeout(10):
        await store.transact([], [Put("/test/elsewhere", b"")])
        elsewhere = await store.transact([], [Put("/test/elsewhere", b"")])
        await next_mark(watch, elsewhere.revision)
        await compact(elsewhere.revision)
        await store.transact([], [Put(prefix + "a", b"")])
        batch = await anext(watch)
        while not batch.events:
            batch = await anext(watch)
    assert [event.key for event in batch.events] == [prefix + "a"]


async def test_closing_the_store_ends_its_watches(store: Store, prefix: str) -> None:
    watching = asyncio.Event()

    async def drain() -> None:
        async for _ in store.watch(prefix, after=head):
            watching.set()

    head = await store.head()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(drain())
        await watching.wait()
        await store.close()

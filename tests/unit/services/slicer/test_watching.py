"""A watch in a thread of its own, against the store in memory of that thread."""

import asyncio
import threading

import pytest

from deltaplane.errors import Compacted
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Put
from services.slicer.watching import in_thread

PATIENCE = 10.0


def filled(*, compacted: bool = False) -> MemoryStore:
    """A store with ten writes; made in the thread that uses it."""
    store = MemoryStore()

    async def fill() -> None:
        for number in range(10):
            await store.transact([], [Put(f"/a/{number}", b"")])

    # It serves one loop, and there is none yet that could wait.
    thread = threading.Thread(target=lambda: asyncio.run(fill()))
    thread.start()
    thread.join()
    if compacted:
        store.compact(8)
    return store


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("watch ")]


async def test_it_hands_over_what_comes_and_ends_with_its_reader() -> None:
    seen: list[str] = []
    watch = in_thread(filled)("/a/", 0)
    async with asyncio.timeout(PATIENCE):
        async for batch in watch:
            seen += [event.key for event in batch.events]
            if len(seen) == 10:
                break
        await watch.aclose()  # type: ignore[attr-defined]
    assert seen == [f"/a/{number}" for number in range(10)]
    assert not watchers()


async def test_what_the_watch_raises_is_raised_here() -> None:
    watch = in_thread(lambda: filled(compacted=True))("/a/", 0)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Compacted):
            await anext(watch)
    assert not watchers()


async def test_a_reader_that_is_cancelled_leaves_no_thread() -> None:
    async def read() -> None:
        async for _ in in_thread(filled)("/nothing/", 0):
            pass

    for pause in (0.0, 0.05):  # before the thread has begun, and after
        task = asyncio.create_task(read())
        await asyncio.sleep(pause)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not watchers()

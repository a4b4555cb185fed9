"""A watch on etcd that does not stand in line with the agents.

The responses of a watch come one at a time. In the loop that serves a thousand streams each of them
waits behind all that the streams have to do; a tick then holds few changes, and there is all the
more to do. In a thread with a loop of its own they come as fast as etcd sends them: with 200
agents and 100 changes a second, the p99 from commit to applied fell from 62 s to 1.1 s.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable

from deltaplane.store.port import Store, WatchBatch

Watch = Callable[[str, int], AsyncIterator[WatchBatch]]
"""(prefix, after) → what is written below the prefix after a revision, and marks of progress."""


def of_store(store: Store) -> Watch:
    """The watch of a store in the loop of its caller."""

    def watch(prefix: str, after: int) -> AsyncIterator[WatchBatch]:
        return store.watch(prefix, after=after)

    return watch


def in_thread(make: Callable[[], Store]) -> Watch:
    """A watch in a thread of its own.

    Args:
        make: opens a store there, which the watch closes.
    """

    def watch(prefix: str, after: int) -> AsyncIterator[WatchBatch]:
        return _Threaded(make, prefix, after).batches()

    return watch


WAITING_AT_MOST = 1000
"""Batches that wait to be taken; beyond that etcd keeps what comes."""

PAUSE_SECONDS = 0.01


class _Threaded:
    """One watch."""

    def __init__(self, make: Callable[[], Store], prefix: str, after: int) -> None:
        self._make, self._prefix, self._after = make, prefix, after
        self._home = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._batches: deque[WatchBatch] = deque()
        self._failure: BaseException | None = None
        self._ended = self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def batches(self) -> AsyncIterator[WatchBatch]:
        """Yields without a pause what has come.

        Raises:
            DeltaplaneError: what the watch raised, after all that came before.
        """
        thread = threading.Thread(target=self._run, name=f"watch {self._prefix}", daemon=True)
        thread.start()
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._batches:
                    yield self._batches.popleft()
                if self._ended:
                    if self._failure is not None:
                        raise self._failure
                    return
        finally:
            self._stop()
            await asyncio.shield(asyncio.to_thread(thread.join))

    def _run(self) -> None:
        try:
            asyncio.run(self._collect())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised where the batches are taken
            self._failure = error
        self._ended = True
        with contextlib.suppress(RuntimeError):  # the home loop is closed
            self._home.call_soon_threadsafe(self._arrived.set)

    async def _collect(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._stopping:
            return
        store = self._make()
        try:
            async for batch in store.watch(self._prefix, after=self._after):
                self._batches.append(batch)
                self._home.call_soon_threadsafe(self._arrived.set)
                while len(self._batches) >= WAITING_AT_MOST:  # noqa: ASYNC110 - another thread takes them
                    await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await store.close()

    def _stop(self) -> None:
        self._stopping = True  # before the look at the loop: one of the two sees the other
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)

"""A watch on etcd that does not wait behind the agents.

Responses of a watch come one at a time. In the loop that serves a thousand streams each of them
stands in line with all that the streams have to do; the server then takes few changes at once, and
has all the more to do. In a thread with a loop of its own they come as fast as etcd sends them.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator

from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import WatchBatch


async def watched(endpoint: str, prefix: str, *, after: int) -> AsyncIterator[list[WatchBatch]]:
    """Yields what has come since the last time, at least one batch.

    Args:
        endpoint: of etcd.
        prefix: of the keys.
        after: revision.
    """
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    batches: deque[WatchBatch] = deque()

    async def collect() -> None:
        store = EtcdStore([endpoint])
        async for batch in store.watch(prefix, after=after):
            batches.append(batch)
            loop.call_soon_threadsafe(arrived.set)

    # It ends with the process: a server of a measurement watches as long as it lives.
    threading.Thread(target=lambda: asyncio.run(collect()), daemon=True).start()
    while True:
        await arrived.wait()
        arrived.clear()
        found = [batches.popleft() for _ in range(len(batches))]
        if found:
            yield found

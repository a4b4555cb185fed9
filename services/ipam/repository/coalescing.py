"""Puts concurrent claims into common transactions.

While one transaction is under way, the claims that arrive queue; together they are the next one. A
lone claim waits for nothing, a starting cluster's thousands share some hundred transactions.

Under load a transaction of four claims costs nearly as much as one of twenty. So where there was
company last time, a short queue waits for a moment.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NoReturn

from deltaplane.errors import DeltaplaneError, Internal
from deltaplane.runtime import log
from deltaplane.v1 import ipam_pb2
from services.ipam.repository.claiming import Claimer, Outcome
from services.ipam.wire import Claim

GATHER_SECONDS = 0.002
"""A fraction of what a claim takes under load, and about what etcd takes to write."""

ENOUGH = 20
"""Claims that nearly fill a transaction."""

_Waiting = tuple[Claim, "asyncio.Future[ipam_pb2.Block]"]


class Coalescer:
    """A queue in front of the claimer. `run` must be running for `claim` to be answered.

    Args:
        claimer: answers batches.
        pause: waits that many seconds; a test may not want to.
    """

    def __init__(
        self, claimer: Claimer, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._claimer = claimer
        self._pause = pause
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    async def claim(self, claim: Claim) -> ipam_pb2.Block:
        """Claims a block; see `Repository.claim_block`."""
        future: asyncio.Future[ipam_pb2.Block] = asyncio.get_running_loop().create_future()
        self._queue.append((claim, future))
        self._arrived.set()
        return await future

    async def run(self) -> NoReturn:
        """Serves the queue until it is cancelled."""
        company = False
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            if company and len(self._queue) < ENOUGH:
                await self._pause(GATHER_SECONDS)
            batch = self._take()
            company = len(batch) > 1
            if batch:
                await self._claim(batch)

    def _take(self) -> list[_Waiting]:
        # A caller that has given up cancels its future; its claim is not sent any more.
        self._queue = deque(item for item in self._queue if not item[1].done())
        count = self._claimer.leading(claim for claim, _ in self._queue)
        return [self._queue.popleft() for _ in range(count)]

    async def _claim(self, batch: list[_Waiting]) -> None:
        outcomes: list[Outcome]
        try:
            outcomes = await self._claimer.claim([claim for claim, _ in batch])
        except Exception:  # noqa: BLE001 - a bug must cost one batch, not the queue
            log.get().exception("claims_failed", claims=len(batch))
            outcomes = [Internal("claims failed; the log has the details") for _ in batch]
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, DeltaplaneError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

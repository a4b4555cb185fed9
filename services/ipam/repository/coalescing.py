"""Puts concurrent claims into common transactions.

While one transaction is under way, the requests that arrive queue; together they are the next one.
A lone one waits for nothing, a starting cluster's thousands share some hundred transactions.

Under load a transaction of four claims costs nearly as much as one of twenty. So where there was
company last time, a short queue waits for a moment.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from deltaplane.errors import Internal
from deltaplane.runtime import log
from services.ipam.repository.claiming import Claimer, whole
from services.ipam.wire import Claim, Outcome

GATHER_SECONDS = 0.002
"""A fraction of what a claim takes under load, and about what etcd takes to write."""

ENOUGH = 20
"""Claims that nearly fill a transaction."""


class _Waiting:
    """A request: its claims may take several batches."""

    __slots__ = ("claims", "future", "outcomes")

    def __init__(self, claims: Sequence[Claim], future: "asyncio.Future[list[Outcome]]") -> None:
        self.claims = claims
        self.future = future
        self.outcomes: list[Outcome] = []

    @property
    def left(self) -> Sequence[Claim]:
        """Those that are not answered."""
        return self.claims[len(self.outcomes) :]


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

    async def claim(self, claims: Sequence[Claim]) -> list[Outcome]:
        """Claims blocks; see `Repository.claim_blocks`."""
        waiting = _Waiting(claims, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return whole(await waiting.future)

    async def run(self) -> NoReturn:
        """Serves the queue until it is cancelled."""
        company = False
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            if company and sum(len(it.left) for it in self._queue) < ENOUGH:
                await self._pause(GATHER_SECONDS)
            batch = self._take()
            company = len(batch) > 1
            if batch:
                await self._claim(batch)

    def _take(self) -> list[tuple[_Waiting, Sequence[Claim]]]:
        """The next batch; a request is divided only if it does not fit by itself."""
        # A caller that has given up cancels its future; its claims are not sent any more.
        self._queue = deque(it for it in self._queue if not it.future.done())
        room = self._claimer.leading(claim for it in self._queue for claim in it.left)
        batch: list[tuple[_Waiting, Sequence[Claim]]] = []
        for waiting in self._queue:
            claims = waiting.left
            if room < len(claims):
                if not batch:
                    batch.append((waiting, claims[:room]))
                break
            batch.append((waiting, claims))
            room -= len(claims)
        return batch

    async def _claim(self, batch: Sequence[tuple[_Waiting, Sequence[Claim]]]) -> None:
        claims = [claim for _, part in batch for claim in part]
        outcomes: list[Outcome]
        try:
            outcomes = await self._claimer.claim(claims)
        except Exception:  # noqa: BLE001 - a bug must cost one batch, not the queue
            log.get().exception("claims_failed", claims=len(claims))
            outcomes = [Internal("claims failed; the log has the details") for _ in claims]
        answered = iter(outcomes)
        for waiting, part in batch:
            waiting.outcomes += itertools.islice(answered, len(part))
            if not waiting.left and not waiting.future.done():
                waiting.future.set_result(waiting.outcomes)
        self._queue = deque(it for it in self._queue if not it.future.done())

"""Puts concurrent registrations into common transactions.

While one transaction is under way, the requests that arrive queue; together they are the next one.
A lone request waits for nothing, a thousand share some twenty transactions, and the requests of one
call are judged in their order.

    requests       a  b c d   e f g h
    transactions   [a   ][b c d   ][e f g h   ]

One at a time: two would only halve the batches, and cost the order.
"""

import asyncio
import copy
from collections import deque
from time import perf_counter
from typing import NoReturn

from deltaplane.errors import DeltaplaneError, Internal
from deltaplane.runtime import log, propagation, tracing
from deltaplane.runtime.propagation import Stage
from deltaplane.store.port import KeyValue
from services.endpoints.records import Request
from services.endpoints.registration import MOST_SEPARATE, separate
from services.endpoints.repository.registering import Outcome, Registrar
from services.endpoints.wishing import Wish

_COMMITTED = propagation.observer(Stage.REGISTER_TO_COMMIT)

GATHER_SECONDS = 0.1
"""Longest; while calls come without a break, their answers take longer than that anyway."""

SILENT_TURNS = 4
"""Of the event loop, in which no request came. A call that is being received takes several."""

BUSY = 8
"""Requests of a batch after which, if more are there already, a turn takes BUSY_SECONDS."""
BUSY_SECONDS = 0.002

_Waiting = tuple[Request, "asyncio.Future[KeyValue | Wish]"]


class Coalescer:
    """A queue in front of the registrar. `run` must be running for `register` to be answered."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    async def register(self, request: Request) -> KeyValue | Wish:
        """Registers one endpoint; returns the stored record, or what the pod asks for instead.

        Raises:
            DeltaplaneError: whatever `registration.judge` says; Unavailable when the store is away.
        """
        future: asyncio.Future[KeyValue | Wish] = asyncio.get_running_loop().create_future()
        arrived = perf_counter()
        self._queue.append((request, future))
        self._arrived.set()
        outcome = await future
        _COMMITTED(perf_counter() - arrived)
        return outcome

    async def run(self) -> NoReturn:
        """Serves the queue until it is cancelled."""
        turn_seconds = 0.0
        while True:
            while not self._queue:
                turn_seconds = 0.0
                self._arrived.clear()
                await self._arrived.wait()
            await self._gather(turn_seconds)
            batch = self._take()
            if batch:
                await self._register(batch)
            turn_seconds = BUSY_SECONDS if len(batch) >= BUSY else 0.0

    async def _gather(self, turn_seconds: float) -> None:
        """Lets those come in that are on their way, as long as they keep coming.

        Of many that are sent at once the first must not go alone; a lone one waits for nobody.
        """
        until, silent = perf_counter() + GATHER_SECONDS, 0
        while silent < SILENT_TURNS and len(self._queue) < MOST_SEPARATE and perf_counter() < until:
            before = len(self._queue)
            await asyncio.sleep(turn_seconds)
            silent = 0 if len(self._queue) > before else silent + 1

    def _take(self) -> list[_Waiting]:
        # A caller that has given up cancels its future; its request is not sent any more.
        self._queue = deque(item for item in self._queue if not item[1].done())
        count = separate(request for request, _ in self._queue)
        return [self._queue.popleft() for _ in range(count)]

    async def _register(self, batch: list[_Waiting]) -> None:
        outcomes: list[Outcome]
        requests = [request for request, _ in batch]
        try:
            with tracing.shared(
                "etcd transaction",
                (request.traceparent for request in requests),
                {"endpoints": len(requests)},
            ):
                outcomes = list(await self._registrar.register(requests))
        except DeltaplaneError as error:
            outcomes = [copy.copy(error) for _ in batch]
        except Exception:  # noqa: BLE001 - a bug must cost one batch, not the queue
            log.get().exception("registration_failed", endpoints=len(batch))
            outcomes = [Internal("registration failed; the log has the details") for _ in batch]
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, DeltaplaneError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

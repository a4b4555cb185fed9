"""Processes that die, and what they talk through: the store's port and the network."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from deltaplane.errors import DeltaplaneError, Unavailable
from deltaplane.store.port import (
    Committed,
    CommittedParts,
    Compare,
    KeyValue,
    Listing,
    Operation,
    Page,
    Part,
    WatchBatch,
)
from tests.soak.faults import Fate, Faults, Point
from tests.soak.flat import Backend
from tests.soak.loop import TURN, Loop

R = TypeVar("R")
T = TypeVar("T")

LATE_TURNS = (24, 24, 200)
"""Longest delays of a late request, in pauses; one of them holds."""


class Crashed(BaseException):
    """Unwinds what a dead process was doing. No handler gets far: its ports raise it again."""


class Process:
    """A program that can die. What was running in it sees nothing of the world any more."""

    def __init__(self, name: str, on_death: Callable[[], None]) -> None:
        self.name = name
        self.alive = True
        self._on_death = on_death

    async def turn(self) -> None:
        """Lets others go first."""
        await TURN
        if not self.alive:
            raise Crashed

    def die(self) -> None:
        """Ends it, once, and tells who restarts it."""
        if self.alive:
            self.alive = False
            self._on_death()


class Port:
    """The store as one process sees it. See `deltaplane.store.port.Store` for the calls."""

    def __init__(self, process: Process, backend: Backend, faults: Faults, loop: Loop) -> None:
        self._process = process
        self._backend = backend
        self._faults = faults
        self._loop = loop

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        await self._read()
        return self._backend.get_many((key,))[0][0]

    async def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        await self._read()
        return self._backend.get_many(keys)

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        await self._read()
        return self._backend.list(prefix)

    async def page(
        self, prefix: str, *, limit: int, start_key: str = "", revision: int = 0
    ) -> Page:
        await self._read()
        return self._backend.page(prefix, limit=limit, start_key=start_key, revision=0)

    async def head(self) -> int:
        await self._read()
        return self._backend.head()

    async def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed:
        await self._process.turn()
        match self._faults.next(Point.WRITE):
            case Fate.LOST:
                raise Unavailable("the write was lost")
            case Fate.LATE:
                self._loop.create_task(self._later(compares, operations))
                raise Unavailable("the write has not been answered")
            case Fate.CRASH_BEFORE:
                self._process.die()
                raise Crashed
            case Fate.ANSWER_LOST:
                self._backend.transact(compares, operations)
                raise Unavailable("the answer was lost")
            case Fate.CRASH_AFTER:
                self._backend.transact(compares, operations)
                self._process.die()
                raise Crashed
            case _:
                return self._backend.transact(compares, operations)

    async def transact_parts(self, parts: Sequence[Part]) -> CommittedParts:
        raise NotImplementedError  # stories register one endpoint at a time

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[WatchBatch]:
        raise NotImplementedError

    async def grant_lease(self, ttl_seconds: int) -> int:
        await self._read()
        return 0  # runs are too short for a lease to end

    async def keep_alive(self, lease: int) -> bool:
        raise NotImplementedError

    async def revoke_lease(self, lease: int) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to end."""

    async def _read(self) -> None:
        await self._process.turn()
        fate = self._faults.next(Point.READ)
        if fate is Fate.LOST:
            raise Unavailable("the read was lost")
        if fate is Fate.CRASH_BEFORE:
            self._process.die()
            raise Crashed

    async def _later(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
        await delay()
        self._backend.transact(compares, operations)


async def delay() -> None:
    """Some pauses."""
    longest = LATE_TURNS[int(random.random() * len(LATE_TURNS))]
    for _ in range(int(random.random() * longest)):
        await TURN


class Network:
    """Brings requests to services. A request that has arrived lives without the one who sent it."""

    def __init__(self, faults: Faults, loop: Loop) -> None:
        self._faults = faults
        self._loop = loop

    async def call(
        self,
        caller: Process,
        replicas: Sequence[R],
        work: Callable[[R], Coroutine[Any, Any, T]],
    ) -> T:
        """Has one of the replicas do something; raises what it raises, or Unavailable."""
        await caller.turn()
        fate = self._faults.next(Point.CALL)
        if fate is Fate.LOST:
            raise Unavailable("the request was lost")
        chosen = int(random.random() * len(replicas))
        if fate is Fate.TWICE:
            other = replicas[(chosen + 1) % len(replicas)]
            self._loop.create_task(_serve(work, other, None, wait=False))
        answer = None if fate is Fate.LATE else self._loop.create_future()
        self._loop.create_task(_serve(work, replicas[chosen], answer, wait=fate is Fate.LATE))
        if answer is None:
            raise Unavailable("the request has not been answered")
        try:
            result: T = await answer
        finally:
            if not caller.alive:
                raise Crashed
        if fate is Fate.ANSWER_LOST:
            raise Unavailable("the answer was lost")
        return result


async def _serve(
    work: Callable[[R], Coroutine[Any, Any, T]],
    replica: R,
    answer: asyncio.Future[T] | None,
    *,
    wait: bool,
) -> None:
    if wait:
        await delay()
    try:
        result = await work(replica)
    except Crashed:
        if answer is not None and not answer.done():
            answer.set_exception(Unavailable("the service died"))
    except DeltaplaneError as error:
        if answer is not None and not answer.done():
            answer.set_exception(error)
    else:
        if answer is not None and not answer.done():
            answer.set_result(result)

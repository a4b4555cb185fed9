"""Writes the registry, round by round, while this replica leads.

Calls of one round run together, rounds one after another: no object is under way twice, and what is
listed between two rounds shows the effect of the first and nothing of the second.
"""

import asyncio
import operator
import random
from collections.abc import Awaitable, Callable
from time import perf_counter

from deltaplane.errors import DeltaplaneError, Unavailable
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from services.kubernetes import metrics, wire
from services.kubernetes.api.backoff import Backoff, Pauses
from services.kubernetes.books import Books
from services.kubernetes.kinds import POLICIES, Kind
from services.kubernetes.ledger import Batch
from services.kubernetes.problems import Problems
from services.kubernetes.repository import Repository

ROUND_SECONDS = 0.05
"""From the beginning of a round to that of the next: changes that come close together are one call,
and one that comes alone does not wait."""

LOOK_SECONDS = 1.0
"""How often it looks again at what may not be written yet."""

AUDIT_SECONDS = 300.0
"""How often the registry is listed again: somebody else may have written it, or restored it."""

_LISTED = (Kind.NAMESPACE, Kind.POD, Kind.SERVICE, Kind.ENDPOINT_SLICE)
_PAUSES = Pauses(first=0.1, longest=5.0)


class Writer:
    """Makes the registry agree with the books."""

    def __init__(
        self,
        books: Books,
        repository: Repository,
        clock: Clock,
        *,
        problems: Problems,
        may_write: Callable[[], bool],
        wake: asyncio.Event,
        audit_seconds: float = AUDIT_SECONDS,
    ) -> None:
        """Makes one.

        Args:
            books: what is wanted, and what is stored.
            repository: the registry.
            clock: where the time comes from.
            problems: what the registry does not take is written there.
            may_write: asked before each round.
            wake: set when the books have changed.
            audit_seconds: how often the registry is listed again.
        """
        self._books = books
        self._repository = repository
        self._clock = clock
        self._problems = problems
        self._may_write = may_write
        self._audit_seconds = audit_seconds
        self._backoff = Backoff(_PAUSES, random.random)
        self._wake = wake

    async def run(self) -> None:
        """Lists the registry, then writes until it is cancelled."""
        while self._may_write():
            await self._insist(self.adopt)
            audit_at = self._clock.now() + self._audit_seconds
            while self._may_write() and (left := audit_at - self._clock.now()) > 0:
                await self._round(left)

    async def adopt(self) -> None:
        """Lists what the registry holds."""
        for kind in _LISTED:
            self._books[kind].adopt(await self._repository.records(kind))
        for kind, records in (await self._repository.policies()).items():
            same = operator.eq if kind is Kind.NETWORK_POLICY else wire.same_policy
            self._books[kind].adopt(records, same)
        for kind in (*_LISTED, *POLICIES):
            if (sweep := self._books[kind].sweep) is not None:
                log.get().warning(
                    "sweep_held", kind=kind.word, entries=sweep.entries, held=sweep.held
                )

    async def _round(self, longest: float) -> None:
        started = self._clock.now()
        batches = self._books.plan(started)
        if not batches:
            await self._wait(longest)
            return
        measured = perf_counter()
        outcomes = await asyncio.gather(*(self._write(kind, batch) for kind, batch in batches))
        metrics.ROUND_SECONDS.observe(perf_counter() - measured)
        if all(outcomes):
            self._backoff.succeeded()
            await asyncio.sleep(max(0.0, started + ROUND_SECONDS - self._clock.now()))
        else:
            await asyncio.sleep(self._backoff.failed())

    async def _write(self, kind: Kind, batch: Batch) -> bool:
        """False: the registry could not be reached."""
        ledger = self._books[kind]
        try:
            await self._repository.write(kind, batch)
        except Unavailable as error:
            ledger.undone(batch)
            log.get().warning("registry_away", kind=kind.word, reason=str(error))
            metrics.CALLS.labels(kind.word, "unavailable").inc()
            return False
        except DeltaplaneError as error:
            key = ledger.refuse(batch, str(error), self._clock.now())
            metrics.CALLS.labels(kind.word, "refused").inc()
            if key is not None:
                log.get().warning("refused", kind=kind.word, object=key, reason=str(error))
                uid = item.uid if (item := ledger.wanted.get(key)) else ""
                self._problems.report(kind, key, uid, f"the registry does not take it: {error}")
            return True
        except BaseException:
            # Leadership may come back, and then nobody knows what became of the batch.
            ledger.undone(batch)
            raise
        self._problems.forget(kind, ledger.refused.keys() & set(batch.keys))
        self._books.done(kind, batch)
        metrics.CALLS.labels(kind.word, "done").inc()
        change = "removed" if batch.deletes else "applied"
        metrics.WRITTEN.labels(kind.word, change).inc(len(batch.keys))
        return True

    async def _wait(self, longest: float) -> None:
        due = self._books.due(self._clock.now())
        # 0: something is in the queue that may not go yet. It is looked at when something changes,
        # or as often as there may be something to try again.
        pause = min(longest, LOOK_SECONDS if due == 0 else longest if due is None else due)
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def _insist(self, call: Callable[[], Awaitable[None]]) -> None:
        """Until it succeeds: a registry that is away comes back."""
        while self._may_write():
            try:
                await call()
            except DeltaplaneError as error:
                log.get().warning("registry_away", reason=str(error))
                await asyncio.sleep(self._backoff.failed())
            else:
                self._backoff.succeeded()
                return

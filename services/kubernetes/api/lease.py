"""One of several processes works at a time: the I/O around `leading`.

    leader = Leader(client, namespace="deltaplane", name="deltaplane-bridge", identity=identity)
    await leader.run(work)      # work(term) runs while we lead, and is cancelled when we do not

Work checks `leader.holds()` before each write that must not come from two processes: a process may
sleep for a minute between any two lines and not know.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine

from deltaplane.errors import Conflict, DeltaplaneError, NotFound
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock, SystemClock
from services.kubernetes.api.client import Client
from services.kubernetes.api.leading import Create, Election, LeaseTimes, Read, Replace, Wait
from services.kubernetes.api.resource import LEASES
from services.kubernetes.api.types import Lease

Work = Callable[[int], Coroutine[None, None, None]]
"""What a leader does; takes the term, a number that grows with every change of leaders."""


class Leader:
    """A candidate for one Lease."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        clock: Clock | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Does nothing before `run`.

        Args:
            client: of the server.
            namespace: of the Lease.
            name: of the Lease.
            identity: of this process; two that live at the same time never have the same.
            times: None: the defaults.
            clock: None: the machine's.
            pause: waits that many seconds of that clock.
            chance: gives numbers in [0, 1).
        """
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._clock = clock or SystemClock()
        self._pause = pause
        self._election = Election(name, identity, chance, self._times)
        self._changed = asyncio.Condition()

    def holds(self) -> bool:
        """We lead, for sure, at this moment."""
        return self._election.holds(self._clock.now())

    @property
    def holder(self) -> str:
        """Who leads, as far as we know; empty: nobody."""
        return self._election.holder

    @property
    def term(self) -> int:
        """Number of changes of leaders so far."""
        return self._election.term

    async def run(self, work: Work) -> None:
        """Waits until we lead, works, and begins anew when we lead no more.

        Ends when the work ends or raises, or when it is cancelled; the Lease is released then.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                campaign = tasks.create_task(self._campaign())
                while not await self._lead_once(work):
                    pass
                campaign.cancel()
        finally:
            # Not in this task: in a cancelled one a timeout looks like being cancelled (3.11).
            await asyncio.create_task(self._release())

    async def _lead_once(self, work: Work) -> bool:
        """One term of ours; True if the work came to its end."""
        async with self._changed:
            await self._changed.wait_for(self.holds)
        term = self.term
        log.get().info("lease_acquired", name=self._name, term=term)
        # A group waits for its tasks, whatever happens: the Lease is not released under the work.
        async with asyncio.TaskGroup() as tasks:
            working, losing = tasks.create_task(work(term)), tasks.create_task(self._lost())
            await asyncio.wait({working, losing}, return_when=asyncio.FIRST_COMPLETED)
            ended = working.done()
            working.cancel()
            losing.cancel()
        if not ended:
            log.get().warning("lease_lost", name=self._name, term=term, holder=self.holder)
        return ended

    async def _lost(self) -> None:
        async with self._changed:
            while (seconds := self._election.seconds_left(self._clock.now())) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()

    async def _campaign(self) -> None:
        while True:
            began = self._clock.now()
            step = self._election.next(began, self._clock.wall_ns())
            if isinstance(step, Wait):
                await self._pause(step.seconds)
                continue
            try:
                # Two tries before what we hold is over.
                async with asyncio.timeout(self._times.renew / 2):
                    await self._do(step, began)
            except (DeltaplaneError, TimeoutError) as error:
                self._election.failed(conflict=isinstance(error, Conflict | NotFound))
                log.get().info("lease_try_failed", name=self._name, reason=str(error))
            async with self._changed:
                self._changed.notify_all()

    async def _do(self, step: Read | Create | Replace, began: float) -> None:
        match step:
            case Read():
                self._election.saw(await self._read(), self._clock.now())
            case Create():
                made = await self._client.create(
                    LEASES, step.body, Lease, namespace=self._namespace
                )
                self._election.wrote(made, began=began)
            case Replace():
                self._election.wrote(await self._replace(step), began=began)

    async def _read(self) -> Lease | None:
        try:
            return await self._client.get(LEASES, self._name, Lease, namespace=self._namespace)
        except NotFound:
            return None

    async def _replace(self, step: Replace) -> Lease:
        return await self._client.update(
            LEASES, self._name, step.body, Lease, namespace=self._namespace
        )

    async def _release(self) -> None:
        try:
            # Also when we are cancelled: who waits for us gains a whole lease by it.
            async with asyncio.timeout(self._times.renew / 2):
                while step := self._election.release(self._clock.wall_ns()):
                    try:
                        await self._replace(step)
                    except Conflict:
                        # By a write of ours that was under way when we were told to end.
                        self._election.saw(await self._read(), self._clock.now())
                    else:
                        log.get().info("lease_released", name=self._name)
                        return
        except (DeltaplaneError, TimeoutError) as error:
            log.get().info("lease_not_released", name=self._name, reason=str(error))

"""How an interface goes: DEL, an ADD that came to nothing, and what is left of either.

The interface is closed, then its link goes, then its registration, then its addresses wait until
every node knows that. The journal's entry goes last.
"""

import asyncio
from collections.abc import Awaitable, Callable

from deltaplane.errors import Conflict, DeltaplaneError, NotFound, Refused, Unavailable
from deltaplane.runtime import log
from nodeagent.cni.netconf import Attachment
from nodeagent.entries import InterfaceRecord, Kind, State
from nodeagent.workplace import Workplace

RETRY_SECONDS = (1.0, 30.0)
"""First and longest pause between attempts to release what the registry still holds."""


class Releases:
    """The releases of this node, and those that had to be postponed."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._pending = asyncio.Event()

    def postpone(self) -> None:
        """Something is RELEASING that nobody works on."""
        self._pending.set()

    async def delete(self, attachment: Attachment) -> None:
        """Removes an interface; an unknown one is fine.

        With the registry away the rest follows later.
        """
        async with self._place.alone(attachment):
            record = self._place.journal.find(attachment)
            if record is None:
                return
            # Once this is written, the interface goes whatever happens to the caller.
            await self._place.writer.call(self._place.journal.retire, record.number)
            try:
                await self._release(record)
            except DeltaplaneError as error:
                log.get().warning("release_postponed", number=record.number, reason=str(error))
                self.postpone()

    async def retire(self, attachment: Attachment) -> None:
        """Makes durable that an interface goes, and leaves the rest to `run`.

        An unknown one is fine.
        """
        async with self._place.alone(attachment):
            record = self._place.journal.find(attachment)
            if record is not None:
                await self._place.writer.call(self._place.journal.retire, record.number)
                self.postpone()

    async def undo(self, record: InterfaceRecord) -> None:
        """Takes back a half-made interface; what the registry holds may go later."""
        try:
            await self._place.writer.call(self._place.journal.retire, record.number)
            await self._release(record)
        except (DeltaplaneError, OSError) as error:
            log.get().warning("release_postponed", number=record.number, reason=str(error))
            self.postpone()

    async def _release(self, record: InterfaceRecord) -> None:
        """Undoes a RELEASING interface; may be repeated.

        Raises:
            DeltaplaneError: the registry could not be told.
            OSError: the link could not be removed.
        """
        await self._take_off(record)
        await self._unregister(record)

    async def _take_off(self, record: InterfaceRecord) -> None:
        """Nothing passes any more, and the link is gone. A foreign link of that name stays."""
        if record.kind is Kind.POD:
            await self._place.balancing.withdraw(record.number)
            await self._place.applier.detach(record.number)
            await self._place.links.remove(self._place.link(record))

    async def _unregister(self, record: InterfaceRecord) -> None:
        """The last steps: nobody has the addresses any more."""
        # Asked before: should the stream change to another store meanwhile, the answer is not of
        # that.
        lineage, revision = self._place.lineage(), 0
        try:
            if record.is_registered:
                revision = await self._place.control.release([record], self._place.node)
        except (Conflict, NotFound, Refused) as error:
            # This node is not registered any more: what it had went with it, nobody says when.
            log.get().warning("release_refused", number=record.number, reason=str(error))
            lineage, revision = b"", self._place.journal.ledger.progress.head
        await self._place.writer.call(
            self._place.journal.erase,
            record.number,
            revision=revision,
            lineage=lineage,
            now=self._place.clock.wall_ns() / 1e9,
        )
        self._place.blocks.changed()

    async def run(self) -> None:
        """Finishes postponed releases, for ever."""
        pause, longest = RETRY_SECONDS
        while True:
            pending = [
                record
                for record in self._place.journal.interfaces.values()
                if record.state is State.RELEASING
            ]
            # What can be done here is done for all, also while the registry is away.
            failures = await self._each(pending, self._take_off)
            failures += await self._each(pending, self._unregister, gives_up=True)
            if failures:
                reason = str(failures[0])
                log.get().info("release_failed", pending=len(pending), reason=reason)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                continue
            pause = RETRY_SECONDS[0]
            await self._pending.wait()
            self._pending.clear()

    async def _each(
        self,
        records: list[InterfaceRecord],
        work: Callable[[InterfaceRecord], Awaitable[None]],
        *,
        gives_up: bool = False,
    ) -> list[Exception]:
        """Does something with each, also after a failure, unless somebody is away; what failed."""
        failures: list[Exception] = []
        for record in records:
            async with self._place.alone(record.attachment):
                # The call that retired it may have finished it meanwhile.
                if record.number not in self._place.journal.interfaces:
                    continue
                try:
                    await work(record)
                except (DeltaplaneError, OSError) as error:
                    failures.append(error)
                    if gives_up and isinstance(error, Unavailable):
                        break
        return failures

"""What a start does with the interfaces that are there, and what a repair does with one."""

import asyncio
from collections.abc import Awaitable, Callable

from deltaplane.errors import DeltaplaneError, Internal, Refused, Unavailable
from deltaplane.runtime import log
from nodeagent.control import Wanted
from nodeagent.entries import InterfaceRecord, Kind, State
from nodeagent.ledger import strays
from nodeagent.netlink.links import PodLink
from nodeagent.releases import Releases
from nodeagent.workplace import Workplace, local_interface

RETRY_SECONDS = (0.5, 10.0)
"""First and longest pause between attempts to register again what a restart has found."""


class Resuming:
    """Makes journal, links, data path and registry agree on the interfaces of this node."""

    def __init__(self, place: Workplace, releases: Releases) -> None:
        self._place = place
        self._releases = releases

    async def resume(self) -> None:
        """After a start: retires half-made interfaces, adopts whole ones, removes other links."""
        present = await self._place.links.ours(self._place.node.uid)
        for record in list(self._place.journal.interfaces.values()):
            if record.state is State.ALLOCATING:
                await self._place.writer.call(self._place.journal.retire, record.number)
                continue
            if record.kind is not Kind.POD:
                continue
            link = self._place.link(record)
            ifindex = present.pop(link.host_name, None)
            if record.state is State.READY and ifindex is not None:
                await self._place.applier.attach(local_interface(record, link, ifindex))
                await self._place.balancing.expose(
                    record.number, record.addresses, record.host_ports
                )
        records = self._place.journal.interfaces.values()
        known = {self._place.link(record).host_name for record in records}
        for name in present.keys() - known:
            log.get().warning("orphaned_link_removed", link=name)
            await self._place.links.delete(name)
        self._releases.postpone()

    async def remove_strangers(self) -> None:
        """Removes links that an agent of another UID has left in this namespace.

        Called after the registration: that only works once the old node is deleted, and then its
        addresses are nobody's any more.
        """
        for name in await self._place.links.strangers(self._place.node.uid):
            try:
                await self._place.links.delete(name)
            except OSError as error:
                log.get().error("strange_link_left", link=name, reason=str(error))
            else:
                log.get().warning("strange_link_removed", link=name)

    async def close_strays(self) -> None:
        """Closes interfaces whose addresses are not this node's any more, for good."""
        for number in strays(self._place.journal.ledger):
            record = self._place.journal.interfaces[number]
            async with self._place.alone(record.attachment):
                now = self._place.journal.interfaces.get(number)
                if now is None or now.state is not State.READY:
                    continue
                await self._place.writer.call(self._place.journal.lose, number)
                await self._place.balancing.withdraw(number)
                await self._place.applier.detach(number)
                log.get().error(
                    "interface_lost",
                    number=number,
                    pod=f"{record.pod.namespace}/{record.pod.name}",
                    addresses=str(record.addresses),
                )

    async def register_again(self) -> None:
        """Tells the registry about every interface that is ready, for as long as it takes.

        It may have lost some with the node.
        """
        pending = {
            record.number: record
            for record in self._place.journal.interfaces.values()
            if record.state is State.READY and record.is_registered
        }
        pause, longest = RETRY_SECONDS
        while True:
            try:
                for number, record in list(pending.items()):
                    await self._register_again(record)
                    del pending[number]
            except (Unavailable, Internal) as error:
                log.get().warning("registration_postponed", pending=len(pending), reason=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                return

    async def _register_again(self, record: InterfaceRecord) -> None:
        """Raises Unavailable or Internal when it is worth another attempt."""
        # In turn with DEL: registered after its release, the interface would stay for ever.
        async with self._place.alone(record.attachment):
            now = self._place.journal.interfaces.get(record.number)
            if now is None or now.state is not State.READY:
                return
            try:
                found = await self._place.control.register(record, self._place.node)
            except (Unavailable, Internal):
                raise
            except DeltaplaneError as error:
                log.get().warning(
                    "interface_not_registered", number=record.number, reason=str(error)
                )
                return
            if isinstance(found, Wanted):
                log.get().warning("interface_not_as_wanted", number=record.number, wish=found.wish)
                return
            await self._place.applier.registered(record.number, found.identity, found.revision)

    async def mend(self, number: int, restore: Callable[[PodLink], Awaitable[None]]) -> None:
        """Registers a working interface, and restores what the node knows of its link.

        Nothing happens for one that does not work any more.

        Raises:
            DeltaplaneError: the registry refuses it, wants other addresses, or is away.
            OSError: what restores it fails.
        """
        record = self._place.journal.interfaces.get(number)
        if record is None:
            return
        # In turn with DEL, as `_register_again`.
        async with self._place.alone(record.attachment):
            now = self._place.journal.interfaces.get(number)
            if now is None or now.state is not State.READY:
                return
            await restore(self._place.link(now))
            found = await self._place.control.register(now, self._place.node)
            if isinstance(found, Wanted):
                raise Refused(f"the pod asks for other addresses: {found.wish}")
            await self._place.applier.registered(number, found.identity, found.revision)

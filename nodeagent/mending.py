"""What the agent puts right when `deltaplane ipam check` asks for it.

Whoever asks may be late: everything is looked at again here, and nothing happens where nothing is
wrong.
"""

from deltaplane.errors import Conflict, Refused, Unavailable
from deltaplane.model.addresses import Prefix
from deltaplane.runtime import log
from nodeagent.apply import Applier
from nodeagent.balancing import Balancing
from nodeagent.blocks import Blocks
from nodeagent.control import NodeFacts
from nodeagent.journal import Journal
from nodeagent.netlink.addresses import AddressTable, MarkedLink
from nodeagent.netlink.links import PodLink
from nodeagent.pods import PodLinks
from nodeagent.resuming import Resuming
from nodeagent.worker import Worker


class Mender:
    """Repairs of one node. worker: the thread of the table."""

    def __init__(
        self,
        *,
        node: NodeFacts,
        journal: Journal,
        resuming: Resuming,
        blocks: Blocks,
        applier: Applier,
        balancing: Balancing,
        links: PodLinks,
        table: AddressTable,
        worker: Worker,
    ) -> None:
        self._node = node
        self._journal = journal
        self._resuming = resuming
        self._blocks = blocks
        self._applier = applier
        self._balancing = balancing
        self._links = links
        self._table = table
        self._worker = worker

    async def interface(self, number: int) -> None:
        """Registers a working interface, and makes its routes.

        Raises:
            DeltaplaneError: the registry refuses it, or is away.
            OSError: the kernel refuses the routes.
        """
        await self._resuming.mend(number, self._restore)

    async def _restore(self, link: PodLink) -> None:
        await self._worker.call(self._table.restore, link)

    async def link(self, name: str) -> None:
        """Removes a link with our mark whose interface the journal does not have.

        Numbers are never given twice, so none will have it later.

        Raises:
            Conflict: an interface of the journal has it.
            OSError: the kernel refuses.
        """
        found = next((link for link in await self._marked() if link.name == name), None)
        if found is None:
            return
        if found.number in self._journal.interfaces:
            raise Conflict(f"link {name} belongs to interface {found.number}")
        log.get().warning("orphaned_link_removed", link=name)
        await self._links.delete(name)

    async def route(self, prefix: Prefix) -> None:
        """Removes routes to a single address over links whose interfaces do not hold it.

        Raises:
            Refused: the prefix is no single address.
            OSError: the kernel refuses.
        """
        if prefix.size != 1:
            raise Refused(f"{prefix} is no single address")
        numbers = {link.index: link.number for link in await self._marked()}
        for route in await self._worker.call(self._table.routes):
            if route.prefix != prefix or route.index not in numbers:
                continue
            holder = self._journal.interfaces.get(numbers[route.index])
            if holder is None or prefix.address not in holder.addresses:
                log.get().warning("stray_route_removed", route=str(prefix), link=route.index)
                # Over this very link: another interface may get the address meanwhile.
                await self._worker.call(self._table.delete_route, prefix, route.index)

    async def data_path(self) -> None:
        """Reads the data path and the block routes back, and makes them what they should be.

        Services, too.
        """
        await self._applier.reread()
        await self._balancing.reread()

    async def blocks(self) -> None:
        """Makes the journal's blocks those that this node owns, and closes what is lost.

        Raises:
            Unavailable: the node is not registered yet, or ipam is away.
        """
        index = self._applier.tracker.node_index
        if not index:
            raise Unavailable("the node is not registered yet")
        await self._blocks.reconcile(index)
        await self._resuming.close_strays()

    async def _marked(self) -> tuple[MarkedLink, ...]:
        return await self._worker.call(self._table.links, self._node.uid)

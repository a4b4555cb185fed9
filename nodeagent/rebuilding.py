"""Finds out what this node had when its journal is new: from the registry, ipam, links, and maps.

On the first start of a node that is nothing.
"""

import contextlib
from dataclasses import replace

from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from nodeagent.addressing import Block
from nodeagent.balancing import Balancing
from nodeagent.blocks import ordinal_of
from nodeagent.control import ControlPlane, NodeFacts
from nodeagent.journal import Journal
from nodeagent.netlink.links import NAME_PREFIX
from nodeagent.pods import PodLinks
from nodeagent.restoring import rebuild
from nodeagent.worker import Worker

SPARE_NUMBERS = 65_536
"""Numbers above the highest known that may have been given: more than a node has ADDs in flight."""


class Rebuilding:
    """Fills a new journal. `run` may be repeated until it returns."""

    def __init__(
        self,
        *,
        journal: Journal,
        writer: Worker,
        control: ControlPlane,
        links: PodLinks,
        balancing: Balancing,
        node: NodeFacts,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._control = control
        self._links = links
        self._balancing = balancing
        self._node = node
        self._clock = clock

    async def run(self, index: int) -> None:
        """Asks everybody, then writes all of it at once.

        Raises:
            DeltaplaneError: a service does not answer.
        """
        found = await self._control.interfaces(self._node, index)
        listing = await self._control.blocks(self._node, index)
        links = await self._links.ours(self._node.uid)
        # Nobody else knows them: the runtime says so once, in ADD.
        ports = await self._balancing.recall()
        records = [replace(one, host_ports=ports.get(one.number, ())) for one in found]
        blocks = [
            Block(ordinal=ordinal, pool=block.pool, prefix=block.prefix, fixed=block.fixed)
            for ordinal, block in enumerate(listing.blocks, 1)
        ]
        numbers = max([record.number for record in records] + _numbers(links), default=0)
        ordinals = max(
            [len(blocks)] + [ordinal_of(block.request_id) for block in listing.blocks], default=0
        )
        if records or blocks or links:
            numbers, ordinals = numbers + SPARE_NUMBERS, ordinals + SPARE_NUMBERS
            log.get().warning(
                "journal_rebuilt", interfaces=len(records), blocks=len(blocks), links=len(links)
            )
        step = rebuild(
            self._journal.ledger,
            records,
            blocks,
            numbers=numbers,
            ordinals=ordinals,
            revision=listing.revision,
            now=self._clock.wall_ns() / 1e9,
        )
        await self._writer.call(self._journal.apply, step)


def _numbers(links: dict[str, int]) -> list[int]:
    """Endpoint numbers in the names of links."""
    found = []
    for name in links:
        with contextlib.suppress(ValueError):
            found.append(int(name.removeprefix(NAME_PREFIX), 16))
    return found

"""What the parts of an interface's life work with, and whose turn it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from deltaplane.runtime.clock import Clock
from nodeagent.apply import Applier
from nodeagent.balancing import Balancing
from nodeagent.blocks import Blocks
from nodeagent.cni.netconf import Attachment
from nodeagent.control import ControlPlane, NodeFacts
from nodeagent.entries import InterfaceRecord
from nodeagent.journal import Journal
from nodeagent.netlink.links import PodLink
from nodeagent.pods import PodLinks
from nodeagent.state import LocalInterface
from nodeagent.worker import Worker


@dataclass(slots=True)
class _Turn:
    """A lock and how many hold it or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """One node's.

    Attributes:
        writer: the journal's thread.
        mtu: of pods' links, bytes.
        lineage: of the store that the services work on, as far as is known; else empty.
    """

    journal: Journal
    writer: Worker
    links: PodLinks
    applier: Applier
    balancing: Balancing
    blocks: Blocks
    control: ControlPlane
    node: NodeFacts
    mtu: int
    lineage: Callable[[], bytes]
    clock: Clock
    _turns: dict[Attachment, _Turn] = field(default_factory=dict, init=False)

    @contextlib.asynccontextmanager
    async def alone(self, attachment: Attachment) -> AsyncIterator[None]:
        """One at a time for one attachment."""
        turn = self._turns.setdefault(attachment, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[attachment]

    def link(self, record: InterfaceRecord) -> PodLink:
        """The link that an interface has, or had."""
        return PodLink(
            number=record.number,
            node_uid=self.node.uid,
            ifname=record.attachment.ifname,
            addresses=record.addresses,
            mtu=self.mtu,
        )


def local_interface(record: InterfaceRecord, link: PodLink, ifindex: int) -> LocalInterface:
    """What the data path has to know of an interface."""
    return LocalInterface(
        number=record.number,
        ifindex=ifindex,
        addresses=record.addresses,
        pod_mac=link.pod_mac,
        host_mac=link.host_mac,
    )

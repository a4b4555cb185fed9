"""One agent without its sockets, on fakes of everything outside."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deltaplane.model.objects import StreamObject
from deltaplane.runtime.clock import SystemClock
from nodeagent.apply import Applier
from nodeagent.balancing import Balancing
from nodeagent.blocks import Blocks
from nodeagent.cni.netconf import Attachment, Call, PodName
from nodeagent.control import NodeFacts, Registration
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.interfaces import Interfaces
from nodeagent.journal import Journal
from nodeagent.knowledge import Knowledge
from nodeagent.releases import Releases
from nodeagent.resuming import Resuming
from nodeagent.tables import best_fill
from nodeagent.worker import Worker
from nodeagent.workplace import Workplace
from tests.unit.nodeagent.worlds import (
    LINEAGE,
    OWN,
    FakeControl,
    FakeLinks,
    FakeRoutes,
    Stream,
    node,
    open_policy,
    pair,
)

FACTS = NodeFacts(name="n1", uid="u1", addresses=pair("192.0.2.1"), boot_id="b")
POD = PodName(namespace="shop", name="web", uid="u")


def call(container: str = "c1") -> Call:
    return Call(
        command="ADD",
        version="1.1.0",
        attachment=Attachment(network="net", container_id=container, ifname="eth0"),
        netns="/run/netns/x",
        pod=POD,
        valid_attachments=None,
    )


@dataclass
class Plane:
    """One agent without its sockets."""

    interfaces: Interfaces
    releases: Releases
    resuming: Resuming
    journal: Journal
    links: FakeLinks
    control: FakeControl
    dataplane: FakeDataPlane
    applier: Applier
    balancing: Balancing
    blocks: Blocks
    knowledge: Knowledge
    stream: Stream

    async def show(self, *objects: StreamObject, watermark: int = 0) -> None:
        """A barrier with the pools and these objects."""
        everything = (*self.control.known.values(), *objects)
        self.stream.revision = max(self.stream.revision, watermark)
        reached = self.stream.barrier(*everything, watermark=watermark)
        await self.applier.barrier(reached)
        await self.knowledge.take(reached, own_index=OWN)
        self.blocks.progressed()

    def nothing_is_left(self) -> None:
        assert not self.journal.interfaces
        assert not self.links.links
        assert not self.control.registered
        assert not self.dataplane.dump().local_endpoints


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Plane]:
    """Yields one that runs, its journal in a directory; it knows its own node and one identity."""
    journal, control, links = Journal(directory / "journal.db"), FakeControl(), FakeLinks()
    dataplane, worker, writer = FakeDataPlane(), Worker("kernel"), Worker("journal")
    applier = Applier(dataplane, FakeRoutes(), worker)
    applier.tracker.node_index = OWN
    balancing = Balancing(
        dataplane, worker, node=FACTS.name, own=FACTS.addresses, zone="", fill=best_fill()
    )
    await applier.load()
    clock = SystemClock()
    blocks = Blocks(
        journal, writer, control, FACTS, chosen=frozenset(), lineage=lambda: LINEAGE, clock=clock
    )
    place = Workplace(
        journal=journal,
        writer=writer,
        links=links,
        applier=applier,
        balancing=balancing,
        blocks=blocks,
        control=control,
        node=FACTS,
        mtu=1400,
        lineage=lambda: LINEAGE,
        clock=clock,
    )
    going = Releases(place)
    knowledge = Knowledge(journal, writer, only_strict=False, clock=clock)
    made = Plane(
        Interfaces(place, going),
        going,
        Resuming(place, going),
        journal,
        links,
        control,
        dataplane,
        applier,
        balancing,
        blocks,
        knowledge,
        Stream(),
    )
    tasks = [
        asyncio.ensure_future(applier.run()),
        asyncio.ensure_future(going.run()),
    ]
    await made.show(node(OWN), open_policy(300))
    made.control.answer = Registration(
        identity=300, has_pod=True, revision=made.stream.revision + 100
    )
    yield made
    for task in reversed(tasks):
        task.cancel()
        await asyncio.wait([task])
    worker.close()
    writer.close()
    journal.close()


async def add(plane: Plane, container: str = "c1") -> object:
    return await plane.interfaces.add(call(container), POD, netns=0)


async def eventually(condition: Callable[[], object], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - polls with a deadline
            await asyncio.sleep(0.005)

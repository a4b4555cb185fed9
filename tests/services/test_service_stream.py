"""From a request to what an agent holds: real etcd, a real slicer and the agent's real client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from deltaplane.model.objects import BackendObject, BackendState, ServiceObject
from deltaplane.store import lineage
from deltaplane.store.etcd import EtcdStore
from deltaplane.v1 import registry_pb2 as pb
from deltaplane.v1 import service_pb2
from nodeagent.stream import ApplyResult, BarrierReached, HelloState, SlicerStream
from tests.services.plane import Plane, ok, plane
from tests.services.test_registry_services import one, service
from tests.services.test_restore import slicer

SECONDS = 30.0


@dataclass
class Agent:
    """What the last barrier showed."""

    revision: int = 0
    services: Mapping[str, ServiceObject] = field(default_factory=dict)
    backends: Mapping[bytes, BackendObject] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def apply(self, reached: BarrierReached) -> ApplyResult:
        view = reached.view
        self.revision = reached.revision
        self.services = {held.value.name: held.value for held in view.services.values()}
        self.backends = {held.value.address: held.value for held in view.backends.values()}
        self.changed.set()
        return ApplyResult()

    async def reach(self, revision: int) -> None:
        async with asyncio.timeout(SECONDS):
            while self.revision < revision:
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def following(etcd: str, sockets: Path, served: Plane) -> AsyncIterator[Agent]:
    """An agent of node-1 that follows a slicer of its own."""
    await served.node()
    socket, agent = f"unix:{sockets}/slicer", Agent()
    async with slicer(etcd, socket):
        hello = HelloState(node="node-1", node_uid=served.nodes["node-1"].uid)
        running = asyncio.create_task(SlicerStream().run([socket], hello, agent.apply))
        try:
            yield agent
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
async def world(
    etcd_store: EtcdStore, etcd: str, sockets: Path
) -> AsyncIterator[tuple[Plane, Agent]]:
    await lineage.ensure(etcd_store)
    async with (
        plane(etcd_store, sockets / "plane") as served,
        following(etcd, sockets, served) as agent,
    ):
        yield served, agent


def endpoints(name: str, *numbers: int, of: str = "web") -> service_pb2.EndpointSlice:
    """A slice of ready endpoints on node-1, in 10.244.0.0/16."""
    message = service_pb2.EndpointSlice(namespace="shop", name=name, service=of)
    message.ports.add(name="p80", number=8080)
    for number in numbers:
        message.endpoints.add(address=bytes((10, 244, *number.to_bytes(2))), node="node-1")
    return message


async def apply(served: Plane, *slices: service_pb2.EndpointSlice) -> int:
    request = pb.ApplyEndpointSlicesRequest(slices=slices)
    return (await ok(served.registry.ApplyEndpointSlices(request))).revision


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"deltaplane_slicer_{name}_total") or 0.0


async def test_one_changed_backend_of_4000_is_one_small_frame(
    world: tuple[Plane, Agent],
) -> None:
    served, agent = world
    slices = [endpoints(f"web-{n}", *range(n * 100 + 1, n * 100 + 101)) for n in range(40)]
    await apply(served, *slices)  # they come before their service
    stored = await one(served, service("web"))
    await agent.reach(stored.meta.mod_revision)
    assert len(agent.backends) == 4000
    assert agent.services["web"].cluster_ips == tuple(stored.cluster_ips)

    before = {name: counted(name) for name in ("changes", "frame_bytes")}
    slices[7].endpoints[5].not_ready = True
    slices[7].endpoints[5].terminating = True
    await agent.reach(await apply(served, slices[7]))

    states = {backend.address: backend.state for backend in agent.backends.values()}
    going = {address for address, it in states.items() if it is BackendState.TERMINATING}
    assert going == {slices[7].endpoints[5].address}
    assert counted("changes") - before["changes"] == 1
    assert 0 < counted("frame_bytes") - before["frame_bytes"] <= 256


async def test_everything_of_a_service_goes_with_it(world: tuple[Plane, Agent]) -> None:
    served, agent = world
    await apply(served, endpoints("web-1", 1, 2), endpoints("db-1", 3, of="db"))
    first = await one(served, service("web"))
    await agent.reach((await one(served, service("db"))).meta.mod_revision)
    assert {backend.service for backend in agent.backends.values()} == {1, 2}

    names = [pb.ServiceRef(namespace="shop", name="web")]
    request = pb.DeleteServicesRequest(services=names)
    await agent.reach((await ok(served.registry.DeleteServices(request))).revision)
    assert set(agent.services) == {"db"}
    assert {backend.service for backend in agent.backends.values()} == {2}

    # A service of that name that comes again is another one, and finds its slices there.
    again = await one(served, service("web"))
    await agent.reach(again.meta.mod_revision)
    assert again.number == 3 > first.number
    assert [it.service for it in agent.backends.values()].count(3) == 2


async def test_what_answers_on_no_address_is_not_there(world: tuple[Plane, Agent]) -> None:
    served, agent = world
    await apply(served, endpoints("web-1", 1))
    headless = await one(served, service("web", headless=True))
    await agent.reach(headless.meta.mod_revision)
    assert not agent.services
    assert not agent.backends
    other = service("db")
    await one(served, other)
    other.type = service_pb2.SERVICE_TYPE_EXTERNAL_NAME
    other.external_name = "db.example.com"
    await agent.reach((await one(served, other)).meta.mod_revision)
    assert not agent.services


async def test_a_node_that_registers_gives_its_backends_a_number(
    world: tuple[Plane, Agent],
) -> None:
    served, agent = world
    message = endpoints("web-1", 1)
    message.endpoints[0].node = "node-2"
    await apply(served, message)
    await agent.reach((await one(served, service("web"))).meta.mod_revision)
    assert [it.node_index for it in agent.backends.values()] == [0]
    node = await served.node("node-2")
    await agent.reach(node.meta.mod_revision)
    assert [it.node_index for it in agent.backends.values()] == [node.index]

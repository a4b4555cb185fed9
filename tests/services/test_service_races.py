"""Services that are applied and deleted on several replicas at once, and what nobody may see."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from deltaplane.errors import Exhausted, Invalid, Unavailable
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.store import keys
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import KeyValue, Store
from deltaplane.v1 import registry_pb2 as pb
from deltaplane.v1 import service_pb2
from services.endpoints.ranges import PortRange, Ranges
from tests.services.plane import Plane, ok, plane
from tests.services.test_registry_services import service

# 14 addresses and 20 node ports.
SMALL = Ranges((Prefix.parse("10.96.0.0/28"),), PortRange(30000, 30019))
NODE_PORT = service_pb2.SERVICE_TYPE_NODE_PORT


@contextlib.asynccontextmanager
async def replicas(endpoint: str, sockets: Path, count: int) -> AsyncIterator[list[Plane]]:
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in range(count):
            store = EtcdStore([endpoint])
            stack.push_async_callback(store.close)
            one = plane(store, sockets / f"r{number}", ranges=SMALL)
            made.append(await stack.enter_async_context(one))
        yield made


def taken(record: bytes) -> set[str]:
    """Pointers that a service has to have."""
    message = service_pb2.Service.FromString(record)
    ports = {keys.node_port(port.node_port) for port in message.ports if port.node_port}
    return ports | set(map(keys.cluster_ip, message.cluster_ips))


async def check(store: Store, after: int = 0) -> None:
    """At every revision after an empty store's: who has an address or node port is named by it."""
    head = await store.head()
    pointers: dict[str, bytes] = {}
    services: dict[str, bytes] = {}
    numbers: dict[int, str] = {}
    async for batch in store.watch(keys.ROOT, after=after):
        revision = 0
        for event in (*batch.events, None):
            if event is None or (revision and event.mod_revision != revision):
                wanted = {
                    name: key.encode() for key, record in services.items() for name in taken(record)
                }
                assert sum(len(taken(record)) for record in services.values()) == len(wanted)
                assert wanted == pointers, f"at revision {revision}"
            if event is None:
                break
            revision = event.mod_revision
            table = services if event.key.startswith(keys.SERVICES) else pointers
            if not event.key.startswith((keys.SERVICES, keys.CLUSTER_IPS, keys.NODE_PORTS)):
                continue
            if event.value is None:
                del table[event.key]
                continue
            table[event.key] = event.value
            if table is services:
                message = service_pb2.Service.FromString(event.value)
                owner = f"{event.key}@{event.create_revision}"
                assert numbers.setdefault(message.number, owner) == owner
        if batch.revision >= head:
            return


@pytest.mark.parametrize("seed", range(2))
async def test_two_services_never_have_one_address(
    etcd_store: EtcdStore, etcd: str, sockets: Path, seed: int
) -> None:
    start = await etcd_store.head()
    outcomes: list[str] = []

    async def client(own: Plane, chance: random.Random) -> None:
        for _ in range(12):
            names = chance.sample([f"s{number}" for number in range(12)], 2)
            if chance.random() < 0.3:
                references = [pb.ServiceRef(namespace="shop", name=name) for name in names]
                await ok(own.registry.DeleteServices(pb.DeleteServicesRequest(services=references)))
                continue
            messages = [service(name, 80, 443, kind=NODE_PORT) for name in names]
            if chance.random() < 0.4:
                messages[0].cluster_ips.append(parse_address(f"10.96.0.{chance.randrange(1, 15)}"))
            if chance.random() < 0.4:
                messages[1].ports[0].node_port = chance.randrange(30000, 30020)
            try:
                await ok(own.registry.ApplyServices(pb.ApplyServicesRequest(services=messages)))
                outcomes.append("applied")
            except (Invalid, Exhausted, Unavailable) as error:
                outcomes.append(type(error).__name__)

    async with replicas(etcd, sockets, 3) as planes:
        await asyncio.gather(
            *(client(planes[n % 3], random.Random(f"{seed}/{n}")) for n in range(6))
        )
    assert {"applied", "Invalid"} <= set(outcomes), outcomes
    await check(etcd_store, start)


async def test_an_answer_that_got_lost_gives_nothing_twice(sockets: Path) -> None:
    store = MemoryStore()
    async with plane(store, sockets / "one", ranges=SMALL) as served:
        store.lose_next_answer()
        request = pb.ApplyServicesRequest(services=[service("web", kind=NODE_PORT)])
        answer = await ok(served.registry.ApplyServices(request))
        assert answer.services[0].number == 1
    await check(store)


class Interrupted(MemoryStore):
    """Runs something once, after the next read of many keys."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], Awaitable[object]] | None = None

    async def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        found = await super().get_many(keys)
        then, self.then = self.then, None
        if then is not None:
            await then()
        return found


async def test_a_service_that_is_deleted_while_it_is_applied_leaves_nothing(sockets: Path) -> None:
    store = Interrupted()
    async with plane(store, sockets / "one", ranges=SMALL) as served:
        request = pb.ApplyServicesRequest(services=[service("web", kind=NODE_PORT)])
        await ok(served.registry.ApplyServices(request))
        services = served.repositories.services
        store.then = lambda: services.delete([("shop", "web")])
        (again,) = (await ok(served.registry.ApplyServices(request))).services
        assert again.number == 2
    await check(store)


async def test_the_last_free_address_is_found(any_store: Store, sockets: Path) -> None:
    start = await any_store.head()
    async with plane(any_store, sockets / "one", ranges=SMALL) as served:
        names = [f"s{number}" for number in range(14)]
        for name in names:
            await ok(
                served.registry.ApplyServices(pb.ApplyServicesRequest(services=[service(name)]))
            )
        with pytest.raises(Exhausted):
            await ok(
                served.registry.ApplyServices(pb.ApplyServicesRequest(services=[service("s14")]))
            )
    await check(any_store, start)

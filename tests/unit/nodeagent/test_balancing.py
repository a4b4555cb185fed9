"""The shell around the services of a node: barriers, full maps, somebody else's writes."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from deltaplane.delta.changes import Upsert
from deltaplane.delta.view import View
from deltaplane.errors import Refused
from deltaplane.model.addresses import AddressPair, from_mapped, to_mapped
from deltaplane.model.objects import BackendObject, ServiceObject
from deltaplane.model.ports import Protocol
from deltaplane.model.service import ServicePort, SlicePort
from nodeagent.balancing import Balancing
from nodeagent.cni.netconf import HostPort
from nodeagent.dataplane.balancing import Backend
from nodeagent.dataplane.config import Capacities
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.stream import BarrierReached
from nodeagent.tables import best_fill
from nodeagent.worker import Worker

OWN = AddressPair(ipv4=bytes((192, 0, 2, 1)), ipv6=b"\xfd" + bytes(14) + b"\1")


def ip(number: int) -> bytes:
    return bytes((10, 96, 0, number))


def service(number: int, *, port: int = 80) -> ServiceObject:
    return ServiceObject(
        number=number,
        namespace="default",
        name=f"s{number}",
        ports=(ServicePort(port=port),),
        cluster_ips=(ip(number),),
    )


def backend(number: int, place: int) -> BackendObject:
    return BackendObject(
        service=number, address=bytes((10, 244, number, place)), ports=(SlicePort(number=8080),)
    )


class Story:
    """A view that grows, and the node that follows it."""

    def __init__(self, plane: FakeDataPlane, worker: Worker) -> None:
        self.plane = plane
        self.balancing = Balancing(plane, worker, node="n1", own=OWN, zone="", fill=best_fill())
        self.view = View()
        self.revision = 0

    async def take(self, *values: ServiceObject | BackendObject) -> None:
        self.revision += 1
        for value in values:
            self.view.apply(Upsert(value, self.revision))
        reached = BarrierReached(
            view=self.view,
            lineage=bytes(16),
            revision=self.revision,
            changed=frozenset((value.kind, value.key) for value in values),
            complete=True,
            head_revision=self.revision,
            head_unix_ns=0,
        )
        await self.balancing.barrier(reached, 1)

    def counts(self) -> dict[int, int]:
        return {one.service: one.count for one in self.plane.balancing().frontends}


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker("kernel")
    yield made
    made.close()


async def test_a_service_without_room_keeps_what_it_has(worker: Worker) -> None:
    story = Story(FakeDataPlane(capacities=Capacities(slots=4)), worker)
    await story.take(service(1), backend(1, 1), service(2), backend(2, 1))
    await story.take(*(backend(1, place) for place in range(2, 6)))
    assert [refusal.key for refusal in story.balancing.refused] == [service(1).key]
    assert story.counts() == {1: 1, 2: 1}
    # The others go on.
    await story.take(backend(2, 2))
    assert story.counts() == {1: 1, 2: 2}


async def test_an_older_service_has_an_address(worker: Worker) -> None:
    story = Story(FakeDataPlane(), worker)
    twin = ServiceObject(
        number=2, namespace="default", name="twin", ports=service(1).ports, cluster_ips=(ip(1),)
    )
    await story.take(twin, backend(2, 1))
    await story.take(service(1))
    assert story.counts() == {1: 0}
    assert [refusal.key for refusal in story.balancing.refused] == [twin.key]


async def test_what_others_wrote_is_put_right(worker: Worker) -> None:
    story = Story(FakeDataPlane(), worker)
    await story.take(service(1), backend(1, 1))
    before = story.plane.balancing()
    story.plane.delete_slots([(slot.list_id, slot.slot) for slot in before.slots])
    await story.balancing.reread()
    assert story.plane.balancing() == before


async def test_a_barrier_that_was_held_back_is_made_good(worker: Worker) -> None:
    story = Story(FakeDataPlane(), worker)
    await story.take(service(1), backend(1, 1))
    value = backend(1, 2)
    story.view.apply(Upsert(value, 50))
    story.balancing.missed()
    await story.take(service(2))
    assert story.counts() == {1: 2, 2: 0}


HTTP = HostPort(protocol=Protocol.TCP, host_port=8080, container_port=80)


def exposed(plane: FakeDataPlane) -> set[tuple[bytes, int, Backend]]:
    """Own frontends: address, port and the backend of both kinds of clients."""
    held = plane.balancing()
    slots = {slot.list_id: slot.backend for slot in held.slots}
    found = set()
    for one in held.frontends:
        assert one.local
        assert slots[one.list_id] == slots[one.outside_list]
        found.add((from_mapped(one.key.address), one.key.port, slots[one.list_id]))
    return found


@pytest.mark.parametrize("early", [True, False])
async def test_ports_of_the_node_lead_to_a_pod(worker: Worker, *, early: bool) -> None:
    story = Story(FakeDataPlane(), worker)
    pod = AddressPair(ipv4=bytes((10, 244, 0, 9)), ipv6=None)
    if early:
        await story.balancing.expose(7, pod, (HTTP,))
        assert not exposed(story.plane)
        await story.take()
    else:
        await story.take()
        await story.balancing.expose(7, pod, (HTTP,))
    # The pod has no IPv6 address: nobody answers on the node's.
    backend = Backend(address=to_mapped(bytes((10, 244, 0, 9))), port=80)
    assert exposed(story.plane) == {(OWN.ipv4, 8080, backend)}
    await story.balancing.withdraw(7)
    assert story.plane.balancing() == FakeDataPlane().balancing()


async def test_host_ports_are_found_again_in_the_kernel(worker: Worker) -> None:
    story = Story(FakeDataPlane(), worker)
    pod = AddressPair(ipv4=bytes((10, 244, 0, 9)), ipv6=bytes(15) + b"\x09")
    only_one = AddressPair(ipv4=bytes((10, 244, 0, 8)), ipv6=None)
    elsewhere = bytes((192, 0, 2, 77))
    asked = {
        7: (HTTP, replace(HTTP, protocol=Protocol.UDP, host_address=bytes(16))),
        8: (
            replace(HTTP, host_address=elsewhere, container_port=443),
            replace(HTTP, host_address=bytes(4), host_port=8081),
        ),
    }
    await story.take()
    assert await story.balancing.recall() == {}
    await story.balancing.expose(7, pod, asked[7])
    await story.balancing.expose(8, only_one, asked[8])

    before, again = exposed(story.plane), Story(story.plane, worker)
    found = await again.balancing.recall()
    assert found == {number: tuple(sorted(ports)) for number, ports in asked.items()}
    again.view = story.view
    await again.balancing.expose(7, pod, found[7])
    await again.balancing.expose(8, only_one, found[8])
    await again.take()
    assert exposed(story.plane) == before


async def test_host_ports_without_room_are_refused(worker: Worker) -> None:
    story = Story(FakeDataPlane(capacities=Capacities(slots=2)), worker)
    await story.take(service(1), backend(1, 1))
    pod = AddressPair(ipv4=bytes((10, 244, 0, 9)), ipv6=None)
    with pytest.raises(Refused, match="no room"):
        await story.balancing.expose(7, pod, (HTTP,))
    assert story.balancing.refused == ()
    assert story.counts()[1] == 1


async def test_a_pod_with_two_families_answers_on_both(worker: Worker) -> None:
    story = Story(FakeDataPlane(), worker)
    pod = AddressPair(ipv4=bytes((10, 244, 0, 9)), ipv6=bytes(15) + b"\x09")
    await story.take()
    await story.balancing.expose(7, pod, (HTTP,))
    assert {(address, port) for address, port, _ in exposed(story.plane)} == {
        (OWN.ipv4, 8080),
        (OWN.ipv6, 8080),
    }

"""The shell around the services of a node: barriers, full maps, somebody else's writes."""

from collections.abc import AsyncIterator

import pytest

from deltaplane.delta.changes import Upsert
from deltaplane.delta.view import View
from deltaplane.model.objects import BackendObject, ServiceObject
from deltaplane.model.service import ServicePort, SlicePort
from nodeagent.balancing import Balancing
from nodeagent.dataplane.config import Capacities
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.stream import BarrierReached
from nodeagent.tables import best_fill
from nodeagent.worker import Worker


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
        self.balancing = Balancing(plane, worker, node="n1", zone="", fill=best_fill())
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

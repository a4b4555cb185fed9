"""ADD and DEL on fakes of everything outside: what is left after each kind of failure."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deltaplane.errors import Refused, Unavailable
from deltaplane.model.objects import StreamObject
from deltaplane.runtime.clock import SystemClock
from nodeagent import interfaces as module
from nodeagent.apply import Applier
from nodeagent.blocks import Blocks
from nodeagent.cni.netconf import Attachment, Call, PodName
from nodeagent.cni.result import CniError, Code
from nodeagent.control import NodeFacts, Registration
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.entries import State
from nodeagent.interfaces import Interfaces
from nodeagent.journal import Journal
from nodeagent.knowledge import Knowledge
from nodeagent.worker import Worker
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
    journal: Journal
    links: FakeLinks
    control: FakeControl
    dataplane: FakeDataPlane
    applier: Applier
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


@pytest.fixture
async def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    monkeypatch.setattr(module, "OPEN_SECONDS", 0.05)
    monkeypatch.setattr(module, "REGISTER_RETRY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(module, "RELEASE_RETRY_SECONDS", (0.01, 0.02))
    journal, control, links = Journal(tmp_path / "journal.db"), FakeControl(), FakeLinks()
    dataplane, worker, writer = FakeDataPlane(), Worker("kernel"), Worker("journal")
    applier = Applier(dataplane, FakeRoutes(), worker)
    applier.tracker.node_index = OWN
    await applier.load()
    clock = SystemClock()
    blocks = Blocks(
        journal, writer, control, FACTS, chosen=frozenset(), lineage=lambda: LINEAGE, clock=clock
    )
    interfaces = Interfaces(
        journal=journal,
        writer=writer,
        links=links,
        applier=applier,
        blocks=blocks,
        control=control,
        node=FACTS,
        mtu=1400,
        lineage=lambda: LINEAGE,
        clock=clock,
    )
    knowledge = Knowledge(journal, writer, only_strict=False, clock=clock)
    made = Plane(
        interfaces, journal, links, control, dataplane, applier, blocks, knowledge, Stream()
    )
    tasks = [
        asyncio.ensure_future(applier.run()),
        asyncio.ensure_future(interfaces.run_releases()),
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


async def test_add_leaves_an_open_interface_and_delete_nothing(plane: Plane) -> None:
    await add(plane)
    assert [r.state for r in plane.journal.interfaces.values()] == [State.READY]
    assert [e.identity for e in plane.dataplane.dump().local_endpoints] == [300]
    assert plane.dataplane.pods == [101]

    await plane.interfaces.delete(call().attachment)
    plane.nothing_is_left()
    await plane.interfaces.delete(call().attachment)


async def test_a_refused_link(plane: Plane) -> None:
    plane.links.failure = OSError(errno.EEXIST, "exists")
    with pytest.raises(CniError) as caught:
        await add(plane)
    assert caught.value.code is Code.FAILED
    plane.nothing_is_left()


@pytest.mark.parametrize(
    ("failure", "code"),
    [(Unavailable("away"), Code.TRY_AGAIN), (Refused("other UID"), Code.FAILED)],
)
async def test_a_refused_registration(plane: Plane, failure: Exception, code: Code) -> None:
    await add(plane, "first")
    plane.control.failure = failure  # type: ignore[assignment]
    with pytest.raises(CniError) as caught:
        await add(plane, "second")
    assert caught.value.code is code
    assert len(plane.links.links) == 1
    plane.control.failure = None
    await eventually(lambda: len(plane.journal.interfaces) == 1)


async def test_the_registry_away_at_delete_is_made_up_for(plane: Plane) -> None:
    await add(plane)
    plane.control.failure = Unavailable("away")
    await plane.interfaces.delete(call().attachment)
    assert not plane.links.links
    assert plane.control.registered
    # The same attachment may come again before that.
    plane.control.failure = None
    await add(plane)
    await eventually(lambda: len(plane.control.registered) == 1)
    await eventually(lambda: [r.state for r in plane.journal.interfaces.values()] == [State.READY])


async def test_a_retired_interface_goes_by_itself(plane: Plane) -> None:
    await add(plane)
    plane.control.failure = Unavailable("away")
    await plane.interfaces.retire(call().attachment)
    assert [r.state for r in plane.journal.interfaces.values()] == [State.RELEASING]
    await plane.interfaces.retire(call().attachment)
    plane.control.failure = None
    await eventually(lambda: not plane.journal.interfaces)
    plane.nothing_is_left()


async def test_a_pod_without_a_record_is_undone(plane: Plane) -> None:
    plane.control.answer = Registration(identity=5, has_pod=False, revision=1000)
    with pytest.raises(CniError, match="no pod record") as caught:
        await add(plane)
    assert caught.value.code is Code.TRY_AGAIN
    plane.nothing_is_left()


async def test_policies_that_take_too_long_leave_the_pod_closed(plane: Plane) -> None:
    plane.control.answer = Registration(identity=301, has_pod=True, revision=1000)
    await add(plane)
    assert [e.identity for e in plane.dataplane.dump().local_endpoints] == [0]
    await plane.show(node(OWN), open_policy(301))
    assert [e.identity for e in plane.dataplane.dump().local_endpoints] == [301]


async def test_addresses_run_out_and_come_back(plane: Plane) -> None:
    # Three blocks of four: an ADD that finds none claims the next.
    for number in range(12):
        await add(plane, f"c{number}")
    with pytest.raises(CniError, match="no free block") as caught:
        await add(plane, "late")
    assert caught.value.code is Code.TRY_AGAIN
    assert len(plane.journal.interfaces) == 12


async def test_add_twice_and_at_the_same_time(plane: Plane) -> None:
    results = await asyncio.gather(add(plane), add(plane), return_exceptions=True)
    assert [isinstance(result, CniError) for result in results] == [False, True]
    assert len(plane.links.links) == 1


async def test_a_caller_that_goes_away_leaves_nothing(plane: Plane) -> None:
    plane.control.answer = Registration(identity=301, has_pod=True, revision=1000)
    adding = asyncio.ensure_future(add(plane))
    await eventually(lambda: plane.links.links and plane.control.registered)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    plane.nothing_is_left()


async def test_a_restart_undoes_adopts_and_sweeps(plane: Plane) -> None:
    await add(plane)
    half = plane.journal.begin(
        Attachment(network="net", container_id="half", ifname="eth0"),
        attempt="x",
        pod=POD,
        requests=plane.blocks.requests(),
    ).record
    plane.control.registered[half.number] = half
    plane.links.links |= {f"dp{half.number:x}": 500, "dpfff": 501}

    await plane.interfaces.resume()

    await eventually(lambda: half.number not in plane.journal.interfaces)
    assert set(plane.links.links) == {"dp1"}
    assert set(plane.control.registered) == {1}
    assert [e.endpoint_id for e in plane.dataplane.dump().local_endpoints] == [1]


async def test_what_the_registry_forgot_is_registered_again(plane: Plane) -> None:
    await add(plane)
    plane.control.registered.clear()
    await plane.interfaces.register_again()
    assert set(plane.control.registered) == {1}


async def test_registering_again_waits_for_a_registry_that_went_away(plane: Plane) -> None:
    await add(plane)
    plane.control.registered.clear()
    plane.control.failure = Unavailable("away")
    again = asyncio.ensure_future(plane.interfaces.register_again())
    await eventually(lambda: plane.control.refusals >= 2)
    assert not again.done()

    plane.control.failure = None
    await asyncio.wait_for(again, 5)
    assert set(plane.control.registered) == {1}


async def test_registering_again_gives_up_what_is_refused(plane: Plane) -> None:
    await add(plane)
    plane.control.failure = Refused("no such block")
    await asyncio.wait_for(plane.interfaces.register_again(), 5)


async def test_nothing_is_registered_again_after_its_release(plane: Plane) -> None:
    await add(plane)
    plane.control.may_register.clear()
    again = asyncio.ensure_future(plane.interfaces.register_again())
    await eventually(lambda: plane.control.registering == 1)
    deleting = asyncio.ensure_future(plane.interfaces.delete(call().attachment))
    for _ in range(10):
        await asyncio.sleep(0)
    plane.control.may_register.set()
    await asyncio.gather(again, deleting)
    plane.nothing_is_left()

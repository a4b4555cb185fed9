"""ADD and DEL on fakes of everything outside: what is left after each kind of failure."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deltaplane.errors import Refused, Unavailable
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.objects import PoolObject, StreamObject
from deltaplane.runtime.clock import SystemClock
from nodeagent import interfaces as module
from nodeagent import releases, resuming
from nodeagent.apply import Applier
from nodeagent.blocks import Blocks
from nodeagent.cni.netconf import Attachment, Call, PodName
from nodeagent.cni.result import CniError, Code, Result
from nodeagent.control import NodeFacts, Registration, Wanted
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.entries import State
from nodeagent.interfaces import Interfaces
from nodeagent.journal import Journal
from nodeagent.knowledge import Knowledge
from nodeagent.pools import Wish
from nodeagent.rebuilding import SPARE_NUMBERS, Rebuilding
from nodeagent.releases import Releases
from nodeagent.restoring import check
from nodeagent.resuming import Resuming
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
    monkeypatch.setattr(resuming, "RETRY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(releases, "RETRY_SECONDS", (0.01, 0.02))
    journal, control, links = Journal(tmp_path / "journal.db"), FakeControl(), FakeLinks()
    dataplane, worker, writer = FakeDataPlane(), Worker("kernel"), Worker("journal")
    applier = Applier(dataplane, FakeRoutes(), worker)
    applier.tracker.node_index = OWN
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


async def test_add_leaves_an_open_interface_and_delete_nothing(plane: Plane) -> None:
    await add(plane)
    assert [r.state for r in plane.journal.interfaces.values()] == [State.READY]
    assert [e.identity for e in plane.dataplane.dump().local_endpoints] == [300]
    assert plane.dataplane.pods == [101]

    await plane.releases.delete(call().attachment)
    plane.nothing_is_left()
    await plane.releases.delete(call().attachment)


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
    await plane.releases.delete(call().attachment)
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
    await plane.releases.retire(call().attachment)
    assert [r.state for r in plane.journal.interfaces.values()] == [State.RELEASING]
    await plane.releases.retire(call().attachment)
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

    await plane.resuming.resume()

    await eventually(lambda: half.number not in plane.journal.interfaces)
    assert set(plane.links.links) == {"dp1"}
    assert set(plane.control.registered) == {1}
    assert [e.endpoint_id for e in plane.dataplane.dump().local_endpoints] == [1]


async def test_what_the_registry_forgot_is_registered_again(plane: Plane) -> None:
    await add(plane)
    plane.control.registered.clear()
    await plane.resuming.register_again()
    assert set(plane.control.registered) == {1}


async def test_registering_again_waits_for_a_registry_that_went_away(plane: Plane) -> None:
    await add(plane)
    plane.control.registered.clear()
    plane.control.failure = Unavailable("away")
    again = asyncio.ensure_future(plane.resuming.register_again())
    await eventually(lambda: plane.control.refusals >= 2)
    assert not again.done()

    plane.control.failure = None
    await asyncio.wait_for(again, 5)
    assert set(plane.control.registered) == {1}


async def test_registering_again_gives_up_what_is_refused(plane: Plane) -> None:
    await add(plane)
    plane.control.failure = Refused("no such block")
    await asyncio.wait_for(plane.resuming.register_again(), 5)


async def test_nothing_is_registered_again_after_its_release(plane: Plane) -> None:
    await add(plane)
    plane.control.may_register.clear()
    again = asyncio.ensure_future(plane.resuming.register_again())
    await eventually(lambda: plane.control.registering == 1)
    deleting = asyncio.ensure_future(plane.releases.delete(call().attachment))
    for _ in range(10):
        await asyncio.sleep(0)
    plane.control.may_register.set()
    await asyncio.gather(again, deleting)
    plane.nothing_is_left()


async def test_an_address_is_handed_out_again_once_all_nodes_know(plane: Plane) -> None:
    await plane.show(node(OWN), open_policy(300), watermark=plane.stream.revision)
    for number in range(12):
        await add(plane, f"c{number}")
    freed = plane.journal.ledger.interfaces[1].addresses
    await plane.releases.delete(call("c0").attachment)
    with pytest.raises(CniError, match="quarantined until every live node has ack") as caught:
        await add(plane, "late")
    assert caught.value.code is Code.TRY_AGAIN

    await plane.show(node(OWN), open_policy(300), watermark=plane.control.revision)
    await add(plane, "late")
    [late] = [r for r in plane.journal.interfaces.values() if r.attachment.container_id == "late"]
    assert late.addresses == freed


async def test_a_pool_that_the_pod_asks_for_is_found_at_the_second_attempt(plane: Plane) -> None:
    control = plane.control
    control.known["team4"] = PoolObject(
        name="team4", prefix=Prefix.parse("10.9.0.0/16"), block_length=30, on_request=True
    )
    control.free["team4"] = [Prefix.parse("10.9.0.0/30")]
    control.wishes["web"] = Wanted(Wish(ipv4_pool="team4"))
    await add(plane)
    await add(plane, "c2")
    found = [record.addresses.ipv4 for record in plane.journal.interfaces.values()]
    assert found == [parse_address("10.9.0.0"), parse_address("10.9.0.1")]
    # The second pod of the namespace started with what the first one had wanted.
    assert [record.number for record in plane.journal.interfaces.values()] == [2, 3]
    assert len(plane.links.links) == 2
    # A pod that asks for nothing puts the guess right.
    control.wishes["web"] = Wanted(Wish(ipv4_pool="pods4"))
    await add(plane, "c3")
    assert {r.number for r in plane.journal.interfaces.values()} == {2, 3, 5}


async def test_an_unknown_pool_is_named(plane: Plane) -> None:
    plane.control.wishes["web"] = Wanted(Wish(ipv6_pool="gone"))
    with pytest.raises(CniError) as caught:
        await add(plane)
    assert caught.value.code is Code.FAILED
    assert caught.value.details == (
        'deltaplane.dev/ipv6-pool: there is no IPv6 pool "gone"; there are pods6'
    )
    plane.nothing_is_left()


async def test_a_fixed_address_waits_until_all_know_that_it_is_ours(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = parse_address("10.0.77.7")
    plane.control.wishes["web"] = Wanted(Wish(addresses=(fixed,)))
    with pytest.raises(CniError, match=r"10\.0\.77\.7 waits until every live node") as caught:
        await add(plane)
    assert caught.value.code is Code.TRY_AGAIN
    plane.nothing_is_left()

    # The runtime tries again with another sandbox; meanwhile the watermark comes.
    monkeypatch.setattr(module, "OPEN_SECONDS", 10)
    trying = asyncio.ensure_future(add(plane, "again"))
    await asyncio.sleep(0)
    await plane.show(node(OWN), open_policy(300), watermark=plane.control.revision)
    await trying
    assert [r.addresses.ipv4 for r in plane.journal.interfaces.values()] == [fixed]
    assert sum(name.startswith("fixed") for name in plane.control.claiming) == 1

    # It goes back once nobody has it and all know.
    await plane.releases.delete(call("again").attachment)
    await plane.blocks.settle()
    assert any(block.fixed for block in plane.journal.blocks)
    await plane.show(node(OWN), open_policy(300), watermark=plane.control.revision)
    await plane.blocks.settle()
    assert not any(block.fixed for block in plane.control.claims.values())
    assert not any(block.fixed for block in plane.journal.blocks)


@pytest.mark.parametrize(
    ("address", "text"), [("192.0.2.9", "192.0.2.9 is in no pool"), ("10.0.88.8", "is taken")]
)
async def test_a_fixed_address_that_cannot_be_had(plane: Plane, address: str, text: str) -> None:
    plane.control.taken.add(parse_address("10.0.88.8"))
    plane.control.wishes["web"] = Wanted(Wish(addresses=(parse_address(address),)))
    with pytest.raises(CniError) as caught:
        await add(plane)
    assert caught.value.code is Code.FAILED
    assert text in caught.value.details
    plane.nothing_is_left()


async def test_wishes_that_keep_changing_are_given_up(plane: Plane) -> None:
    class Fickle(dict[str, Wanted]):
        def get(self, key: str, default: Any = None) -> Wanted:
            del key, default
            pool = "pods4" if plane.control.revision % 2 else "other4"
            return Wanted(Wish(ipv4_pool=pool, addresses=(parse_address("10.0.0.99"),)))

    plane.control.wishes = Fickle()
    plane.control.known["other4"] = replace(plane.control.known["pods4"], name="other4")
    with pytest.raises(CniError) as caught:
        await add(plane)
    assert caught.value.code is Code.TRY_AGAIN


async def test_a_link_of_somebody_else_stays(plane: Plane) -> None:
    plane.links.links["dp1"] = 77
    plane.links.foreign.add("dp1")
    plane.links.failure = OSError(errno.EEXIST, "exists")
    with pytest.raises(CniError):
        await add(plane)
    assert plane.links.links == {"dp1": 77}


async def test_what_an_agent_of_another_uid_has_left_is_removed(plane: Plane) -> None:
    await add(plane)
    plane.links.links["dp77"] = 77
    plane.links.strange.add("dp77")
    await plane.resuming.remove_strangers()
    assert set(plane.links.links) == {"dp1"}


async def test_links_go_while_the_registry_is_away(plane: Plane) -> None:
    for number in range(3):
        await add(plane, f"c{number}")
    plane.control.failure = Unavailable("away")
    for number in range(3):
        await plane.releases.retire(call(f"c{number}").attachment)
    await eventually(lambda: not plane.links.links)
    assert len(plane.control.registered) == 3
    plane.control.failure = None
    await eventually(lambda: not plane.journal.interfaces)
    plane.nothing_is_left()


async def test_a_node_that_is_not_registered_any_more_releases_all_the_same(plane: Plane) -> None:
    await add(plane)
    head = plane.journal.ledger.progress.head
    plane.control.failure = Refused("n1 is not registered")
    await plane.releases.delete(call().attachment)
    assert not plane.journal.interfaces
    [old, _] = [old for block in plane.journal.blocks for old in block.released]
    assert (old.revision, old.lineage) == (head, b"")


async def test_an_interface_whose_block_is_lost_is_closed_for_good(plane: Plane) -> None:
    await add(plane)
    plane.control.claims.clear()
    assert len(await plane.blocks.reconcile(OWN)) == 2
    await plane.resuming.close_strays()
    assert not plane.dataplane.dump().local_endpoints
    problems = await plane.interfaces.check(call(), Result(), 0)
    assert "does not own 10.0.0.0" in problems[0]
    # Also after a restart and when it is registered again.
    await plane.resuming.resume()
    await plane.resuming.register_again()
    assert not plane.dataplane.dump().local_endpoints
    await plane.releases.delete(call().attachment)
    plane.nothing_is_left()


async def test_a_lost_journal_is_rebuilt_from_the_registry_and_the_links(
    plane: Plane, tmp_path: Path
) -> None:
    await add(plane)
    await add(plane, "c2")
    plane.links.links["dp10"] = 500
    lost = plane.journal.ledger
    journal, writer = Journal(tmp_path / "again.db"), Worker("journal")
    assert journal.ledger.is_new
    rebuilding = Rebuilding(
        journal=journal,
        writer=writer,
        control=plane.control,
        links=plane.links,
        node=FACTS,
        clock=SystemClock(),
    )
    plane.control.failure = Unavailable("away")
    with pytest.raises(Unavailable):
        await rebuilding.run(OWN)
    assert journal.ledger.is_new
    plane.control.failure = None
    await rebuilding.run(OWN)
    found = journal.ledger
    check(found)
    assert not found.is_new
    # What the registry says is that they are registered; the rest is as it was.
    assert {n: r.addresses for n, r in found.interfaces.items()} == {
        n: r.addresses for n, r in lost.interfaces.items()
    }
    assert found.last_number == 16 + SPARE_NUMBERS
    assert all(block.full == block.held | block.rested for block in found.blocks.values())
    assert {old.revision for b in found.blocks.values() for old in b.released} == {
        plane.control.revision
    }
    writer.close()
    journal.close()

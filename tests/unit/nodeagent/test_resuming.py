"""What an agent that starts again finds, adopts and removes; also without its journal."""

import asyncio
from pathlib import Path

import pytest

from deltaplane.errors import Refused, Unavailable
from deltaplane.model.ports import Protocol
from deltaplane.runtime.clock import SystemClock
from nodeagent.cni.netconf import Attachment, HostPort
from nodeagent.cni.result import Result
from nodeagent.journal import Journal
from nodeagent.rebuilding import SPARE_NUMBERS, Rebuilding
from nodeagent.restoring import check
from nodeagent.worker import Worker
from tests.unit.nodeagent.planes import FACTS, POD, Plane, add, call, eventually
from tests.unit.nodeagent.worlds import (
    OWN,
)


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


async def test_what_an_agent_of_another_uid_has_left_is_removed(plane: Plane) -> None:
    await add(plane)
    plane.links.links["dp77"] = 77
    plane.links.strange.add("dp77")
    await plane.resuming.remove_strangers()
    assert set(plane.links.links) == {"dp1"}


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


async def test_a_lost_journal_is_rebuilt_from_what_others_know(
    plane: Plane, tmp_path: Path
) -> None:
    await add(plane)
    await add(plane, "c2")
    port = HostPort(host_address=bytes(4), protocol=Protocol.TCP, host_port=8080, container_port=80)
    await plane.balancing.barrier(plane.stream.barrier(*plane.control.known.values()), OWN)
    await plane.balancing.expose(2, plane.journal.interfaces[2].addresses, (port,))
    plane.links.links["dp10"] = 500
    lost = plane.journal.ledger
    journal, writer = Journal(tmp_path / "again.db"), Worker("journal")
    assert journal.ledger.is_new
    rebuilding = Rebuilding(
        journal=journal,
        writer=writer,
        control=plane.control,
        links=plane.links,
        balancing=plane.balancing,
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
    assert {n: r.host_ports for n, r in found.interfaces.items()} == {1: (), 2: (port,)}
    assert found.last_number == 16 + SPARE_NUMBERS
    assert all(block.full == block.held | block.rested for block in found.blocks.values())
    assert {old.revision for b in found.blocks.values() for old in b.released} == {
        plane.control.revision
    }
    writer.close()
    journal.close()

"""ADD and DEL on fakes of everything outside: what is left after each kind of failure."""

import asyncio
import errno

import pytest

from deltaplane.errors import Refused, Unavailable
from nodeagent.cni.result import CniError, Code
from nodeagent.control import Registration
from nodeagent.entries import State
from tests.unit.nodeagent.planes import Plane, add, call, eventually
from tests.unit.nodeagent.worlds import (
    OWN,
    node,
    open_policy,
)


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


async def test_a_link_of_somebody_else_stays(plane: Plane) -> None:
    plane.links.links["dp1"] = 77
    plane.links.foreign.add("dp1")
    plane.links.failure = OSError(errno.EEXIST, "exists")
    with pytest.raises(CniError):
        await add(plane)
    assert plane.links.links == {"dp1": 77}


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

"""Addresses of pods: those that are free, and those that they ask for."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.objects import PoolObject
from nodeagent import interfaces as module
from nodeagent.cni.result import CniError, Code
from nodeagent.control import Wanted
from nodeagent.pools import Wish
from tests.unit.nodeagent.planes import Plane, add, call
from tests.unit.nodeagent.worlds import (
    OWN,
    node,
    open_policy,
)


async def test_addresses_run_out_and_come_back(plane: Plane) -> None:
    # Three blocks of four: an ADD that finds none claims the next.
    for number in range(12):
        await add(plane, f"c{number}")
    with pytest.raises(CniError, match="no free block") as caught:
        await add(plane, "late")
    assert caught.value.code is Code.TRY_AGAIN
    assert len(plane.journal.interfaces) == 12


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

"""Something happens between what a call on pools or blocks reads and what it writes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from deltaplane.errors import Conflict, Invalid, Refused
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.store import keys
from deltaplane.store.port import Put
from deltaplane.v1 import ipam_pb2
from services.ipam.changing import Change
from services.ipam.pools import Pool
from services.ipam.repository import Repository
from services.ipam.repository.claiming import Claimer
from services.ipam.repository.coalescing import ENOUGH, Coalescer
from services.ipam.wire import AddressClaim, Claim
from tests.services.plane import plane
from tests.services.test_interleavings import InterruptedStore

RANGE = Prefix.parse("10.244.0.0/26")
UID = "uid-of-node-1"
Stage = tuple[InterruptedStore, Repository, Repository]


@pytest.fixture
async def stage(sockets: Path) -> Stage:
    """A pool of one block, a node, and two replicas: one is interrupted by the other."""
    store = InterruptedStore()
    async with plane(store, sockets / "s") as served:
        await served.pool(str(RANGE))
        await served.node()
        await served.node("node-2")
    one = Repository(store)
    # It has a view of the pool, and knows the node.
    block = await one.claim_block(claim(0))
    await one.release_block(RANGE, block.node_uid)
    return store, one, Repository(store)


def claim(number: int, node: str = "node-1") -> Claim:
    return Claim(pool="ipv4", node=node, node_uid=f"uid-of-{node}", request_id=str(number))


def fixed(text: str = "10.244.0.9", node: str = "node-1") -> AddressClaim:
    return AddressClaim(
        address=parse_address(text), node=node, node_uid=f"uid-of-{node}", request_id="fixed"
    )


async def blocks(repository: Repository) -> list[ipam_pb2.Block]:
    return list((await repository.list_blocks(node="", pool=""))[0])


async def test_a_pool_drains_under_a_claim(stage: Stage) -> None:
    store, one, two = stage
    store.interrupt(keys.BLOCKS, lambda: two.update_pool(Change(name="ipv4", draining=True)))
    with pytest.raises(Refused, match="draining"):
        await one.claim_block(claim(1))
    assert await blocks(one) == []


async def test_a_range_is_reserved_under_a_claim(stage: Stage) -> None:
    store, one, two = stage
    await one.update_pool(Change(name="ipv4", grow_to=Prefix.parse("10.244.0.0/25")))
    got = await one.claim_block(claim(1))
    await one.release_block(Prefix(got.prefix.address, got.prefix.length), UID)
    change = Change(name="ipv4", reserve=(RANGE,))
    store.interrupt(keys.BLOCKS, lambda: two.update_pool(change))
    block = await one.claim_block(claim(2))
    assert Prefix(block.prefix.address, block.prefix.length) == Prefix.parse("10.244.0.64/26")


async def test_a_block_comes_and_goes_under_a_claim(stage: Stage) -> None:
    store, one, two = stage
    revisions: list[int] = []

    async def own_it_for_a_moment() -> None:
        await two.claim_block(claim(1, "node-2"))
        revisions.append(await two.release_block(RANGE, "uid-of-node-2"))

    store.interrupt(keys.BLOCKS, own_it_for_a_moment)
    block = await one.claim_block(claim(1))
    assert [block.usable_after_revision] == revisions


async def test_a_block_that_looks_new_comes_and_goes_under_a_claim(stage: Stage) -> None:
    store, one, two = stage
    await one.update_pool(Change(name="ipv4", grow_to=Prefix.parse("10.244.0.0/24")))
    first = await one.claim_block(claim(1))  # from now on its view has the grown pool
    await one.release_block(Prefix(first.prefix.address, first.prefix.length), UID)
    expected: dict[Prefix, int] = {}

    async def own_all_for_a_moment() -> None:
        for number in range(4):
            await two.claim_block(claim(number, "node-2"))
        for block in await blocks(two):
            prefix = Prefix(block.prefix.address, block.prefix.length)
            expected[prefix] = await two.release_block(prefix, "uid-of-node-2")

    store.interrupt(keys.BLOCKS, own_all_for_a_moment)
    block = await one.claim_block(claim(2))
    prefix = Prefix(block.prefix.address, block.prefix.length)
    assert block.usable_after_revision == expected[prefix]


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
async def test_an_address_inside_goes_under_a_claim(stage: Stage, known: bool) -> None:
    store, one, two = stage
    revisions: list[int] = []
    if known:
        await two.claim_address(fixed(node="node-2"))
        # A view that has the address.
        await one.claim_block(claim(1))
        await one.release_block(RANGE, UID)

    async def give_the_address_back() -> None:
        await two.claim_address(fixed(node="node-2"))
        revisions.append(await two.release_block(Prefix.parse("10.244.0.9/32"), "uid-of-node-2"))

    store.interrupt(keys.BLOCKS, give_the_address_back)
    block = await one.claim_block(claim(2))
    assert [block.usable_after_revision] == revisions


async def test_a_claim_comes_under_the_deletion_of_a_pool(stage: Stage) -> None:
    store, one, two = stage
    store.interrupt(keys.POOLS, lambda: two.claim_block(claim(1)))
    with pytest.raises(Refused, match="nodes own 1 blocks of pool ipv4"):
        await one.delete_pool("ipv4")
    assert len(await blocks(one)) == 1
    ((pool, claimed),) = (await one.list_pools())[0]
    assert not pool.pool.draining  # a deletion that fails leaves no trace
    assert claimed == 1


async def test_a_pool_comes_where_another_grows(stage: Stage) -> None:
    store, one, two = stage
    rival = Pool.of("rival", Prefix.parse("10.244.1.0/24"))
    store.interrupt(keys.POOLS, lambda: two.create_pool(rival))
    with pytest.raises(Invalid, match="overlaps pool rival") as caught:
        await one.update_pool(Change(name="ipv4", grow_to=Prefix.parse("10.244.0.0/16")))
    assert caught.value.field == "grow_to"


async def test_a_pool_grows_where_another_comes(stage: Stage) -> None:
    store, one, two = stage
    change = Change(name="ipv4", grow_to=Prefix.parse("10.244.0.0/16"))
    store.interrupt(keys.POOLS, lambda: two.update_pool(change))
    with pytest.raises(Invalid, match="overlaps pool ipv4"):
        await one.create_pool(Pool.of("rival", Prefix.parse("10.244.1.0/24")))


@pytest.mark.parametrize("thief", ["endpoint", "node"])
async def test_an_address_is_taken_under_its_claim(stage: Stage, thief: str) -> None:
    store, one, two = stage
    address = fixed().address
    path = f"{keys.ENDPOINTS}shop/web/node-2/7".encode()
    steal: dict[str, Callable[[], Awaitable[object]]] = {
        "endpoint": lambda: store.transact([], [Put(keys.address(address), path)]),
        "node": lambda: two.claim_address(fixed(node="node-2")),
    }
    store.interrupt(keys.BLOCKS, steal[thief])
    words = {"endpoint": "held by pod shop/web on node node-2", "node": "claimed by node node-2"}
    with pytest.raises(Conflict, match=words[thief]):
        await one.claim_address(fixed())


async def test_only_claims_in_company_wait_for_a_moment(stage: Stage) -> None:
    store, _, _ = stage
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    coalescer = Coalescer(Claimer(store, asyncio.sleep), pause=pause)
    queue = asyncio.create_task(coalescer.run())
    try:
        first = await coalescer.claim([claim(1)])
        assert await coalescer.claim([claim(1)]) == first
        assert pauses == []  # alone each time
        together = [asyncio.ensure_future(coalescer.claim([claim(1)])) for _ in range(ENOUGH - 1)]
        assert await asyncio.gather(*together) == [first] * (ENOUGH - 1)
        assert await coalescer.claim([claim(1)]) == first
        assert len(pauses) == 1
    finally:
        queue.cancel()
        await asyncio.gather(queue, return_exceptions=True)

"""Pools change, drain and go; addresses are claimed alone."""

from collections.abc import Awaitable

import pytest

from deltaplane.errors import Conflict, Exhausted, Invalid, NotFound, Refused
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.store import keys
from deltaplane.store.port import Put
from deltaplane.v1 import ipam_pb2
from services.ipam.repository import addresses
from tests.services.plane import Plane, endpoint, failure, ok, prefix

POOLS = {4: ("10.244.0.0/24", 26), 6: ("fd00::/120", 122)}
GROWN = {4: "10.244.0.0/22", 6: "fd00::/118"}
families = pytest.mark.parametrize("family", [4, 6])


async def update(plane: Plane, name: str = "ipv4", **fields: object) -> ipam_pb2.Pool:
    request = ipam_pb2.UpdatePoolRequest(name=name, **fields)  # type: ignore[arg-type]
    return (await ok(plane.ipam.UpdatePool(request))).pool


async def delete(plane: Plane, name: str = "ipv4") -> int:
    request = ipam_pb2.DeletePoolRequest(name=name)
    return (await ok(plane.ipam.DeletePool(request))).revision


def claim_address(
    plane: Plane, text: str, node: str = "node-1", request: str = "a"
) -> Awaitable[ipam_pb2.ClaimAddressResponse]:
    return plane.ipam.ClaimAddress(
        ipam_pb2.ClaimAddressRequest(
            address=parse_address(text),
            node=node,
            node_uid=plane.nodes[node].uid,
            request_id=request,
        )
    )


async def give_back(plane: Plane, block: ipam_pb2.Block) -> int:
    request = ipam_pb2.ReleaseBlockRequest(prefix=block.prefix, node_uid=block.node_uid)
    return (await ok(plane.ipam.ReleaseBlock(request))).revision


def text_of(block: ipam_pb2.Block) -> str:
    return str(Prefix(block.prefix.address, block.prefix.length))


async def family_pool(plane: Plane, family: int) -> None:
    text, length = POOLS[family]
    await plane.pool(text, length)
    for name in ("node-1", "node-2"):
        await plane.node(name)


@families
async def test_a_pool_grows_and_its_blocks_stay(any_plane: Plane, family: int) -> None:
    await family_pool(any_plane, family)
    before = [await any_plane.claim(request=str(n)) for n in range(4)]
    assert isinstance(await any_plane.no_claim(request="4"), Exhausted)

    grown = await update(any_plane, grow_to=prefix(GROWN[family]))
    again = await update(any_plane, grow_to=prefix(GROWN[family]))

    assert grown == again
    assert grown.prefix == prefix(GROWN[family])
    more = [await any_plane.claim(request=str(n)) for n in range(4, 16)]
    assert len({text_of(block) for block in before + more}) == 16


async def test_a_pool_grows_over_no_other(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    await any_plane.pool("10.244.1.0/24", name="next")
    for text, words in [
        ("10.244.0.0/23", r"10\.244\.0\.0/23 overlaps pool next \(10\.244\.1\.0/24\)"),
        ("10.245.0.0/16", r"leaves out addresses of the pool 10\.244\.0\.0/24.* such as 10\.244"),
        ("fd00::/64", "leaves out addresses"),
    ]:
        with pytest.raises(Invalid, match=words) as caught:
            await update(any_plane, grow_to=prefix(text))
        assert caught.value.field == "grow_to"


async def test_all_of_an_update_happens_or_nothing(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    with pytest.raises(Invalid) as caught:
        await update(any_plane, draining=True, reserve=[prefix("10.9.0.0/26")])
    assert caught.value.field == "reserve"
    (status,) = (await ok(any_plane.ipam.ListPools(ipam_pb2.ListPoolsRequest()))).pools
    assert not status.pool.draining

    changed = await update(
        any_plane,
        draining=True,
        reserve=[prefix("10.244.0.0/25")],
        min_free_percent=10,
        on_request=True,
    )
    assert (changed.draining, changed.min_free_percent, changed.on_request) == (True, 10, True)
    assert list(changed.reserved) == [prefix("10.244.0.0/25")]


async def test_ranges_are_given_back_as_they_were_reserved(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    held = prefix("10.244.0.0/25")
    await update(any_plane, reserve=[held])
    with pytest.raises(Invalid, match=r"give back 10\.244\.0\.0/25") as caught:
        await update(any_plane, unreserve=[prefix("10.244.0.0/26")])
    assert caught.value.field == "unreserve"
    with pytest.raises(Invalid, match=r"10\.244\.0\.0/26 overlaps 10\.244\.0\.0/25|overlaps"):
        await update(any_plane, reserve=[prefix("10.244.0.0/26")])
    free = await update(any_plane, unreserve=[held])
    assert list(free.reserved) == []
    assert await update(any_plane, unreserve=[held]) == free


async def test_a_block_that_is_reserved_as_a_whole_is_never_claimed(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    await any_plane.node()
    # Two halves of one block, and a part of another.
    halves = ["10.244.0.64/27", "10.244.0.96/27", "10.244.0.192/27"]
    await update(any_plane, reserve=[prefix(text) for text in halves])
    got = {text_of(await any_plane.claim(request=str(n))) for n in range(3)}
    assert got == {"10.244.0.0/26", "10.244.0.128/26", "10.244.0.192/26"}
    error = await any_plane.no_claim(request="3")
    assert isinstance(error, Exhausted)
    assert "all 3 of 4 /26 blocks are claimed, 1 are reserved; most by node-1 3" in str(error)


async def test_an_unknown_pool_is_not_updated(memory_plane: Plane) -> None:
    error = await failure(memory_plane.ipam.UpdatePool(ipam_pb2.UpdatePoolRequest(name="none")))
    assert isinstance(error, NotFound)
    for percent in (0, 101):
        with pytest.raises(Invalid) as caught:
            await update(memory_plane, min_free_percent=percent)
        assert caught.value.field == "min_free_percent"


@families
async def test_a_draining_pool_gives_nothing_new(any_plane: Plane, family: int) -> None:
    await family_pool(any_plane, family)
    block = await any_plane.claim()
    await update(any_plane, draining=True)
    for request in (
        any_plane.claim(request="1"),
        claim_address(any_plane, "10.244.0.9" if family == 4 else "fd00::9", "node-2"),
    ):
        error = await failure(request)
        assert isinstance(error, Refused)
        assert "draining" in str(error)
    assert await any_plane.claim() == block  # asked for again
    await update(any_plane, draining=False)
    assert await any_plane.claim(request="1") != block


async def test_a_pool_goes_when_nobody_owns_a_block_of_it(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    await any_plane.node()
    block = await any_plane.claim()
    with pytest.raises(Refused, match=r"nodes own 1 blocks of pool ipv4 \(node-1: 1\); drain it"):
        await delete(any_plane)
    (status,) = (await ok(any_plane.ipam.ListPools(ipam_pb2.ListPoolsRequest()))).pools
    assert not status.pool.draining
    await give_back(any_plane, block)
    first = await delete(any_plane)
    assert await delete(any_plane) >= first
    assert isinstance(await any_plane.no_claim(request="1"), NotFound)
    await any_plane.pool("10.244.0.0/22", 28)  # the range is free for another pool
    await any_plane.claim(request="2")


async def test_creating_a_pool_again_finds_what_became_of_it(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    await update(
        any_plane, grow_to=prefix("10.244.0.0/16"), draining=True, reserve=[prefix("10.244.0.0/30")]
    )
    await any_plane.pool("10.244.0.0/24")
    (status,) = (await ok(any_plane.ipam.ListPools(ipam_pb2.ListPoolsRequest()))).pools
    assert status.pool.draining
    assert status.pool.prefix == prefix("10.244.0.0/16")
    static = ipam_pb2.Pool(
        name="ipv4", prefix=prefix("10.244.0.0/24"), mode=ipam_pb2.Pool.MODE_STATIC
    )
    error = await failure(any_plane.ipam.CreatePool(ipam_pb2.CreatePoolRequest(pool=static)))
    assert isinstance(error, Conflict)
    assert "mode demand" in str(error)


async def test_a_static_pool_gives_a_node_one_block(any_plane: Plane) -> None:
    pool = ipam_pb2.Pool(
        name="ipv4",
        prefix=prefix("10.244.0.0/16"),
        block_length=24,
        mode=ipam_pb2.Pool.MODE_STATIC,
    )
    await ok(any_plane.ipam.CreatePool(ipam_pb2.CreatePoolRequest(pool=pool)))
    await any_plane.node()
    first = await any_plane.claim(request="0")
    assert await any_plane.claim(request="1") == first
    await update(any_plane, draining=True)
    assert await any_plane.claim(request="2") == first
    await give_back(any_plane, first)
    assert not [key for key in await any_plane.keys() if "block-requests" in key]


@families
async def test_the_next_owner_of_a_block_waits(any_plane: Plane, family: int) -> None:
    await family_pool(any_plane, family)
    blocks = [await any_plane.claim(request=str(n)) for n in range(4)]
    assert {block.usable_after_revision for block in blocks} == {0}
    gone = await give_back(any_plane, blocks[2])
    again = await any_plane.claim("node-2")
    assert text_of(again) == text_of(blocks[2])
    assert again.usable_after_revision == gone
    assert await any_plane.keys(keys.FREED_BLOCKS) == {}
    later = await give_back(any_plane, again)
    assert (await any_plane.claim("node-2", request="1")).usable_after_revision == later > gone


async def test_a_block_that_nobody_owned_is_preferred(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    await any_plane.node()
    first = await any_plane.claim(request="first")
    await give_back(any_plane, first)
    got = [await any_plane.claim(request=str(n)) for n in range(4)]
    assert text_of(got[3]) == text_of(first)
    assert [block.usable_after_revision > 0 for block in got] == [False, False, False, True]


FIXED = {4: "10.244.0.200", 6: "fd00::c8"}


@families
async def test_an_address_is_claimed_alone(any_plane: Plane, family: int) -> None:
    await family_pool(any_plane, family)
    answer = (await ok(claim_address(any_plane, FIXED[family]))).block
    again = (await ok(claim_address(any_plane, FIXED[family]))).block

    assert answer == again
    assert answer.fixed
    assert answer.prefix.length == 8 * len(answer.prefix.address)
    assert answer.usable_after_revision == answer.meta.create_revision > 0
    listed = (await ok(any_plane.ipam.ListBlocks(ipam_pb2.ListBlocksRequest()))).blocks
    assert list(listed) == [answer]
    (status,) = (await ok(any_plane.ipam.ListPools(ipam_pb2.ListPoolsRequest()))).pools
    assert status.blocks_claimed == 0

    error = await failure(claim_address(any_plane, FIXED[family], "node-2"))
    assert isinstance(error, Conflict)
    assert str(error) == f"{FIXED[family]} is claimed by node node-1"
    revision = await give_back(any_plane, answer)
    assert await any_plane.keys(keys.FIXED_ADDRESSES) == {}
    moved = (await ok(claim_address(any_plane, FIXED[family], "node-2"))).block
    assert (moved.node, moved.usable_after_revision > revision) == ("node-2", True)


@families
async def test_who_claims_the_block_around_a_former_fixed_address_waits(
    any_plane: Plane, family: int
) -> None:
    await family_pool(any_plane, family)
    revision = await give_back(any_plane, (await ok(claim_address(any_plane, FIXED[family]))).block)
    blocks = [await any_plane.claim("node-2", str(number)) for number in range(4)]
    waits = [block.usable_after_revision for block in blocks]
    assert sorted(waits) == [0, 0, 0, revision]
    waiting = blocks[waits.index(revision)].prefix
    assert Prefix(waiting.address, waiting.length).contains(parse_address(FIXED[family]))


async def test_an_address_that_cannot_be_had_is_refused(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    for name in ("node-1", "node-2"):
        await any_plane.node(name)
    await update(any_plane, reserve=[prefix("10.244.0.0/26")])
    blocks = [await any_plane.claim(request=str(n)) for n in range(3)]
    own = ".".join(map(str, blocks[0].prefix.address))
    await any_plane.register(endpoint(1, own))

    error = await failure(claim_address(any_plane, "10.9.0.1"))
    assert isinstance(error, Invalid)
    assert error.field == "address"
    assert str(error).endswith("10.9.0.1 lies in no pool; pools: ipv4 10.244.0.0/24")
    error = await failure(claim_address(any_plane, own))
    assert isinstance(error, Refused)
    assert f"lies in {text_of(blocks[0])}, which node node-1 owns" in str(error)
    error = await failure(claim_address(any_plane, own, "node-2"))
    assert isinstance(error, Conflict)
    assert str(error) == f"{own} is held by pod shop/web on node node-1"
    # Reserved, and in a stranger's block: both are fine.
    await ok(claim_address(any_plane, "10.244.0.1", "node-2", "b"))
    foreign = await ok(claim_address(any_plane, own.rpartition(".")[0] + ".250", "node-2", "c"))
    assert foreign.block.node == "node-2"
    error = await failure(claim_address(any_plane, "10.244.0.2", "node-2", "c"))
    assert isinstance(error, Conflict)
    assert "another wish needs another request_id" in str(error)
    any_plane.nodes["node-2"].uid = "another"
    error = await failure(claim_address(any_plane, "10.244.0.2", "node-2", "d"))
    assert isinstance(error, Refused)
    bad = ipam_pb2.ClaimAddressRequest(address=b"abc", node="n", node_uid="u", request_id="r")
    error = await failure(any_plane.ipam.ClaimAddress(bad))
    assert isinstance(error, Invalid)


async def test_fixed_addresses_have_a_limit(memory_plane: Plane) -> None:
    await memory_plane.pool("10.244.0.0/16")
    await memory_plane.node()
    for number in range(addresses.LIMIT):
        await memory_plane.store.transact([], [Put(keys.fixed_address(number.to_bytes(4)), b"x")])
    error = await failure(claim_address(memory_plane, "10.244.0.1"))
    assert isinstance(error, Exhausted)
    assert "1000 addresses outside the blocks of their nodes" in str(error)

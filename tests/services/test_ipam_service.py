import asyncio
import itertools
from pathlib import Path

import pytest

from deltaplane.errors import Conflict, Exhausted, Invalid, NotFound, Refused, Unavailable
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.v1 import common_pb2, ipam_pb2, registry_pb2
from tests.services.plane import Plane, claim_all, claims_of, failure, ok, plane, prefix


async def blocks(plane: Plane, **filters: str) -> list[ipam_pb2.Block]:
    answer = await ok(plane.ipam.ListBlocks(ipam_pb2.ListBlocksRequest(**filters)))
    return list(answer.blocks)


def release_request(block: ipam_pb2.Block) -> ipam_pb2.ReleaseBlockRequest:
    return ipam_pb2.ReleaseBlockRequest(prefix=block.prefix, node_uid=block.node_uid)


async def create(plane: Plane, text: str, length: int, name: str = "other") -> ipam_pb2.Pool:
    pool = ipam_pb2.Pool(name=name, prefix=prefix(text), block_length=length)
    return (await ok(plane.ipam.CreatePool(ipam_pb2.CreatePoolRequest(pool=pool)))).pool


async def test_a_pool_is_created_once_and_listed_with_its_numbers(any_plane: Plane) -> None:
    first = await create(any_plane, "10.244.0.0/24", 0, "ipv4")
    again = await create(any_plane, "10.244.0.0/24", 26, "ipv4")
    await create(any_plane, "fd00::/48", 122, "ipv6")

    assert first == again
    assert first.block_length == 26
    await any_plane.node()
    await any_plane.claim()
    listed = await ok(any_plane.ipam.ListPools(ipam_pb2.ListPoolsRequest()))
    assert [(s.pool.name, s.blocks_total, s.blocks_claimed) for s in listed.pools] == [
        ("ipv4", 4, 1),
        ("ipv6", (1 << 64) - 1, 0),  # it has 2^74; the field ends there
    ]


async def test_a_pool_never_changes(any_plane: Plane) -> None:
    await create(any_plane, "10.244.0.0/24", 26, "ipv4")
    with pytest.raises(Conflict, match=r"pool ipv4 exists with prefix 10\.244\.0\.0/24"):
        await create(any_plane, "10.244.0.0/24", 27, "ipv4")


@pytest.mark.parametrize(
    ("text", "length", "field"),
    [
        ("10.244.128.0/17", 26, "pool.prefix"),
        ("10.240.0.0/12", 26, "pool.prefix"),
        ("10.9.0.0/16", 31, "pool.block_length"),
        ("10.9.0.0/28", 26, "pool.block_length"),
        ("127.0.0.0/16", 26, "pool.prefix"),
        ("fd00::/64", 64, "pool.block_length"),
    ],
)
async def test_an_impossible_pool_is_refused(
    memory_plane: Plane, text: str, length: int, field: str
) -> None:
    await memory_plane.pool("10.244.0.0/16")
    with pytest.raises(Invalid) as caught:
        await create(memory_plane, text, length)
    assert caught.value.field == field


async def test_host_bits_and_bad_names_are_refused(memory_plane: Plane) -> None:
    pool = ipam_pb2.Pool(
        name="ipv4", prefix=common_pb2.Prefix(address=bytes([10, 0, 0, 1]), length=8)
    )
    error = await failure(memory_plane.ipam.CreatePool(ipam_pb2.CreatePoolRequest(pool=pool)))
    assert isinstance(error, Invalid)
    assert error.field == "pool.prefix"
    with pytest.raises(Invalid) as caught:
        await create(memory_plane, "10.0.0.0/8", 26, "No_Label")
    assert caught.value.field == "pool.name"


async def test_pools_created_at_once_never_overlap(any_plane: Plane) -> None:
    texts = [f"10.{n}.0.0/16" for n in range(8)] + [f"10.{n}.0.0/15" for n in range(0, 8, 2)]
    outcomes = await asyncio.gather(
        *(create(any_plane, text, 26, f"pool-{i}") for i, text in enumerate(texts)),
        return_exceptions=True,
    )
    assert all(isinstance(it, (Invalid, ipam_pb2.Pool)) for it in outcomes), outcomes
    kept = [
        Prefix(pool.prefix.address, pool.prefix.length)
        for pool in outcomes
        if isinstance(pool, ipam_pb2.Pool)
    ]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(kept, 2))
    assert sum(pool.size for pool in kept) >= 4 << 16  # of each pair one is there


async def test_a_repeated_claim_gets_the_same_block(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    await any_plane.node()
    first = await any_plane.claim(request="0")
    assert await any_plane.claim(request="0") == first
    assert (await any_plane.claim(request="1")).prefix != first.prefix
    assert first.node_index == any_plane.nodes["node-1"].index
    assert len(await blocks(any_plane)) == 2


async def test_only_a_registered_node_claims(any_plane: Plane) -> None:
    await any_plane.pool()
    any_plane.nodes["ghost"] = registry_pb2.Node(name="ghost", uid="made-up")
    error = await any_plane.no_claim("ghost")
    assert isinstance(error, Refused)
    assert str(error) == "node ghost is not registered"

    await any_plane.node()
    any_plane.nodes["node-1"].uid = "another"
    error = await any_plane.no_claim()
    assert isinstance(error, Refused)
    assert "UID uid-of-node-1, not another" in str(error)


async def test_claims_are_checked(memory_plane: Plane) -> None:
    await memory_plane.node()
    error = await memory_plane.no_claim(pool="none")
    assert isinstance(error, NotFound)
    for request, field in [
        (memory_plane.claim_request(pool="No Pool"), "claims[0].pool"),
        (memory_plane.claim_request(request=""), "claims[0].request_id"),
        (claims_of("a", "u", ("ipv4", "0"), ("ipv4", "a/b")), "claims[1].request_id"),
        (claims_of("a", "u", ("ipv4", "0"), ("ipv4", "x" * 65)), "claims[1].request_id"),
        (claims_of("a_b", "u", ("ipv4", "0")), "node"),
        (claims_of("a", "", ("ipv4", "0")), "node_uid"),
        (claims_of("a", "u"), "claims"),
        (claims_of("a", "u", *(("ipv4", str(n)) for n in range(65))), "claims"),
    ]:
        error = await failure(memory_plane.ipam.ClaimBlocks(request))
        assert isinstance(error, Invalid)
        assert error.field == field


async def test_each_claim_of_a_request_is_answered_in_its_place(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/25")
    await any_plane.pool("fd00::/120", 122, name="ipv6")
    await any_plane.node()
    uid = any_plane.nodes["node-1"].uid
    request = claims_of(
        "node-1",
        uid,
        ("ipv4", "1"),
        ("none", "2"),
        ("ipv6", "3"),
        ("ipv4", "1"),  # asked for twice
        ("ipv6", "1"),  # a name means one thing
        ("ipv4", "4"),
        ("ipv4", "5"),
    )
    first = await claim_all(any_plane.ipam, request)
    assert [it.pool if isinstance(it, ipam_pb2.Block) else type(it) for it in first] == [
        "ipv4",
        NotFound,
        "ipv6",
        "ipv4",
        Conflict,
        "ipv4",
        Exhausted,
    ]
    assert first[0] == first[3]
    assert len(await blocks(any_plane)) == 3
    # Asked again, also with the wishes in another order and in company of a new one.
    again = await claim_all(
        any_plane.ipam, claims_of("node-1", uid, ("ipv6", "6"), ("ipv6", "3"), ("ipv4", "4"))
    )
    assert again[1:] == [first[2], first[5]]
    assert len(await blocks(any_plane)) == 4


async def test_64_claims_take_several_transactions(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/20")
    await any_plane.node()
    claims = [("ipv4", str(n)) for n in range(64)]
    request = claims_of("node-1", any_plane.nodes["node-1"].uid, *claims)
    first = await claim_all(any_plane.ipam, request)
    assert await claim_all(any_plane.ipam, request) == first
    assert len(await blocks(any_plane)) == 64
    assert [it.request_id for it in first if isinstance(it, ipam_pb2.Block)] == [
        request_id for _, request_id in claims
    ]


async def test_32_nodes_for_16_blocks(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/22", 26)
    names = [f"node-{number}" for number in range(32)]
    await asyncio.gather(*map(any_plane.node, names))

    outcomes = await asyncio.gather(
        *map(any_plane.claim, names),
        return_exceptions=True,
    )

    won = [it for it in outcomes if isinstance(it, ipam_pb2.Block)]
    assert len(won) == 16
    assert len({(block.prefix.address, block.prefix.length) for block in won}) == 16
    assert await blocks(any_plane) == sorted(won, key=lambda block: block.prefix.address)
    error = await any_plane.no_claim(_loser(names, won))
    assert isinstance(error, Exhausted)
    assert "pool ipv4 (10.244.0.0/22) has no free block: all 16 of 16 /26" in str(error)


def _loser(names: list[str], won: list[ipam_pb2.Block]) -> str:
    return next(name for name in names if name not in {block.node for block in won})


async def test_the_last_free_block_of_a_large_pool_is_found(memory_plane: Plane) -> None:
    await memory_plane.pool("10.244.0.0/24", 30)
    await memory_plane.node()
    await memory_plane.node("late")
    taken = [await memory_plane.claim(request=str(number)) for number in range(63)]
    last = await memory_plane.claim("late")
    assert last.prefix not in [block.prefix for block in taken]


async def test_a_released_block_is_free_again(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/26")
    await any_plane.node()
    await any_plane.node("node-2")
    block = await any_plane.claim()

    first = await ok(any_plane.ipam.ReleaseBlock(release_request(block)))
    again = await ok(any_plane.ipam.ReleaseBlock(release_request(block)))

    assert again.revision >= first.revision
    assert (await any_plane.claim("node-2")).prefix == block.prefix
    assert await any_plane.keys(f"{keys.BLOCK_REQUESTS}uid-of-node-1/") == {}
    error = await failure(any_plane.ipam.ReleaseBlock(release_request(block)))
    assert isinstance(error, Refused)
    assert "is owned by node node-2" in str(error)


async def test_a_copied_uid_does_not_release_a_block_of_another_node(
    memory_plane: Plane,
) -> None:
    await memory_plane.pool("10.244.0.0/26")
    await memory_plane.node()
    await memory_plane.node("node-2")
    block = await memory_plane.claim()
    request = release_request(block)

    request.node = "node-2"
    error = await failure(memory_plane.ipam.ReleaseBlock(request))
    assert isinstance(error, Refused)
    assert "is owned by node node-1" in str(error)
    assert await blocks(memory_plane, node="node-1") == [block]

    request.node = "node-1"
    await ok(memory_plane.ipam.ReleaseBlock(request))
    assert await blocks(memory_plane) == []


async def test_blocks_are_listed_by_prefix_and_filtered(any_plane: Plane) -> None:
    await any_plane.pool("10.9.0.0/26", name="b")
    await any_plane.pool("10.10.0.0/26", name="a")
    await any_plane.pool("fd00::/122", 122, name="six")
    await any_plane.node()
    await any_plane.node("node-2")
    for pool in ("six", "a"):
        await any_plane.claim(request=pool, pool=pool)
    await any_plane.claim("node-2", pool="b")

    assert [block.pool for block in await blocks(any_plane)] == ["b", "a", "six"]
    assert [block.pool for block in await blocks(any_plane, node="node-1")] == ["a", "six"]
    assert [block.node for block in await blocks(any_plane, pool="b")] == ["node-2"]


async def test_a_lost_answer_makes_neither_a_leak_nor_an_error(sockets: Path) -> None:
    store = MemoryStore()
    async with plane(store, sockets / "s") as served:
        await served.pool("10.244.0.0/26")
        await served.node()
        store.lose_next_answer()
        block = await served.claim()
        assert await served.claim() == block
        store.lose_next_answer()
        await ok(served.ipam.ReleaseBlock(release_request(block)))
        assert await blocks(served) == []


@pytest.mark.timeout(30)
async def test_without_the_store_calls_end_as_unavailable_in_time(sockets: Path) -> None:
    store = MemoryStore()
    async with plane(store, sockets / "s") as served:
        await served.pool()
        await served.node()
        before = await served.keys()
        store.available = False
        async with asyncio.timeout(5):
            error = await failure(served.ipam.ClaimBlocks(served.claim_request()))
        assert isinstance(error, Unavailable)
        store.available = True
        assert await served.keys() == before

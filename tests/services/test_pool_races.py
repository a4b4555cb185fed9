"""Claims, releases and changes of a pool against each other, on several replicas."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deltaplane.errors import Conflict, DeltaplaneError, Exhausted, NotFound, Refused, Unavailable
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.store import keys
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import DeletePrefix, Event, Put, Store
from deltaplane.v1 import ipam_pb2, ipam_pb2_grpc
from deltaplane.v1 import registry_pb2 as pb
from services.ipam.changing import Change
from services.ipam.pools import Pool
from services.ipam.repository import Repository
from services.ipam.repository.records import NotRegistered
from services.ipam.wire import AddressClaim, Claim
from tests.services.plane import Plane, claim_all, claims_of, ok, plane

NODES = [f"node-{number}" for number in range(32)]


@contextlib.asynccontextmanager
async def replicas(endpoint: str, sockets: Path, count: int) -> AsyncIterator[list[Plane]]:
    """Replicas of all services, each with a connection of its own to the etcd."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in range(count):
            store = EtcdStore([endpoint])
            stack.push_async_callback(store.close)
            made.append(await stack.enter_async_context(plane(store, sockets / f"r{number}")))
        yield made


async def history(store: Store, after: int, through: int) -> list[Event]:
    """All writes between two revisions."""
    events: list[Event] = []
    async for batch in store.watch(keys.ROOT, after=after):
        events += batch.events
        if batch.revision >= through:
            return [event for event in events if event.mod_revision <= through]
    raise AssertionError("the watch ended")


def check_history(events: Iterable[Event]) -> int:
    """One owner per block at every revision, and what was owned once says so; counts the claims.

    Every event of a revision is applied before the next one is judged: a transaction is one.
    """
    owners: dict[str, str] = {}
    freed: dict[str, int] = {}
    nodes: set[str] = set()
    claims = 0
    for event in events:
        if event.key.startswith(keys.NODES):
            (nodes.add if event.value is not None else nodes.discard)(event.key)
        elif event.key.startswith(keys.FREED_BLOCKS):
            name = event.key.removeprefix(keys.FREED_BLOCKS)
            if event.value is not None:
                freed[name] = event.mod_revision
        elif event.key.startswith(keys.BLOCKS):
            name = event.key.removeprefix(keys.BLOCKS)
            if event.value is None:
                assert owners.pop(name, None), f"{name} was given back twice"
                continue
            block = ipam_pb2.Block.FromString(event.value)
            assert name not in owners, f"{name} went from {owners[name]} to {block.node_uid}"
            assert keys.node(block.node) in nodes, f"{name} was claimed for a node that is gone"
            assert event.create_revision == event.mod_revision
            if not block.fixed:
                assert block.usable_after_revision == freed.get(name, 0)
            owners[name] = block.node_uid
            claims += 1
    return claims


async def block_of(
    repository: Repository, number: int, node: str = "node-1", pool: str = "ipv4"
) -> ipam_pb2.Block:
    claim = Claim(pool=pool, node=node, node_uid=f"uid-of-{node}", request_id=str(number))
    return await repository.claim_block(claim)


async def pools_of(
    store: Store, sockets: Path, text: str = "10.244.0.0/22", nodes: Sequence[str] = ("node-1",)
) -> list[Repository]:
    """A pool, registered nodes, and replicas of ipam that have seen them."""
    async with plane(store, sockets / "first") as served:
        await served.pool(text)
        await asyncio.gather(*map(served.node, nodes))
    return [Repository(store) for _ in range(3)]


async def until_served(
    stub: "ipam_pb2_grpc.IpamAsyncStub", request: ipam_pb2.ClaimBlocksRequest
) -> list[ipam_pb2.Block | DeltaplaneError]:
    """What came of each claim; one that finds no turn among so many is repeated, as agents do."""
    while True:
        with contextlib.suppress(Unavailable):
            return await claim_all(stub, request)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(2))
async def test_32_nodes_fight_for_16_blocks_while_nodes_are_deleted(
    etcd_store: EtcdStore, etcd: str, sockets: Path, seed: int
) -> None:
    start = await etcd_store.head()
    async with replicas(etcd, sockets, 3) as planes:
        await planes[0].pool("10.244.0.0/22")

        async def live(name: str) -> None:
            chance = random.Random(f"{seed}-{name}")
            for turn in range(8):
                mine, uid = chance.choice(planes), f"{name}-{turn}"
                await mine.node(name, uid)
                numbers = [str(n) for n in range(chance.randint(1, 6))]
                cut = chance.randint(1, len(numbers))
                requests = [
                    claims_of(name, uid, *(("ipv4", number) for number in part))
                    for part in (numbers[:cut], numbers[cut:])
                    if part
                ]
                for outcome in itertools.chain.from_iterable(
                    await asyncio.gather(*(until_served(mine.ipam, it) for it in requests))
                ):
                    assert isinstance(outcome, ipam_pb2.Block | Exhausted)
                other = chance.choice(planes)
                await ok(other.registry.DeleteNode(pb.DeleteNodeRequest(name=name)))

        await asyncio.gather(*map(live, NODES))

        claims = check_history(await history(etcd_store, start, await etcd_store.head()))
        assert claims > 64
        # Nobody is there any more: no block is lost, all of them can be claimed.
        assert await planes[0].keys(keys.BLOCKS) == {}
        assert await planes[0].keys(keys.BLOCK_REQUESTS) == {}
        await planes[0].node("last", "u")
        last = await claim_all(
            planes[2].ipam, claims_of("last", "u", *(("ipv4", str(n)) for n in range(17)))
        )
        assert isinstance(last.pop(), Exhausted)
        assert len({it.prefix.address for it in last if isinstance(it, ipam_pb2.Block)}) == 16


async def test_a_pool_grows_under_load(etcd_store: EtcdStore, sockets: Path) -> None:
    start = await etcd_store.head()
    one, two, three = await pools_of(etcd_store, sockets, "10.244.0.0/24", NODES)

    async def grow() -> None:
        for length in (23, 22, 21):
            await asyncio.sleep(0)
            await three.update_pool(
                Change(name="ipv4", grow_to=Prefix.parse(f"10.244.0.0/{length}"))
            )

    async def persist(node: str, repository: Repository) -> ipam_pb2.Block:
        while True:  # ends when the pool is large enough
            with contextlib.suppress(Exhausted):
                return await block_of(repository, 0, node)

    *blocks, _ = await asyncio.gather(
        *(persist(node, (one, two)[number % 2]) for number, node in enumerate(NODES)), grow()
    )
    assert len({block.prefix.address for block in blocks if block}) == 32
    check_history(await history(etcd_store, start, await etcd_store.head()))


async def test_after_a_pool_drains_nobody_gets_a_block_and_it_goes(
    etcd_store: EtcdStore, sockets: Path
) -> None:
    start = await etcd_store.head()
    one, two, three = await pools_of(etcd_store, sockets, nodes=NODES)
    answers = await asyncio.gather(
        *(block_of(one if n % 2 else two, 0, node) for n, node in enumerate(NODES)),
        three.update_pool(Change(name="ipv4", draining=True)),
        return_exceptions=True,
    )
    for answer in answers:
        assert not isinstance(answer, BaseException) or isinstance(answer, Exhausted | Refused)
    events = await history(etcd_store, start, await etcd_store.head())
    drained = max(e.mod_revision for e in events if e.key == keys.pool("ipv4"))
    assert all(e.mod_revision < drained for e in events if e.key.startswith(keys.BLOCKS))
    got = [it for it in answers if isinstance(it, ipam_pb2.Block)]
    for block in got:
        with pytest.raises(Refused):
            await three.delete_pool("ipv4")
        await two.release_block(Prefix(block.prefix.address, block.prefix.length), block.node_uid)
    await three.delete_pool("ipv4")
    for repository in (one, two, three):
        with pytest.raises(NotFound):
            await block_of(repository, 1)


async def test_a_pool_that_is_deleted_under_claims_leaves_no_block(any_store: Store) -> None:
    for turn in range(10):
        repositories = [Repository(any_store) for _ in range(3)]
        await any_store.transact([], [DeletePrefix(keys.ROOT)])
        await any_store.transact([], [Put(keys.node("node-1"), NODE.SerializeToString())])
        await repositories[0].create_pool(Pool.of("ipv4", Prefix.parse("10.244.0.0/24")))

        async def claim(number: int, mine: Repository, pause: int) -> object:
            for _ in range(pause):
                await asyncio.sleep(0)
            return await block_of(mine, number)

        answers = await asyncio.gather(
            *(claim(number, repositories[number], turn * number) for number in range(2)),
            claim_and_delete(repositories[2]),
            return_exceptions=True,
        )
        stored = {item.key for item in (await any_store.list(keys.ROOT)).items}
        if keys.pool("ipv4") not in stored:
            assert not [key for key in stored if key.startswith(keys.BLOCKS)], answers


NODE = pb.Node(name="node-1", uid="uid-of-node-1", index=1)


async def claim_and_delete(repository: Repository) -> int:
    await asyncio.sleep(0)
    return await repository.delete_pool("ipv4")


@pytest.mark.parametrize("text", ["10.244.0.9", "fd00::9"])
async def test_one_of_many_gets_an_address(any_store: Store, sockets: Path, text: str) -> None:
    one, two, three = await pools_of(any_store, sockets, nodes=NODES[:9])
    await one.create_pool(Pool.of("ipv6", Prefix.parse("fd00::/64")))
    claims = [
        AddressClaim(
            address=parse_address(text),
            node=node,
            node_uid=f"uid-of-{node}",
            request_id="fixed",
        )
        for node in NODES[:9]
    ]
    answers = await asyncio.gather(
        *((one, two, three)[n % 3].claim_address(claim) for n, claim in enumerate(claims)),
        return_exceptions=True,
    )
    won = [answer for answer in answers if isinstance(answer, ipam_pb2.Block)]
    assert len(won) == 1
    assert all(isinstance(it, Conflict) for it in answers if not isinstance(it, ipam_pb2.Block))


async def test_a_fixed_address_goes_while_the_block_around_it_is_claimed(
    sockets: Path,
) -> None:
    """A replica that has seen the address claimed must not miss that it was given back."""
    store = MemoryStore()
    one, two, _ = await pools_of(store, sockets, "10.244.0.0/26")
    claim = AddressClaim(
        address=parse_address("10.244.0.9"),
        node="node-1",
        node_uid="uid-of-node-1",
        request_id="fixed",
    )
    await one.claim_address(claim)
    first = await block_of(two, 0)
    assert first.usable_after_revision == 0  # it is still claimed: nothing to wait for
    await two.release_block(Prefix.parse("10.244.0.0/26"), "uid-of-node-1")
    revision = await one.release_block(Prefix.parse("10.244.0.9/32"), "uid-of-node-1")
    again = await block_of(two, 1)
    assert again.usable_after_revision == revision


async def test_a_former_pool_with_other_blocks_is_remembered(any_store: Store) -> None:
    await any_store.transact([], [Put(keys.node("node-1"), NODE.SerializeToString())])
    repository = Repository(any_store)
    for length, next_length in ((26, 28), (28, 24)):
        await repository.create_pool(Pool.of("ipv4", Prefix.parse("10.244.0.0/24"), length))
        block = await block_of(repository, length)
        prefix = Prefix(block.prefix.address, block.prefix.length)
        revision = await repository.release_block(prefix, block.node_uid)
        await repository.delete_pool("ipv4")
        await repository.create_pool(Pool.of("ipv4", Prefix.parse("10.244.0.0/24"), next_length))
        smaller = [
            await block_of(repository, 1000 + number) for number in range(1 << (next_length - 24))
        ]
        for known in smaller:
            its = Prefix(known.prefix.address, known.prefix.length)
            assert (known.usable_after_revision >= revision) == its.overlaps(prefix)
            await repository.release_block(its, known.node_uid)
        await repository.delete_pool("ipv4")
        await any_store.transact([], [DeletePrefix(keys.FREED_BLOCKS)])


@pytest.mark.parametrize("lost", range(1, 4))
async def test_a_change_whose_answer_is_lost_is_made_once(sockets: Path, lost: int) -> None:
    store = MemoryStore()
    repository, other, _ = await pools_of(store, sockets)
    change = Change(
        name="ipv4",
        grow_to=Prefix.parse("10.244.0.0/20"),
        reserve=(Prefix.parse("10.244.0.0/26"),),
        draining=True,
    )
    for _ in range(lost):
        store.lose_next_answer()
        pool = await repository.update_pool(change)
    swapped = Change(
        name="ipv4",
        unreserve=(Prefix.parse("10.244.0.0/26"),),
        reserve=(Prefix.parse("10.244.0.0/27"),),
    )
    store.lose_next_answer()
    pool = await repository.update_pool(swapped)
    assert pool == await other.update_pool(swapped)
    assert pool.pool.reserved == (Prefix.parse("10.244.0.0/27"),)
    store.lose_next_answer()
    await repository.delete_pool("ipv4")
    assert (await repository.list_pools())[0] == []


async def test_an_address_whose_answer_is_lost_is_claimed_once(sockets: Path) -> None:
    store = MemoryStore()
    repository, _, _ = await pools_of(store, sockets)
    claim = AddressClaim(
        address=parse_address("10.244.0.9"),
        node="node-1",
        node_uid="uid-of-node-1",
        request_id="fixed",
    )
    store.lose_next_answer()
    block = await repository.claim_address(claim)
    store.lose_next_answer()
    await repository.release_block(Prefix.parse("10.244.0.9/32"), "uid-of-node-1")
    listed, _ = await repository.list_blocks(node="", pool="")
    assert block.fixed
    assert listed == []


async def test_many_claims_of_one_call_are_as_good_as_one(any_store: Store, sockets: Path) -> None:
    start = await any_store.head()
    one, two, _ = await pools_of(any_store, sockets, "10.244.0.0/21", NODES)
    wishes = [
        Claim(pool="ipv4", node=node, node_uid=f"uid-of-{node}", request_id="0")
        for node in NODES[:20]
    ]
    assert one.claimer.leading(wishes) == 20
    # The same twice, an unknown pool, an unknown node, a wrong UID: each gets its own answer.
    odd = [
        wishes[0],
        # Under ids of their own: what the rival got for an id first would be the answer.
        replace(wishes[1], pool="none", request_id="1"),
        replace(wishes[2], node="none", request_id="1"),
        replace(wishes[3], node_uid="other", request_id="1"),
    ]
    answers, rivals = await asyncio.gather(
        one.claimer.claim([*wishes[:16], *odd]), two.claimer.claim(wishes)
    )
    assert answers[:16] == rivals[:16]  # one request is one block, whichever replica is asked
    assert answers[16] == answers[0]
    assert [type(answer) for answer in answers[17:]] == [NotFound, NotRegistered, NotRegistered]
    assert check_history(await history(any_store, start, await any_store.head())) == 20

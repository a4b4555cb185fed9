"""What `deltaplane ipam check` sees in etcd: every kind planted, seen, repaired, gone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deltaplane.check.findings import Finding, Kind
from deltaplane.cli.client import Client, Targets
from deltaplane.cli.looking import Look, Looker
from deltaplane.cli.repairing import DONE, repair
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import Delete, Operation, Put
from deltaplane.v1 import ipam_pb2, registry_pb2
from tests.services.plane import Plane, endpoint, plane, pod, prefix, release


class Checker:
    """The command's own parts, in a thread: they block."""

    def __init__(self, socket: Path) -> None:
        target = f"unix:{socket}"
        self._client = Client(Targets(registry=target, ipam=target, slicer=target))
        self._looker = Looker(self._client, [])

    async def look(self, *pauses: float) -> Look:
        return await asyncio.to_thread(self._looker.settled, pauses)

    async def findings(self, *pauses: float) -> list[Finding]:
        """What is wrong with etcd; there are no agents here, which is told for each node."""
        found = (await self.look(*pauses)).findings
        return [item for item in found if item.kind is not Kind.AGENT_NOT_ASKED]

    async def repair(self) -> list[str]:
        look = await self.look()
        return [how for _, how in await asyncio.to_thread(repair, self._client, look)]

    def close(self) -> None:
        self._client.close()


@pytest.fixture
async def etcd_plane(etcd_store: EtcdStore, sockets: Path) -> AsyncIterator[Plane]:
    async with plane(etcd_store, sockets / "check") as served:
        await served.ready_node("node-1", "10.244.0.0/26")
        await served.ready_node("node-2", "10.244.0.64/26")
        await served.apply_pods(pod("web"), pod("db", node="node-2"))
        await served.register(endpoint(1))
        await served.register(endpoint(2, "10.244.0.65", pod="db", node="node-2"))
        yield served


@pytest.fixture
async def checker(sockets: Path) -> AsyncIterator[Checker]:
    made = Checker(sockets / "check")
    yield made
    made.close()


@pytest.mark.usefixtures("etcd_plane")
async def test_a_sound_store_is_not_mentioned(checker: Checker) -> None:
    look = await checker.look()
    assert {item.kind for item in look.findings} == {Kind.AGENT_NOT_ASKED}
    assert [item.node for item in look.findings] == ["node-1", "node-2"]
    assert (len(look.stored.endpoints), len(look.stored.blocks)) == (2, 2)


ADDRESS = keys.address(bytes([10, 244, 0, 1]))
STRAY = keys.address(bytes([10, 244, 0, 50]))
NUMBER = keys.node_endpoint("node-1", 1)
REQUEST = keys.block_request("uid-of-node-1", "0")
DB = keys.endpoint("shop", "db", "node-2", 2)

PLANTS: list[tuple[Kind, Callable[[dict[str, bytes]], list[Operation]], str]] = [
    (Kind.ADDRESS_KEY, lambda _: [Put(STRAY, b"nothing")], "names nothing, which does not"),
    (Kind.ADDRESS_KEY, lambda _: [Delete(ADDRESS)], "is absent, but belongs to"),
    (Kind.ADDRESS_KEY, lambda _: [Put(ADDRESS, DB.encode())], "names state/endpoints/shop/db"),
    (Kind.NUMBER_KEY, lambda _: [Put(NUMBER + "7", DB.encode())], "which does not have it"),
    (Kind.NUMBER_KEY, lambda _: [Delete(NUMBER)], "is absent, but belongs to"),
    (Kind.REQUEST_KEY, lambda _: [Put(REQUEST + "7", b"nothing")], "which does not have it"),
    (Kind.REQUEST_KEY, lambda _: [Delete(REQUEST)], "is absent, but belongs to state/blocks"),
    (
        Kind.FIXED_KEY,
        lambda _: [Put(keys.fixed_address(bytes([10, 244, 0, 9])), b"nothing")],
        "which does not have it",
    ),
]


@pytest.mark.parametrize(("kind", "plant", "text"), PLANTS)
async def test_a_wrong_pointer_is_seen_and_repaired(
    etcd_plane: Plane,
    checker: Checker,
    kind: Kind,
    plant: Callable[[dict[str, bytes]], list[Operation]],
    text: str,
) -> None:
    before = await etcd_plane.keys()
    await etcd_plane.store.transact([], plant(before))
    (found,) = await checker.findings()
    assert found.kind is kind
    assert text in found.seen
    assert found.meaning.endswith(".")
    assert await checker.repair() == [DONE]
    assert await checker.findings() == []
    assert await etcd_plane.keys() == before
    assert await checker.repair() == []


async def test_a_mark_that_names_no_block_goes_and_the_others_stay(
    etcd_plane: Plane, checker: Checker
) -> None:
    right = [keys.FREED_BLOCKS + text for text in ("10.244.0.7-32", "192.0.2.0-24", "fd09::-64")]
    wrong = keys.FREED_BLOCKS + "nonsense"
    await etcd_plane.store.transact([], [Put(key, b"node-7") for key in (*right, wrong)])
    (found,) = await checker.findings()
    assert found.kind is Kind.FREED_KEY
    assert await checker.repair() == [DONE]
    assert await checker.findings() == []
    assert sorted(await etcd_plane.keys(keys.FREED_BLOCKS)) == sorted(right)


async def test_leftovers_of_a_node_are_seen_and_removed(
    etcd_plane: Plane, checker: Checker
) -> None:
    await etcd_plane.store.transact([], [Delete(keys.node("node-2"))])
    found = await checker.findings()
    assert [item.kind for item in found] == [Kind.ENDPOINT_NODE, Kind.BLOCK_NODE]
    assert await checker.repair() == [DONE, DONE]
    assert await checker.findings() == []
    assert list(await etcd_plane.keys(keys.ENDPOINTS)) == [
        keys.endpoint("shop", "web", "node-1", 1)
    ]


async def plant_block(plane: Plane, text: str, **fields: str) -> ipam_pb2.Block:
    """A block of node-2 that nobody claimed, with its pointers."""
    node = plane.nodes["node-2"]
    block = ipam_pb2.Block(
        prefix=prefix(text),
        pool="pool-node-1",
        node=node.name,
        node_uid=node.uid,
        node_index=node.index,
        request_id="planted",
    )
    block.MergeFrom(ipam_pb2.Block(**fields))  # type: ignore[arg-type]
    key = keys.block(Prefix(block.prefix.address, block.prefix.length))
    request = keys.block_request(node.uid, block.request_id)
    await plane.store.transact(
        [], [Put(key, block.SerializeToString()), Put(request, key.encode())]
    )
    return block


async def test_blocks_that_overlap_are_seen(etcd_plane: Plane, checker: Checker) -> None:
    block = await plant_block(etcd_plane, "10.244.0.0/28")
    (found,) = await checker.findings()
    assert (found.kind, found.repair) == (Kind.BLOCK_OVERLAP, None)
    assert found.seen == "are owned by nodes node-1 and node-2"
    assert "drain one of the nodes" in found.advice
    request = ipam_pb2.ReleaseBlockRequest(prefix=block.prefix, node_uid=block.node_uid)
    await etcd_plane.ipam.ReleaseBlock(request)
    found_after = await checker.findings()
    assert [item for item in found_after if item.kind is Kind.BLOCK_OVERLAP] == []


async def test_a_block_outside_its_pool_is_seen(etcd_plane: Plane, checker: Checker) -> None:
    await plant_block(etcd_plane, "10.99.0.0/26")
    assert [item.kind for item in await checker.findings()] == [Kind.BLOCK_POOL]


async def test_an_address_outside_every_block_is_seen(etcd_plane: Plane, checker: Checker) -> None:
    before = await etcd_plane.keys()
    key = keys.endpoint("shop", "web", "node-1", 1)
    moved = registry_pb2.Endpoint.FromString(before[key])
    moved.addresses.ipv4 = bytes([10, 244, 0, 70])
    await etcd_plane.store.transact(
        [],
        [
            Put(key, moved.SerializeToString(deterministic=True)),
            Delete(ADDRESS),
            Put(keys.address(moved.addresses.ipv4), key.encode()),
        ],
    )
    (found,) = await checker.findings()
    assert (found.kind, found.subject) == (Kind.ENDPOINT_OUTSIDE, "address 10.244.0.70")
    await etcd_plane.release(release(endpoint(1)))
    assert await checker.findings() == []


async def test_two_endpoints_with_one_address_are_seen(etcd_plane: Plane, checker: Checker) -> None:
    before = await etcd_plane.keys()
    twin = registry_pb2.Endpoint.FromString(before[keys.endpoint("shop", "web", "node-1", 1)])
    twin.id, twin.pod = 7, "twin"
    key = keys.endpoint("shop", "twin", "node-1", 7)
    value = twin.SerializeToString(deterministic=True)
    number = keys.node_endpoint("node-1", 7)
    await etcd_plane.store.transact([], [Put(key, value), Put(number, key.encode())])
    (found,) = await checker.findings()
    assert (found.kind, found.advice) == (Kind.ADDRESS_TWICE, "delete one of the pods")


@pytest.mark.usefixtures("etcd_plane")
async def test_claimed_blocks_are_counted_as_ipam_does(checker: Checker) -> None:
    look = await checker.look()
    assert look.stored.counted == {"pool-node-1": 1, "pool-node-2": 1}


async def test_a_busy_store_is_sound(etcd_plane: Plane, checker: Checker) -> None:
    """Endpoints come and go, blocks are claimed and released, a node is deleted meanwhile."""
    await etcd_plane.pool("10.8.0.0/20", name="spare")
    stop = asyncio.Event()
    rounds = 0

    async def churn_endpoints(first: int) -> None:
        number = first
        while not stop.is_set():
            number += 10
            message = endpoint(number, f"10.244.0.{first}", pod=f"pod-{first}")
            await etcd_plane.apply_pods(pod(f"pod-{first}"))
            await etcd_plane.register(message)
            await etcd_plane.release(release(message))

    async def churn_blocks(node: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            block = await etcd_plane.claim(node, f"{number}", "spare")
            await etcd_plane.ipam.ReleaseBlock(
                ipam_pb2.ReleaseBlockRequest(prefix=block.prefix, node_uid=block.node_uid)
            )

    async def churn_nodes() -> None:
        nonlocal rounds
        while not stop.is_set():
            rounds += 1
            await etcd_plane.node("node-9", f"uid-{rounds}")
            for number in range(3):
                await etcd_plane.claim("node-9", f"{number}", "spare")
            request = registry_pb2.DeleteNodeRequest(name="node-9")
            await etcd_plane.registry.DeleteNode(request)

    async with asyncio.TaskGroup() as group:
        for first in range(5, 9):
            group.create_task(churn_endpoints(first))
        group.create_task(churn_blocks("node-1"))
        group.create_task(churn_nodes())
        try:
            for _ in range(6):
                assert await checker.findings(0.05, 0.1, 0.2, 0.4) == []
        finally:
            stop.set()
    assert rounds > 2
    assert await checker.findings() == []


async def test_the_same_key_may_be_wrong_for_another_reason(
    etcd_plane: Plane, checker: Checker
) -> None:
    """The same key is wrong in both looks, but for another reason: nothing is wrong for long."""
    await etcd_plane.store.transact([], [Put(STRAY, b"nothing")])
    first = await checker.look()
    await etcd_plane.store.transact([], [Put(STRAY, b"nothing")])
    second = await checker.look()
    strays = [
        [item for item in look.findings if STRAY.endswith(item.subject)] for look in (first, second)
    ]
    assert strays[0][0].seen == strays[1][0].seen
    assert strays[0][0].identity != strays[1][0].identity

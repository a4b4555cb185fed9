import asyncio

import pytest

from deltaplane.errors import Conflict, Invalid, Refused, Unavailable
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Delete
from deltaplane.v1 import common_pb2
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, endpoint, failure, ok, pair, pod


async def list_nodes(plane: Plane) -> list[str]:
    return [node.name for node in (await ok(plane.registry.ListNodes(pb.ListNodesRequest()))).nodes]


async def delete(plane: Plane, name: str) -> int:
    return (await ok(plane.registry.DeleteNode(pb.DeleteNodeRequest(name=name)))).endpoints_removed


async def test_a_node_keeps_its_index(any_plane: Plane) -> None:
    first = await any_plane.node("b")
    other = await any_plane.node("a")
    assert await any_plane.node("b") == first
    assert (first.index, other.index) == (1, 2)
    assert await list_nodes(any_plane) == ["a", "b"]


async def test_a_refresh_changes_what_it_says_and_nothing_else(any_plane: Plane) -> None:
    before = await any_plane.node()
    message = pb.Node(name="node-1", uid=before.uid, addresses=pair("198.19.0.7"), boot_id="boot-2")
    after = (await ok(any_plane.registry.RegisterNode(pb.RegisterNodeRequest(node=message)))).node
    assert after.index == before.index
    assert after.boot_id == "boot-2"
    assert after.addresses == pair("198.19.0.7")
    assert after.meta.create_revision == before.meta.create_revision
    assert after.meta.mod_revision > before.meta.mod_revision


async def test_a_name_belongs_to_the_uid_that_came_first(any_plane: Plane) -> None:
    await any_plane.node("node-1", "one")
    with pytest.raises(Conflict, match="registered with UID one, not two"):
        await any_plane.node("node-1", "two")
    await delete(any_plane, "node-1")
    assert (await any_plane.node("node-1", "two")).index == 2  # the number 1 is gone for good


async def test_nodes_that_register_at_once_get_distinct_numbers(any_plane: Plane) -> None:
    nodes = await asyncio.gather(*(any_plane.node(f"node-{number}") for number in range(100)))
    assert sorted(node.index for node in nodes) == list(range(1, 101))


@pytest.mark.parametrize(
    ("node", "field"),
    [
        (pb.Node(name="A", uid="u", addresses=pair("198.19.0.1")), "node.name"),
        (pb.Node(name="a", uid="", addresses=pair("198.19.0.1")), "node.uid"),
        (pb.Node(name="a", uid="x/y", addresses=pair("198.19.0.1")), "node.uid"),
        (pb.Node(name="a", uid="u"), "node.addresses"),
        (
            pb.Node(name="a", uid="u", addresses=common_pb2.AddressPair(ipv4=b"123")),
            "node.addresses",
        ),
    ],
)
async def test_a_malformed_node_is_refused(memory_plane: Plane, node: pb.Node, field: str) -> None:
    error = await failure(memory_plane.registry.RegisterNode(pb.RegisterNodeRequest(node=node)))
    assert isinstance(error, Invalid)
    assert error.field == field


async def test_deleting_a_node_takes_all_that_it_had(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/24")
    await any_plane.pool("fd00::/64", 122, "ipv6")
    await any_plane.node()
    await any_plane.claim()
    await any_plane.claim(request="6", pool="ipv6")
    block = (await any_plane.claim(request="other")).prefix.address
    first, second = (f"{'.'.join(map(str, block[:3]))}.{block[3] + n}" for n in (1, 2))
    await any_plane.apply_pods(pod("web"))
    await any_plane.register(endpoint(1, first))
    await any_plane.register(endpoint(2, second, pod="db"))

    assert await delete(any_plane, "node-1") == 2
    assert await delete(any_plane, "node-1") == 0

    left = await any_plane.keys()
    gone = (keys.NODES, keys.ENDPOINTS, keys.BLOCKS, keys.BLOCK_REQUESTS, keys.ADDRESSES)
    assert [key for key in left if key.startswith((*gone, keys.NODE_ENDPOINTS))] == []


async def test_deleting_a_node_leaves_the_others_alone(any_plane: Plane) -> None:
    await any_plane.ready_node("node-1", "10.244.0.0/26")
    await any_plane.ready_node("node-10", "10.244.0.64/26")
    await any_plane.register(endpoint(1))
    kept = await any_plane.register(endpoint(1, "10.244.0.65", node="node-10", pod="db"))
    await delete(any_plane, "node-1")
    assert await any_plane.endpoints() == [kept]
    assert list(await any_plane.keys(keys.BLOCKS)) == [f"{keys.BLOCKS}10.244.0.64-26"]


async def test_a_deleted_node_can_do_nothing(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await delete(any_plane, "node-1")
    error = await failure(any_plane.registration(endpoint(1)))
    assert isinstance(error, Refused)
    assert str(error) == "node node-1 is not registered"


async def test_half_a_deletion_is_finished_by_the_repair(memory_plane: Plane) -> None:
    plane = memory_plane
    await plane.ready_node()
    await plane.register(endpoint(1))
    assert isinstance(plane.store, MemoryStore)
    # What a crash right after the first transaction of DeleteNode leaves.
    await plane.store.transact([], [Delete(keys.node("node-1"))])
    await plane.node("node-1", "reborn")
    error = await failure(plane.registration(endpoint(1)))
    assert isinstance(error, Unavailable)
    assert "former registration" in str(error)

    await plane.repositories.repairer.repair(thorough=False)

    assert await plane.endpoints() == []
    assert await plane.keys(keys.ADDRESSES) == {}
    assert await plane.keys(keys.BLOCKS) == {}

"""Fences of nodes that come and go."""

from deltaplane.store import keys
from deltaplane.store.port import Put
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, endpoint, ok, pair


async def register(plane: Plane, name: str = "node-1", **fields: str) -> pb.RegisterNodeResponse:
    node = pb.Node(name=name, uid=f"uid-of-{name}", addresses=pair("198.19.0.1"), **fields)  # type: ignore[arg-type]
    return await ok(plane.registry.RegisterNode(pb.RegisterNodeRequest(node=node)))


async def listed(plane: Plane) -> pb.ListNodesResponse:
    return await ok(plane.registry.ListNodes(pb.ListNodesRequest()))


async def delete(plane: Plane, name: str = "node-1") -> None:
    await ok(plane.registry.DeleteNode(pb.DeleteNodeRequest(name=name)))


async def test_a_node_is_born_fenced_in_the_transaction_that_registers_it(any_plane: Plane) -> None:
    answer = await register(any_plane)
    (fence,) = (await listed(any_plane)).fences
    assert (fence.node, fence.node_index, fence.node_uid) == ("node-1", 1, "uid-of-node-1")
    assert fence.reason == pb.Fence.REASON_JOINING
    assert fence.meta.create_revision == answer.node.meta.create_revision == answer.revision


async def test_a_refresh_brings_no_fence_and_a_revision_of_its_own(any_plane: Plane) -> None:
    first = await register(any_plane)
    fence = keys.fence("node-1")
    await any_plane.store.transact([], [Put(keys.ROOT + "other", b"")])
    assert (await register(any_plane)).revision == first.revision + 1
    changed = await register(any_plane, boot_id="boot-2")
    assert changed.revision == changed.node.meta.mod_revision == first.revision + 2
    stored = await any_plane.store.get(fence)
    assert stored is not None
    assert stored.mod_revision == first.revision


async def test_a_deleted_node_takes_its_fence_along_and_leaves_an_epoch(any_plane: Plane) -> None:
    await register(any_plane)
    await register(any_plane, "node-2")
    await delete(any_plane)
    assert [fence.node for fence in (await listed(any_plane)).fences] == ["node-2"]
    assert await any_plane.store.get(keys.FENCE_EPOCH) is not None


async def test_a_node_that_returns_is_fenced_anew(any_plane: Plane) -> None:
    await register(any_plane)
    await delete(any_plane)
    await register(any_plane)
    (fence,) = (await listed(any_plane)).fences
    assert (fence.node_index, fence.reason) == (2, pb.Fence.REASON_JOINING)


async def test_blocks_of_a_deleted_node_say_when_they_were_freed(any_plane: Plane) -> None:
    await any_plane.ready_node("node-1", "10.244.0.0/26")
    await any_plane.register(endpoint(1))
    await delete(any_plane)
    freed = await any_plane.store.get(f"{keys.FREED_BLOCKS}10.244.0.0-26")
    assert freed is not None
    gone = await any_plane.store.get(keys.NODE_COUNTER)
    assert gone is not None
    assert freed.mod_revision > gone.mod_revision


async def test_a_fence_of_no_node_is_removed_by_the_repair(any_plane: Plane) -> None:
    for name, index in (("gone", 7), ("node-1", 8)):
        fence = pb.Fence(node=name, node_index=index, reason=pb.Fence.REASON_UNREACHABLE)
        await any_plane.store.transact([], [Put(keys.fence(name), fence.SerializeToString())])
    await register(any_plane)  # its own replaces that of number 8
    await any_plane.repositories.repairer.repair(thorough=False)
    assert [fence.node_index for fence in (await listed(any_plane)).fences] == [1]

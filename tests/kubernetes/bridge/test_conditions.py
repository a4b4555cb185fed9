"""What the bridge writes to the API server: conditions of nodes and of pods that wait for one."""

import asyncio
from pathlib import Path
from typing import Any

from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.port import Delete
from deltaplane.v1 import registry_pb2 as pb
from services.kubernetes.api import resource as resources
from services.kubernetes.kinds import Kind
from services.kubernetes.pods import GATE
from services.kubernetes.strangers import GRACE_SECONDS
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.bridge.slicing import Slicer
from tests.kubernetes.bridge.world import World, world
from tests.services.plane import Plane, endpoint, ok


def conditions(server: ApiServer, resource: Any, name: str, **where: str) -> dict[str, str]:
    status = server.get(resource, name, **where).get("status", {})
    return {it["type"]: it["status"] for it in status.get("conditions", ())}


async def unfence(plane: Plane, name: str) -> None:
    """As the slicer does when the node has applied its first snapshot."""
    await plane.store.transact([], [Delete(keys.fence(name))])


async def test_a_node_is_available_once_its_agent_is_up(bridged: World) -> None:
    server = bridged.server
    taint = [{"type": "NetworkUnavailable", "status": "True"}, {"type": "Ready", "status": "True"}]
    for name in ("node-1", "node-2"):
        server.create(resources.NODES, name, status={"conditions": taint})
        await bridged.plane.node(name)
    await unfence(bridged.plane, "node-1")

    async def cleared() -> bool:
        return conditions(server, resources.NODES, "node-1")["NetworkUnavailable"] == "False"

    await bridged.until(cleared)
    assert conditions(server, resources.NODES, "node-1")["Ready"] == "True"
    # It has registered, and applied nothing yet.
    assert conditions(server, resources.NODES, "node-2")["NetworkUnavailable"] == "True"


async def test_a_node_that_the_cluster_removes_is_deleted_with_its_endpoints(
    bridged: World,
) -> None:
    for name in ("node-1", "node-2"):
        bridged.server.create(resources.NODES, name)
        await bridged.plane.node(name)
    # Its agent was faster than the watch: it is no node that has gone.
    await bridged.plane.node("node-3")

    async def registered() -> list[str]:
        answer = await ok(bridged.plane.registry.ListNodes(pb.ListNodesRequest()))
        return [node.name for node in answer.nodes]

    async def gone() -> bool:
        return await registered() == ["node-2", "node-3"]

    async def known() -> bool:
        return {"node-1", "node-2"} <= bridged.bridge.books[Kind.NODE].stored.keys()

    # One that goes before the bridge has seen it registered is a stranger, for a while.
    await bridged.until(known)
    await bridged.settled()
    bridged.server.delete(resources.NODES, "node-1")
    await bridged.until(gone)
    assert GRACE_SECONDS >= 60


async def opened(server: ApiServer) -> bool:
    return conditions(server, resources.PODS, "web", namespace="shop").get(GATE) == "True"


async def test_a_gate_opens_when_the_pod_is_known_everywhere(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    slicer, where = Slicer(), f"unix:{socket}-slicer"
    await served.ready_node()
    async with (
        slicer.serving(where),
        rpc.channel(where) as channel,
        world(server, served, socket, slicer=channel) as found,
    ):
        found.namespace()
        server.create(resources.NODES, "node-1")
        gate = {"readinessGates": [{"conditionType": GATE}]}
        found.pod("web", spec={**gate, "nodeName": "node-1"})
        await found.has_pods("shop/web")
        uid = server.get(resources.PODS, "web", namespace="shop")["metadata"]["uid"]
        # Nobody is asked before there is an endpoint: one of a former pod of that name might do.
        assert slicer.asked == []
        await served.register(endpoint(7, pod="web", pod_uid=uid))

        async def asked() -> bool:
            return bool(slicer.asked)

        await found.until(asked)
        slicer.complete["shop/web"] = asyncio.Event()
        assert not await opened(server)
        slicer.complete["shop/web"].set()

        async def is_open() -> bool:
            return await opened(server)

        await found.until(is_open)

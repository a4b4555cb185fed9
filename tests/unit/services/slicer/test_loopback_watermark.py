"""The watermark from acknowledgements of real clients to barriers, through a store."""

import asyncio
from pathlib import Path

from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put
from deltaplane.v1 import registry_pb2, slicer_pb2, slicer_pb2_grpc
from services.slicer.watermark import Watermark, encode_watermark
from tests.unit.services.slicer.loopback import (
    PATIENCE,
    Agent,
    Switch,
    World,
    agents,
    background,
    receipts,
    slicer,
    until,
)


async def release(world: World, node: int = 1, number: int = 1) -> int:
    return await world.write(Delete(world.endpoint_key(node, number)))


async def fence(world: World, index: int, reason: registry_pb2.Fence.Reason.ValueType) -> int:
    record = registry_pb2.Fence(
        node=f"node-{index}", node_index=index, node_uid=f"uid-{index}", reason=reason
    )
    return await world.write(Put(keys.fence(f"node-{index}"), record.SerializeToString()))


async def quarantine(target: str, limit: int = 0) -> slicer_pb2.GetQuarantineResponse:
    async with rpc.channel(target) as channel:
        stub = slicer_pb2_grpc.SlicerStub(channel)
        return await stub.GetQuarantine(
            slicer_pb2.GetQuarantineRequest(limit=limit), timeout=PATIENCE
        )


async def held_by(target: str, node: str) -> slicer_pb2.GetQuarantineResponse:
    """The quarantine once nobody but one node holds it up: acknowledgements take their time."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await quarantine(target)
            if [holder.node for holder in found.holders] == [node]:
                return found


def watermark(agent: Agent) -> int:
    return agent.barriers[-1].watermark if agent.barriers else 0


async def test_a_release_is_free_once_every_agent_has_acknowledged_it(
    world: World, tmp_path: Path
) -> None:
    switch = Switch(tmp_path)
    first, second = Agent(1), Agent(2)
    async with (
        slicer(world, switch.first),
        slicer(world, switch.second),
        background(first.run(switch.first)),
        background(second.run(switch.second)),
    ):
        await until(lambda: first.revision and second.revision)
        second.may_apply.clear()
        released = await release(world)
        await until(lambda: first.revision >= released)
        assert watermark(first) < released
        second.may_apply.set()
        await until(lambda: watermark(first) >= released)
        await until(lambda: watermark(second) >= released)
        assert first.barriers[-1].strict_watermark >= released
        stored = await world.store.get(keys.WATERMARK)
        assert stored is not None


async def test_quarantine_says_what_waits_and_for_whom(world: World, target: str) -> None:
    await world.endpoint(1, 2, 301)
    agent, slow = Agent(1), Agent(2)
    async with slicer(world, target), background(agent.run(target)):
        async with background(slow.run(target)):
            await until(lambda: agent.revision and slow.revision)
            slow.may_apply.clear()
            released = await release(world)
            last = await release(world, 1, 2)
            found = await held_by(target, "node-2")
            assert [bytes(entry.address) for entry in found.addresses] == [
                bytes((10, 244, 1, 1)),
                bytes((10, 244, 1, 2)),
            ]
            assert [entry.released_revision for entry in found.addresses] == [released, last]
            assert {entry.node for entry in found.addresses} == {"node-1"}
            assert found.total == 2
            assert found.watermark_revision < released
            (holder,) = found.holders
            assert (holder.node, holder.reason, holder.fenced) == ("node-2", "lagging", False)
            assert 0 < holder.effective_revision < released
            assert len((await quarantine(target, 1)).addresses) == 1
        await fence(world, 2, registry_pb2.Fence.REASON_UNREACHABLE)
        await until(lambda: watermark(agent) >= last)
        found = await held_by(target, "node-2")
        assert (list(found.addresses), found.total) == ([], 0)
        assert found.strict_watermark_revision < released
        (holder,) = found.holders
        assert (holder.reason, holder.fenced) == ("not connected, unreachable", True)
        (receipt,) = await receipts(target, wait=False, revision=last)
        assert [(entry.node, entry.reason) for entry in receipt.missing] == [("node-2", "fenced")]


async def test_a_new_node_is_live_from_its_first_snapshot_on(world: World, target: str) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.revision)
        await fence(world, 2, registry_pb2.Fence.REASON_JOINING)
        released = await release(world)
        await until(lambda: watermark(agent) >= released)  # it holds nobody up

        joining = Agent(2)
        async with background(joining.run(target)):
            await until(lambda: joining.revision >= released)
            await world.endpoint(1, 2, 300)  # so that there is something to acknowledge
            while await world.store.get(keys.fence("node-2")) is not None:
                await agents(target)
            epoch = await world.store.get(keys.FENCE_EPOCH)
            assert epoch is not None
            joining.may_apply.clear()
            later = await release(world, 1, 2)
            await until(lambda: agent.revision >= later)
            assert watermark(agent) < later  # now it does
            joining.may_apply.set()
            await until(lambda: watermark(agent) >= later)


async def test_a_node_that_is_fenced_while_connected_gets_a_snapshot(
    world: World, target: str
) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.revision)
        fenced_at = await fence(world, 1, registry_pb2.Fence.REASON_UNREACHABLE)
        await world.endpoint(1, 2, 300)
        await until(lambda: agent.revision > fenced_at)
        while await world.store.get(keys.fence("node-1")) is not None:
            await agents(target)
        (status,) = await agents(target)
        assert status.mode == slicer_pb2.Welcome.MODE_SNAPSHOT


async def test_what_nobody_releases_is_passed_too_a_little_later(world: World, target: str) -> None:
    agents_ = Agent(1), Agent(2)
    async with (
        slicer(world, target),
        background(agents_[0].run(target)),
        background(agents_[1].run(target)),
    ):
        await until(lambda: all(agent.revision for agent in agents_))
        added = await world.endpoint(2, 5, 300)
        # An agent that rebuilds its journal quarantines at a head like this one.
        silent = await world.write(Put(keys.ROOT + "other", b""))
        await until(lambda: all(watermark(agent) >= silent > added for agent in agents_))


async def test_a_watermark_of_another_lineage_is_none(world: World, target: str) -> None:
    value = encode_watermark(b"another lineage!", Watermark(live=1 << 40, strict=1 << 40))
    await world.write(Put(keys.WATERMARK, value))
    agent, other = Agent(1), Agent(2)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.revision)
        assert watermark(agent) == 0
        async with background(other.run(target)):
            released = await release(world)
            await until(lambda: watermark(agent) >= released)
            assert watermark(agent) < 1 << 40

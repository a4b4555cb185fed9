"""Receipts over real connections."""

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from deltaplane.model.objects import Kind
from deltaplane.v1 import (
    receipts_pb2,
)
from nodeagent.stream import (
    Refusal,
)
from tests.unit.services.slicer.loopback import (
    PATIENCE,
    Agent,
    World,
    background,
    free_port,
    receipts,
    slicer,
    until,
)


async def test_receipt_is_complete_only_after_the_ack(world: World, target: str) -> None:
    one, two = Agent(1), Agent(2)
    async with (
        slicer(world, target),
        background(one.run(target)),
        background(two.run(target)),
    ):
        await until(lambda: one.barriers and two.barriers)
        two.may_apply.clear()
        await world.policy("closed", "web")
        waiting = asyncio.ensure_future(receipts(target, policy="shop/closed"))
        now: list[receipts_pb2.WatchResponse] = []
        async with asyncio.timeout(PATIENCE):
            while not now or now[0].nodes_enforced < 1:
                now = await receipts(target, wait=False, policy="shop/closed")
        assert [(m.node, m.reason) for m in now[0].missing] == [("node-2", "lagging")]
        assert now[0].missing[0].lagging_seconds > 0
        assert not now[0].complete
        assert now[0].times.nodes == 1
        assert not waiting.done()

        two.may_apply.set()
        async with asyncio.timeout(PATIENCE):
            last = (await waiting)[-1]
        assert last.complete
        assert (last.nodes_enforced, last.nodes_total) == (2, 2)
        assert two.barriers[-1].revision >= last.revision
        assert last.times.nodes == 2
        assert 0 < last.times.p50_ms <= last.times.p99_ms == last.times.max_ms


async def test_receipt_names_a_node_that_is_away_and_one_that_refuses(
    world: World, target: str
) -> None:
    one = Agent(1)
    one.refuses = (Refusal(kind=Kind.SUBJECT_POLICY, key=(300).to_bytes(4), reason="map is full"),)
    async with slicer(world, target), background(one.run(target)):
        await until(lambda: one.barriers)
        await world.policy("closed", "web")
        reasons: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            while "refused" not in reasons.get("node-1", ""):
                receipt = (await receipts(target, wait=False, policy="shop/closed"))[0]
                reasons = {m.node: m.reason for m in receipt.missing}
        assert reasons == {
            "node-1": "refused: SUBJECT_POLICY 0000012c: map is full",
            "node-2": "not connected",
        }
        (now,) = await receipts(target, wait=False, policy="shop/closed")
        (refused,) = now.missing[0].refused
        assert (refused.object, refused.reason) == (
            "policies of identity 300 (shop app=web)",
            "map is full",
        )
        # The other subjects of receipts do not depend on that object.
        one.refuses = ()
        await world.endpoint(1, 2, 300)
        async with asyncio.timeout(PATIENCE):
            while "node-1" in reasons:
                receipt = (await receipts(target, wait=False, policy="shop/closed"))[0]
                reasons = {m.node: m.reason for m in receipt.missing}


async def test_receipts_count_agents_of_other_replicas(world: World, tmp_path: Path) -> None:
    first, second = (f"unix:{tmp_path}/{name}.sock" for name in ("first", "second"))
    one, two = Agent(1), Agent(2)
    async with (
        slicer(world, first, advertise=f"127.0.0.1:{free_port()}"),
        slicer(world, second, advertise=f"127.0.0.1:{free_port()}"),
        background(one.run(first)),
        background(two.run(second)),
    ):
        await until(lambda: one.barriers and two.barriers)
        await world.policy("closed", "web")
        last = (await receipts(first, policy="shop/closed"))[-1]
        assert (last.nodes_enforced, last.nodes_total, last.complete) == (2, 2, True)
        assert last.times.nodes == 2, "each replica measures its own agents"


async def test_a_slicer_that_starts_again_has_measured_nothing(world: World, target: str) -> None:
    """The policy was committed before; nor is it news to an agent that has it and comes back."""
    one = Agent(1)
    await world.policy("closed", "web")
    for name in ("first", "second"):
        async with slicer(world, target, span="scoped"), background(one.run(target)):
            last = (await receipts(target, policy="shop/closed"))[-1]
            assert (last.complete, last.HasField("times")) == (True, False)
            await world.policy(name, "web")
            last = (await receipts(target, policy=f"shop/{name}"))[-1]
            assert (last.complete, last.times.nodes) == (True, 1)
        one = Agent(1, floor=one.hello.floor)


async def test_a_policy_that_is_not_there_has_no_receipt(world: World, target: str) -> None:
    async with slicer(world, target):
        with pytest.raises(grpc.aio.AioRpcError, match="there is no policy 'shop/absent'"):
            await receipts(target, policy="shop/absent")


async def test_a_policy_of_any_kind_has_receipts(world: World, target: str) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.barriers)
        await world.general_policy("CiliumNetworkPolicy", "shop", "p")
        revision = await world.general_policy("ClusterNetworkPolicy", "", "p")
        for subject in ("CiliumNetworkPolicy:shop/p", "ClusterNetworkPolicy:p"):
            receipt = (await receipts(target, wait=False, policy=subject))[0]
            assert receipt.revision in (revision - 1, revision)
        for subject in ("CiliumNetworkPolicy:other/p", "AdminNetworkPolicy:p", "Policy:p", "p"):
            with pytest.raises(grpc.aio.AioRpcError, match=f"there is no policy '{subject}'"):
                await receipts(target, policy=subject)


async def test_only_nodes_whose_span_has_the_subject_are_counted(world: World, target: str) -> None:
    """The pods of node 1 are selected by the policy; node 2 has others and never hears of it."""
    one = Agent(1)
    async with slicer(world, target, span="scoped"), background(one.run(target)):
        await until(lambda: one.barriers)
        await world.policy("closed", "web")
        last = (await receipts(target, policy="shop/closed"))[-1]
        assert (last.nodes_enforced, last.nodes_total, last.complete) == (1, 1, True)
        revision = await world.endpoint(1, 5, 300)
        last = (await receipts(target, endpoint="shop/pod-1-5"))[-1]
        assert (last.nodes_enforced, last.nodes_total, last.revision) == (1, 1, revision)
        # A revision is everybody's: node 2 is away.
        (now,) = await receipts(target, wait=False, revision=revision)
        assert [(m.node, m.reason) for m in now.missing] == [("node-2", "not connected")]

"""What ADD waits for with `add_waits_for = span`, against a real slicer."""

import asyncio
from pathlib import Path

from nodeagent.cni.netconf import PodName
from nodeagent.spanning import SpanWait
from tests.unit.services.slicer.loopback import PATIENCE, Agent, World, background, slicer, until

POD = PodName(namespace="shop", name="pod-2-9", uid="")


async def test_it_ends_when_the_nodes_of_the_span_have_the_endpoint(
    world: World, target: str, tmp_path: Path
) -> None:
    one, two = Agent(1), Agent(2)
    waiter = SpanWait([f"unix:{tmp_path}/nobody.sock", target], seconds=PATIENCE)
    async with (
        slicer(world, target),
        background(one.run(target)),
        background(two.run(target)),
    ):
        await until(lambda: one.barriers and two.barriers)
        one.may_apply.clear()
        await world.endpoint(2, 9, 301)
        waiting = asyncio.ensure_future(waiter.wait(POD))
        await until(lambda: (2, 9, 301) in two.endpoints)
        assert not waiting.done(), "node 1 has not applied it"
        one.may_apply.set()
        assert await waiting
    await waiter.close()


async def test_a_node_that_is_away_does_not_keep_a_pod_from_starting(
    world: World, target: str
) -> None:
    waiter = SpanWait([target], seconds=0.05)
    async with slicer(world, target):
        await world.endpoint(2, 9, 301)
        assert not await waiter.wait(POD)
    assert not await waiter.wait(POD), "no slicer at all"
    await waiter.close()

"""An agent that holds a sweep back, over a real connection; what it holds: tests/unit/nodeagent."""

import asyncio
from collections.abc import Callable

from deltaplane.delta.messages import Mode
from deltaplane.model.objects import BRAKED, Kind
from deltaplane.v1 import slicer_pb2
from nodeagent.stream import ApplyResult, BarrierReached, Refusal
from tests.unit.services.slicer.loopback import (
    PATIENCE,
    Agent,
    World,
    agents,
    background,
    slicer,
    until,
)

REFUSAL = Refusal(
    kind=Kind.NODE, key=(1).to_bytes(4), reason=f"{BRAKED}7 of 8 entries would go", retryable=True
)


class Braking(Agent):
    """It holds back when it is told to. replaced: what the stream said of each barrier."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.holds = True
        self.replaced: list[bool] = []

    async def apply(self, barrier: BarrierReached) -> ApplyResult:
        self.replaced.append(self.stream.replaced)
        await super().apply(barrier)
        return ApplyResult((REFUSAL,), held=True) if self.holds else ApplyResult()


async def status_with(
    target: str, wanted: Callable[[slicer_pb2.AgentStatus], object]
) -> slicer_pb2.AgentStatus:
    """Asks until the only agent's status is as wanted."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for status in await agents(target):
                if wanted(status):
                    return status


async def test_a_braked_agent_says_so_and_vouches_for_nothing_until_it_is_released(
    world: World, target: str
) -> None:
    agent = Braking(1)
    async with slicer(world, target, snapshot_memory=1), background(agent.run(target)):
        await until(lambda: agent.barriers)
        status = await status_with(target, lambda status: status.braked)
        assert status.braked == "7 of 8 entries would go"
        revision = await world.endpoint(2, 7, 301)
        await until(lambda: agent.revision >= revision)
        (status,) = await agents(target)
        assert (status.applied_revision, status.effective_revision) == (0, 0)
        assert agent.replaced[0]
        assert not any(agent.replaced[1:])

        agent.holds = False
        revision = await world.endpoint(2, 8, 301)
        await until(lambda: agent.revision >= revision)
        status = await status_with(target, lambda status: status.applied_revision >= revision)
        assert not status.braked
        assert status.nacked_objects == 0


async def test_an_agent_that_brakes_takes_back_what_it_vouched_for(
    world: World, target: str
) -> None:
    agent = Braking(1)
    agent.holds = False
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.barriers)
        await status_with(target, lambda status: status.applied_revision)
        agent.holds = True
        await world.endpoint(2, 7, 301)
        status = await status_with(target, lambda status: status.braked)
        # On a stream that began with nothing, though it holds a view that could be resumed.
        assert Mode(status.mode) is Mode.SNAPSHOT
        assert (status.applied_revision, status.effective_revision) == (0, 0)

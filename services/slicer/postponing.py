"""Tells an agent that it is welcome later: a Welcome, as no stream begins without, and a Drain."""

import asyncio
import contextlib
import random

import grpc.aio

from deltaplane.delta.messages import Drain, Hello, Mode, Welcome
from deltaplane.delta.wire import ProtobufEncoder, bundled
from deltaplane.delta.writer import BOOKMARK_SECONDS
from deltaplane.runtime.clock import Clock
from services.slicer import metrics
from services.slicer.fanout import Fanout

LEAVE_SECONDS = 2.0
"""How long the agent has to read it."""


async def is_postponed(
    hello: Hello,
    context: "grpc.aio.ServicerContext[bytes, bytes]",
    fanout: Fanout,
    clock: Clock,
    server_id: str,
) -> bool:
    """Whether the agent was told to come back, and has left."""
    chance = random.random()  # noqa: S311 - spreads agents, keeps no secret
    seconds = fanout.postponed(hello, now=clock.now(), chance=chance)
    if seconds is None:
        return False
    metrics.POSTPONED.inc()
    for data in bundled(_goodbye(hello, fanout, server_id, seconds)):
        await context.write(data)
    # Ended by us before it is read, the stream would be one that broke, and the time forgotten.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_SECONDS):
            while isinstance(await context.read(), bytes):
                pass
    return True


def _goodbye(hello: Hello, fanout: Fanout, server_id: str, seconds: float) -> list[bytes]:
    encoder = ProtobufEncoder()
    welcome = Welcome(
        lineage=fanout.sender.lineage,
        server_id=server_id,
        mode=Mode.SNAPSHOT,
        head_revision=fanout.sender.head,
        bookmark_period_ms=int(BOOKMARK_SECONDS * 1000),
        ack_interval_ms=100,
        node_index=fanout.facts.nodes[hello.node].object.index,
    )
    drain = Drain(deadline_ms=int(LEAVE_SECONDS * 1000), retry_after_ms=max(1, int(seconds * 1000)))
    return [encoder.control(welcome), encoder.control(drain)]

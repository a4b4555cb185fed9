"""The control group: agents on grpc.aio beside the raw ones, in a process of their own.

    python -m bench.scale.control      commands on standard input, answers on standard output

In mode `delta` it is the real agent's stream (`nodeagent.stream`), which recomputes the digests of
its view; only what it applies to is memory instead of a kernel.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio

from bench.scale import commands
from bench.scale.agents import BASELINE, EndpointAgent, ListedAgent, SliceAgent
from bench.scale.applied import Log
from bench.scale.decoding import Level, decoder_of
from deltaplane.delta.messages import BucketReplace, ClientMessage, Digests, ServerMessage
from deltaplane.delta.view import Held
from deltaplane.model.objects import EndpointObject, Kind
from deltaplane.runtime import log, rpc
from nodeagent.stream import ApplyResult, BarrierReached, HelloState, SlicerStream, View
from nodeagent.tracing import Following

SYNC_SECONDS = 0.02
LOST_SHARE = 0.5
"""Of the entries that are spoiled; the others change."""

RETRY_SECONDS = 0.1


class Mending(Following):
    """What the stream says of repairs.

    Attributes:
        asked_ns: when it first sent digests since somebody set this to 0.
        buckets: that were replaced since somebody set this to 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked_ns = self.buckets = 0

    def received(self, message: ServerMessage) -> None:
        """See Following."""
        super().received(message)
        self.buckets += isinstance(message, BucketReplace)

    def sent(self, message: ClientMessage) -> None:
        """See Following."""
        super().sent(message)
        if isinstance(message, Digests):
            self.asked_ns = self.asked_ns or time.monotonic_ns()


@dataclass(slots=True)
class Spoiled:
    """An entry in memory that has changed by itself, and when; mended_ns 0: it still is."""

    key: bytes
    right: Held[EndpointObject]
    at_ns: int
    mended_ns: int = 0


@dataclass(slots=True)
class DeltaControl:
    """The real agent's stream. Its counters are the stream's own affair and stay 0 here."""

    index: int
    mending: Mending = field(default_factory=Mending)
    spoiled: Spoiled | None = None
    log: Log = field(default_factory=Log)
    in_sync_ns: int = 0
    snapshots: int = 0
    messages: int = 0
    acks: int = 0
    view: View = field(default_factory=View)
    revision: int = 0

    async def run(self, target: str) -> None:
        """Streams until cancelled."""
        name = f"node-{self.index}"
        await SlicerStream(following=self.mending).run(
            [target], HelloState(node=name, node_uid=f"uid-{name}"), self._apply
        )

    async def _apply(self, barrier: BarrierReached) -> ApplyResult:
        self.view = barrier.view
        now = time.monotonic_ns()
        if self.in_sync_ns:
            changed = [key for kind, key in barrier.changed if kind is Kind.ENDPOINT]
            held = barrier.view.endpoints
            new = [k for k in changed if k in held and held[k].generation > self.revision]
            came = array("Q", map(int.from_bytes, new))
            went = array("Q", [int.from_bytes(key) for key in changed if key not in held])
            self.log.note(now, came, went)
        self.revision = barrier.revision
        self.in_sync_ns = self.in_sync_ns or now
        if (spoiled := self.spoiled) is not None and not spoiled.mended_ns:
            named = (Kind.ENDPOINT, spoiled.key) in barrier.changed
            if named and barrier.view.endpoints.get(spoiled.key) == spoiled.right:
                spoiled.mended_ns = now
        return ApplyResult()

    def spoil(self, drawn: random.Random) -> None:
        """Lets memory lose or change an entry."""
        held = self.view.endpoints
        key = drawn.choice(sorted(held))
        right = held[key]
        self.mending.asked_ns = self.mending.buckets = 0
        self.spoiled = Spoiled(key, right, time.monotonic_ns())
        if drawn.random() < LOST_SHARE:
            del held[key]
        else:
            other = replace(right.value, identity=right.value.identity + 1)
            held[key] = Held(other, right.generation)

    def endpoints(self) -> Iterator[tuple[int, Any]]:
        """All that it holds, by endpoint key."""
        for key, held in self.view.endpoints.items():
            yield int.from_bytes(key), held.value


@dataclass(slots=True)
class ListedControl:
    """An agent of a baseline on grpc.aio."""

    agent: ListedAgent
    bytes: int = 0

    async def run(self, target: str) -> None:
        """Streams until cancelled."""
        while True:
            async with rpc.channel(target) as channel:
                call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(BASELINE)()
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call.write(self.agent.hello())
                    async for message in call:
                        self.agent.receive(message)
            await asyncio.sleep(RETRY_SECONDS)


class Control:
    """The agents of this process."""

    def __init__(self) -> None:
        self._agents: dict[int, Any] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def do(self, command: Mapping[str, Any]) -> Mapping[str, object]:
        """Answers a command; what `fleet` answers."""
        match command["do"]:
            case "connect":
                self._start(command)
                return {}
            case "cut":
                return {}  # the raw agents are cut; these go on as witnesses
            case "sync":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(command["seconds"]):
                        await self._in_sync()
                return commands.stats(list(self._agents.values()), received=0)
            case "stats":
                return commands.stats(list(self._agents.values()), received=0)
            case "spoil":
                return await self._spoil(command["seed"], command["seconds"])
            case "close":
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                self._agents, self._tasks = {}, []
                return {}
            case _:
                return commands.answer(self._agents, command) or {}

    async def _spoil(self, seed: int, seconds: float) -> dict[str, object]:
        """Spoils an entry of every agent, and waits until the streams have put it right."""
        drawn = random.Random(seed)
        agents = [agent for agent in self._agents.values() if agent.view.endpoints]
        for agent in agents:
            agent.spoil(drawn)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(agent.spoiled.mended_ns for agent in agents):  # noqa: ASYNC110
                    await asyncio.sleep(SYNC_SECONDS)
        mended = [agent for agent in agents if agent.spoiled.mended_ns]
        return {
            "spoiled": len(agents),
            "found_ns": [a.mending.asked_ns - a.spoiled.at_ns for a in mended],
            "mended_ns": [a.spoiled.mended_ns - a.mending.asked_ns for a in mended],
            "buckets": [a.mending.buckets for a in mended],
        }

    async def _in_sync(self) -> None:
        # Two kinds of agents, one of which knows nothing of events: a look now and then will do.
        while not all(agent.in_sync_ns for agent in self._agents.values()):  # noqa: ASYNC110
            await asyncio.sleep(SYNC_SECONDS)

    def _start(self, command: Mapping[str, Any]) -> None:
        target = f"{command['host']}:{command['port']}"
        mode = command["mode"]
        decoder: Any = decoder_of(mode, Level.FULL)
        for index in command["nodes"]:
            if mode == "delta":
                agent = DeltaControl(index)
                self._agents[index] = agent
                run = agent.run(target)
            else:
                kind = SliceAgent if mode == "slice" else EndpointAgent
                listed = ListedControl(kind(decoder, time.monotonic_ns))
                self._agents[index] = listed.agent
                run = listed.run(target)
            self._tasks.append(asyncio.create_task(run))


async def serve() -> None:
    """Serves until standard input ends."""
    log.configure("json", "error", "control")
    control = Control()
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = await control.do(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await control.do({"do": "close"})


if __name__ == "__main__":
    asyncio.run(serve())

"""The control group: agents on grpc.aio beside the raw ones, in a process of their own.

    python -m bench.scale.control      commands on standard input, answers on standard output

In mode `delta` it is the real agent's stream (`nodeagent.stream`), which recomputes the digests of
its view; only what it applies to is memory instead of a kernel.
"""

import asyncio
import contextlib
import json
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from bench.scale import commands
from bench.scale.agents import BASELINE, EndpointAgent, ListedAgent, SliceAgent
from bench.scale.applied import Log
from bench.scale.decoding import Level, decoder_of
from deltaplane.model.objects import Kind
from deltaplane.runtime import log, rpc
from nodeagent.stream import ApplyResult, BarrierReached, HelloState, SlicerStream, View

SYNC_SECONDS = 0.02
RETRY_SECONDS = 0.1


@dataclass(slots=True)
class DeltaControl:
    """The real agent's stream. Its counters are the stream's own affair and stay 0 here."""

    index: int
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
        await SlicerStream().run(
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
        return ApplyResult()

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
            case "close":
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                self._agents, self._tasks = {}, []
                return {}
            case _:
                return commands.answer(self._agents, command) or {}

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

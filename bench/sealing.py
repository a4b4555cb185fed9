"""What TLS costs on streams to agents: CPU of a message, with certificates and without, in one run.

Two servers of a process each, alike but for their options, and in this process the agents' client.
A message goes to each agent and is answered with an acknowledgement before the next one: no two
share a wake-up or a packet, so TLS seals each of them by itself.
"""

import asyncio
import contextlib
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import grpc.aio

from deltaplane.certs import files
from deltaplane.certs.issuing import Wanted
from deltaplane.runtime import interpreter, rpc, service
from deltaplane.runtime.config import ProcessConfig
from deltaplane.runtime.roles import Peer, Role
from deltaplane.runtime.tls import Tls

SERVICE = "deltaplane.v1.Slicer"
ACK = bytes(24)
NODE = "bench"
START_SECONDS = 120.0

SIZES = (200, 2000, 16_000)
"""Bytes: a frame of one endpoint, of ten, and a piece of a snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is sent. size: bytes of a message; messages: to each agent in a round."""

    agents: int
    size: int
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU of a message and its acknowledgement, µs: the median round."""

    server_us: float
    client_us: float

    @property
    def both_us(self) -> float:
        """At both ends."""
        return self.server_us + self.client_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What was measured of one shape."""

    shape: Shape
    plain: Cost
    sealed: Cost

    def ratio(self, side: str) -> float:
        """Sealed by plain; side: an attribute of Cost."""
        return float(getattr(self.sealed, side) / getattr(self.plain, side))


def measure(shapes: Sequence[Shape], rounds: int) -> list[Sealed]:
    """Measures each shape, both ways in turn."""
    with tempfile.TemporaryDirectory(prefix="dp-bench-") as folder:
        return asyncio.run(_measure(shapes, rounds, Path(folder)))


async def _measure(shapes: Sequence[Shape], rounds: int, folder: Path) -> list[Sealed]:
    ca = files.make_authority(folder / "ca")
    server, agent = folder / "slicer", folder / "agent"
    files.make(ca, Wanted(peer=Peer(Role.SLICER)), server)
    files.make(ca, Wanted(peer=Peer(Role.NODE, NODE)), agent)
    interpreter.prepare()
    results = []
    async with _server(None) as plain, _server(server) as sealed:
        ways = ((plain, None), (sealed, Tls(agent, Role.SLICER)))
        for shape in shapes:
            found: tuple[list[Cost], list[Cost]] = ([], [])
            for number in range(rounds + 1):
                # Who comes first changes: what the other one leaves behind is nobody's for long.
                for way in (0, 1) if number % 2 else (1, 0):
                    (pid, target), tls = ways[way]
                    cost = await _round(shape, pid, target, tls)
                    if number:  # the first warms up
                        found[way].append(cost)
            results.append(Sealed(shape=shape, plain=_middle(found[0]), sealed=_middle(found[1])))
    return results


def _middle(costs: Sequence[Cost]) -> Cost:
    return Cost(
        server_us=median(cost.server_us for cost in costs),
        client_us=median(cost.client_us for cost in costs),
    )


async def _round(shape: Shape, pid: int, target: str, tls: Tls | None) -> Cost:
    """Streams to all agents; connections are made before the clock runs."""
    async with contextlib.AsyncExitStack() as stack:
        calls = []
        for _ in range(shape.agents):
            channel: Any = await stack.enter_async_context(rpc.channel(target, tls))
            call = channel.stream_stream(f"/{SERVICE}/Stream")()
            await call.write(shape.size.to_bytes(4))
            await call.read()
            calls.append(call)
        before = _cpu(pid), time.process_time()
        await asyncio.gather(*(_agent(call, shape.messages) for call in calls))
        after = _cpu(pid), time.process_time()
        for call in calls:
            call.cancel()
    count = shape.agents * shape.messages
    return Cost(
        server_us=(after[0] - before[0]) / count * 1e6,
        client_us=(after[1] - before[1]) / count * 1e6,
    )


async def _agent(call: Any, messages: int) -> None:  # noqa: ANN401 - grpc's call
    for _ in range(messages):
        await call.write(ACK)
        await call.read()


def _cpu(pid: int) -> float:
    """CPU seconds of a process, all threads: the clock that clock_getcpuclockid(3) names."""
    return time.clock_gettime((~pid << 3) | 2)


@contextlib.asynccontextmanager
async def _server(folder: Path | None) -> AsyncIterator[tuple[int, str]]:
    """A running server: process id and target. folder: of its certificate; None: plain."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, folder), daemon=True)
    process.start()
    try:
        if not await asyncio.to_thread(ours.poll, START_SECONDS):
            raise RuntimeError("the server did not start")
        target = json.loads(ours.recv())["listen"][0]
        assert process.pid is not None
        yield process.pid, target
    finally:
        process.kill()
        process.join()


def _serve(peer: Any, folder: Path | None) -> None:  # noqa: ANN401 - a Connection
    config = ProcessConfig(
        tls_dir=folder, insecure=folder is None, listen=("127.0.0.1:0",), log_level="error"
    )
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        service.run(_announced(config, said, peer))


async def _announced(config: ProcessConfig, said: io.StringIO, peer: Any) -> None:  # noqa: ANN401
    """Serves; hands over the line that says where."""
    async with asyncio.TaskGroup() as tasks:
        name = str(Role.SLICER)
        tasks.create_task(service.serve(config, name=name, register=_register))
        while not said.getvalue():  # noqa: ASYNC110 - what it prints makes no event
            await asyncio.sleep(0.01)
        peer.send(said.getvalue())


def _register(server: grpc.aio.Server) -> Sequence[str]:
    async def stream(_requests: object, context: Any) -> None:  # noqa: ANN401 - grpc's
        """Answers each acknowledgement with a message, as a slicer writes them: bytes."""
        size = int.from_bytes(await context.read())
        message = bytes(size)
        await context.write(b"")
        while await context.read() is not grpc.aio.EOF:
            await context.write(message)

    handlers: dict[str, Any] = {"Stream": grpc.stream_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return (SERVICE,)

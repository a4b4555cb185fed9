"""One mode set up: a fresh etcd with the cluster in it, its server, the registry, the agents."""

import asyncio
import contextlib
import functools
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from bench.claiming import binary
from bench.scale import records
from bench.scale.applied import Histogram, Measured
from bench.scale.commands import measured_from_json
from bench.scale.decoding import Level
from bench.scale.processes import Agents, Program, agents, program, understands
from bench.scale.usage import Usage, usage
from bench.scale.world import World
from bench.scale.writer import Written, fill
from deltaplane.errors import Internal
from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.embedded import EtcdProcess
from deltaplane.store.etcd import EtcdStore
from deltaplane.v1 import (
    receipts_pb2,
    receipts_pb2_grpc,
    registry_pb2,
    slicer_pb2,
    slicer_pb2_grpc,
)

SYNC_SECONDS = 300.0
SETTLE_SECONDS = 60.0
STALE_SECONDS = 900
"""A machine too small for a load must not make the slicer fence nodes while it is measured."""

VERIFY_SECONDS = 10.0
VERIFIED_AGENTS = 20
"""Whose memory is compared with etcd where comparing all would take minutes."""

VERIFIED_ENTRIES = 400_000


SLICER = "services.slicer"


@functools.cache
def has_span() -> bool:
    """Whether the slicer can send an agent only what it needs."""
    return understands(SLICER, "--span")


@dataclass(frozen=True, slots=True)
class Mode:
    """A way of delivery. scoped: only with `delta`: an agent gets its span."""

    name: str
    scoped: bool = False

    @property
    def title(self) -> str:
        """In reports."""
        return f"{self.name}, span on" if self.scoped else self.name


@dataclass(frozen=True, slots=True)
class Setup:
    """What all modes have in common.

    Attributes:
        fleets: processes of raw agents.
        controls: agents on grpc.aio among the nodes.
        level: how much of decoding every agent does itself.
        folder: for etcd's data, logs and exchange.
        fsync: etcd waits for the disk.
    """

    fleets: int
    controls: int
    level: Level
    folder: Path
    fsync: bool = True


@dataclass(slots=True)
class Plane:
    """Everything that runs."""

    mode: Mode
    setup: Setup
    world: World
    store: EtcdStore
    etcd: EtcdProcess
    folder: Path
    server: Program
    registry: Program
    raw: list[Agents]
    control: Agents
    connected: int = 0
    progress: Callable[[str], None] = field(default=lambda _: None)

    @property
    def everyone(self) -> list[Agents]:
        """All processes of agents."""
        return [*self.raw, self.control]

    def usage(self) -> Usage:
        """What the processes have used so far."""
        assert self.etcd.pid is not None
        pids = {"server": self.server.pid, "etcd": self.etcd.pid, "driver": os.getpid()}
        pids |= {f"agents {number}": one.pid for number, one in enumerate(self.raw, 1)}
        pids["control"] = self.control.pid
        return usage(pids, self.folder / "etcd" / "etcd:0")

    # --- agents ----------------------------------------------------------------------------------

    @property
    def controls(self) -> int:
        """Agents on grpc.aio: those of the first nodes."""
        return min(self.setup.controls, self.world.shape.nodes - 1)

    async def connect(self, nodes: int = 0) -> float:
        """Connects the agents of the first nodes (0: of all); seconds until all are in sync.

        Raises:
            Internal: they did not come in sync.
        """
        nodes = nodes or self.world.shape.nodes
        host, port = self.server.target.rsplit(":", 1)
        common = {
            "mode": self.mode.name,
            "host": host,
            "port": int(port),
            "level": self.setup.level.value,
        }
        began = time.monotonic_ns()
        first = self.connected + 1
        controls = [node for node in range(first, nodes + 1) if node <= self.controls]
        asked = [self.control.ask("connect", nodes=controls, **common)]
        for number, one in enumerate(self.raw):
            mine = range(max(first, self.controls + 1) + number, nodes + 1, len(self.raw))
            asked.append(one.ask("connect", nodes=list(mine), **common))
        await asyncio.gather(*asked)
        self.connected = nodes
        return await self.in_sync(began)

    async def in_sync(self, began_ns: int) -> float:
        """Seconds from a moment until every raw agent is in sync."""
        found = await asyncio.gather(*(a.ask("sync", seconds=SYNC_SECONDS) for a in self.everyone))
        missing = sum(one["agents"] - one["in_sync"] for one in found)
        if missing:
            reasons = [reason for one in found for reason in one.get("reasons", ())]
            raise Internal(f"{missing} agents did not come in sync: {reasons[:3]}")
        last: int = max(one["last_in_sync_ns"] for one in found[:-1])
        return (last - began_ns) / 1e9

    async def cut(self) -> float:
        """Cuts the streams of all raw agents; seconds until all are in sync again."""
        began = time.monotonic_ns()
        await asyncio.gather(*(one.ask("cut") for one in self.raw))
        return await self.in_sync(began)

    async def stats(self) -> dict[str, int]:
        """Counters of all raw agents together."""
        found = await asyncio.gather(*(one.ask("stats") for one in self.raw))
        names = ("agents", "snapshots", "messages", "acks", "bytes", "applied", "lost", "reused")
        return {name: sum(one[name] for one in found) for name in names}

    async def clear(self) -> None:
        """Makes all agents forget when they had which change."""
        await asyncio.gather(*(one.ask("clear") for one in self.everyone))

    async def measured(self, written: Written) -> tuple[Measured, Histogram]:
        """What became of changes: at the raw agents, and the spread at the control agents."""
        await self.settle(written)
        file = self.folder / "written.json"
        times = [(c, written.begun.get(c, at), at) for c, at in written.committed.items()]
        file.write_text(json.dumps(times), encoding="utf-8")
        answers = await asyncio.gather(
            *(one.ask("measure", file=str(file)) for one in self.everyone)
        )
        *raw, control = map(measured_from_json, answers)
        together = Measured()
        for one in raw:
            together.merge(one)
        return together, control.spread

    async def settle(self, written: Written) -> None:
        """Waits until every agent has everything, as far as somebody knows that."""
        if self.mode.name == "delta":
            await self.acknowledged(written.revision)
            return
        deadline = time.monotonic() + SETTLE_SECONDS
        while not await self._have_all(len(written.committed)):
            if time.monotonic() > deadline:
                self.progress(f"{self.mode.title}: some changes did not arrive")
                return
            await asyncio.sleep(0.1)

    async def _have_all(self, changes: int) -> bool:
        """Whether raw and control agents have each applied so many since they were cleared."""
        found = await asyncio.gather(*(one.ask("stats") for one in self.everyone))
        return all(one["applied"] >= one["agents"] * changes for one in found)

    async def acknowledged(self, revision: int) -> bool:
        """Waits until the receipt of a revision is complete; False: it did not become so."""
        if self.connected < self.world.shape.nodes:
            return await self._all_agree(revision)
        async with rpc.channel(self.server.target) as channel:
            stub = receipts_pb2_grpc.ReceiptsStub(channel)
            request = receipts_pb2.WatchRequest(revision=revision, wait=True)
            try:
                async for receipt in stub.Watch(request, timeout=SETTLE_SECONDS):
                    if receipt.complete:
                        return True
            except grpc.aio.AioRpcError as error:
                self.progress(f"{self.mode.title}: no complete receipt: {error.details()}")
        return False

    async def _all_agree(self, revision: int) -> bool:
        """The same for the agents that there are: receipts count all nodes."""
        deadline = time.monotonic() + SETTLE_SECONDS
        async with rpc.channel(self.server.target) as channel:
            stub = slicer_pb2_grpc.SlicerStub(channel)
            while time.monotonic() < deadline:
                found = await stub.ListAgents(slicer_pb2.ListAgentsRequest())
                if all(agent.effective_revision >= revision for agent in found.agents):
                    return True
                await asyncio.sleep(0.2)
        return False

    # --- the truth -------------------------------------------------------------------------------

    async def verify(self) -> dict[str, Any]:
        """Compares what agents hold with what etcd has, until it is the same or time is up."""
        deadline = time.monotonic() + VERIFY_SECONDS
        while True:
            found = await self._verify()
            if not found["differences"] or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.2)

    async def _verify(self) -> dict[str, Any]:
        listing = await self.store.list(keys.ENDPOINTS)
        found = map(registry_pb2.Endpoint.FromString, (item.value for item in listing.items))
        truth = {
            item.node_index << 32 | item.id: (
                item.identity,
                item.addresses.ipv4.hex(),
                item.addresses.ipv6.hex(),
            )
            for item in found
        }
        nodes = list(range(1, self.connected + 1))
        if len(nodes) * len(truth) > VERIFIED_ENTRIES:
            step = max(1, len(nodes) // VERIFIED_AGENTS)
            nodes = nodes[step - 1 :: step]
        required = None
        if self.mode.scoped:
            required = {node: sorted(self.world.spanned(node)) for node in nodes}
        file = self.folder / "truth.json"
        file.write_text(json.dumps({"truth": truth, "required": required}), encoding="utf-8")
        answers = await asyncio.gather(
            *(one.ask("verify", file=str(file), nodes=nodes) for one in self.everyone)
        )
        return {
            "agents": sum(one["checked"] for one in answers),
            "endpoints_stored": len(truth),
            "endpoints_held": sum(one["held"] for one in answers),
            "differences": sum(one["differences"] for one in answers),
            "examples": [text for one in answers for text in one["examples"]],
        }


@contextlib.asynccontextmanager
async def plane(
    mode: Mode,
    setup: Setup,
    world: World,
    *,
    empty: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Plane]:
    """Sets a mode up; nobody is connected yet. empty: without endpoints."""
    folder = setup.folder / mode.title.replace(", ", "-").replace(" ", "-")
    folder.mkdir()
    etcd = EtcdProcess(binary(), folder / "etcd", unsafe_no_fsync=not setup.fsync)
    await etcd.start()
    store = EtcdStore([etcd.endpoint], deadline_seconds=20)
    try:
        progress(f"{mode.title}: writing {world.shape.nodes} nodes, {world.shape.pods} pods")
        await fill(store, records.foundation(world))
        if not empty:
            await fill(store, (op for pod in world.fill() for op in records.create(world, pod)))
        modules = [*["bench.scale.fleet"] * setup.fleets, "bench.scale.control"]
        async with (
            program(*_server(mode, etcd.endpoint), log=folder / "server.log") as server,
            program(*_registry(etcd.endpoint), log=folder / "registry.log") as registry,
            agents(modules, folder / "agents.log") as (*raw, control),
        ):
            yield Plane(
                mode, setup, world, store, etcd, folder, server, registry, raw, control,
                progress=progress,
            )  # fmt: skip
    finally:
        await store.close()
        await etcd.stop()


def _server(mode: Mode, etcd: str) -> Sequence[str]:
    if mode.name != "delta":
        return ("bench.scale.server", "--etcd", etcd, "--mode", mode.name)
    span = ("--span", "scoped" if mode.scoped else "all") if has_span() else ()
    stale = ("--stale-after", str(STALE_SECONDS))
    return (SLICER, *_common(etcd), *stale, *span)


def _registry(etcd: str) -> Sequence[str]:
    return ("services.endpoints", *_common(etcd))


def _common(etcd: str) -> Iterable[str]:
    return ("--etcd", etcd, "--listen", "127.0.0.1:0", "--log-level", "warning")


def cpu_of_agents(used: Mapping[str, float]) -> float:
    """Seconds that the raw agents took, of the CPU seconds by process."""
    return sum(seconds for name, seconds in used.items() if name.startswith("agents"))

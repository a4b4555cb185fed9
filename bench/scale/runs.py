"""A whole run: the modes one after another on the same loads, on a fresh etcd each."""

import asyncio
import contextlib
import enum
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.claiming import binary
from bench.scale import loads, phases
from bench.scale.decoding import Level
from bench.scale.kubernetes import sizes
from bench.scale.plane import Mode, Plane, Setup, plane
from bench.scale.world import Shape, World

SHARES_OF_SATURATION = (0.25, 0.5, 1.0, 2.0)
"""Of the rate at which mode `endpoint` is saturated: there all modes are compared."""

REGISTERED_AT_ONCE = (2_000, 20_000)
PEAK = 500
"""Pods that are registered at the same time through the registry."""

MEMORY_AGENTS = 200
MEMORY_PODS_PER_NODE = (20, 100)


class Load(enum.StrEnum):
    """What is measured."""

    SHAPE = "shape"
    CHURN = "churn"
    ROLLING = "rolling"
    STARTUP = "startup"
    BATCHES = "batches"
    RECONNECT = "reconnect"
    SATURATION = "saturation"
    REGISTERED = "registered"
    CORRUPTION = "corruption"
    MEMORY = "memory"
    CL2 = "cl2"


ON_ONE_PLANE = (
    Load.CHURN,
    Load.ROLLING,
    Load.STARTUP,
    Load.BATCHES,
    Load.RECONNECT,
    Load.CORRUPTION,
    Load.SATURATION,
)
"""In this order: the later ones leave the cluster larger, or the machine tired."""

SHAPE = (Load.CHURN, Load.ROLLING, Load.STARTUP)
"""What the published test measured."""

Result = dict[str, Any]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        nodes: how many there are.
        connected: agents of the first nodes that there are; 0: all.
        pods_per_node: at the start.
        modes: in this order; `endpoint` first, because its saturation is the others' measure.
        loads: which.
        rate: changes a second of churn and rolling update; a replaced pod is two.
        seconds: of churn, and of the replay.
        startups: pods whose start is measured.
        fleets: processes of raw agents.
        controls: agents on grpc.aio.
        level: how much of decoding every agent does itself.
        seed: of the loads.
        cl2: the generator of ClusterLoader2's trace.
        folder: for etcd's data; None: a temporary one.
        fsync: etcd waits for the disk.
    """

    nodes: int
    pods_per_node: int
    modes: Sequence[Mode]
    loads: frozenset[Load]
    connected: int = 0
    rate: float = 100.0
    seconds: float = 20.0
    startups: int = 20
    fleets: int = 2
    controls: int = 20
    level: Level = Level.PARSED
    seed: int = 0
    cl2: Path = Path("../shared/oracles/load/cl2_load.py")
    folder: Path | None = None
    fsync: bool = True

    @property
    def agents(self) -> int:
        """How many agents there are."""
        return self.connected or self.nodes

    @property
    def shape(self) -> Shape:
        """Nodes and pods."""
        return Shape(self.nodes, self.pods_per_node)


def modes_of(names: Sequence[str], spans: Sequence[str]) -> tuple[Mode, ...]:
    """The modes to run. names: of ways of delivery; spans: all, scoped."""
    found = []
    for name in names:
        if name == "delta":
            found += [Mode(name, scoped=span == "scoped") for span in spans]
        else:
            found.append(Mode(name))
    return tuple(found)


def run(options: Options, progress: Progress) -> Result:
    """Runs everything; the report."""
    with tempfile.TemporaryDirectory(prefix="dp-scale-", dir=options.folder) as folder:
        return asyncio.run(_run(options, Path(folder), progress))


async def _run(options: Options, folder: Path, progress: Progress) -> Result:
    report: Result = {"settings": _settings(options, folder), "sizes": sizes(), "modes": {}}
    saturation = 0.0
    for number, mode in enumerate(options.modes):
        place = folder / str(number)
        place.mkdir()
        setup = Setup(options.fleets, options.controls, options.level, place, options.fsync)
        one = _Run(options, mode, setup, progress)
        report["modes"][mode.title] = found = await one.all(saturation)
        if mode.name == "endpoint" and "saturation" in found:
            saturation = found["saturation"]["changes_per_second"]
    return report


def _settings(options: Options, folder: Path) -> Result:
    return {
        "nodes": options.nodes,
        "connected": options.agents,
        "pods": options.shape.pods,
        "rate": options.rate,
        "seconds": options.seconds,
        "seed": options.seed,
        "decoding": options.level.value,
        "raw_agents": options.agents - min(options.controls, options.nodes - 1),
        "grpc_agents": min(options.controls, options.nodes - 1),
        "agent_processes": options.fleets,
        "cpus": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "etcd": ".".join(map(str, binary().version)),
        "etcd_data": str(folder),
        "etcd_fsync": options.fsync,
    }


@dataclass(slots=True)
class _Run:
    options: Options
    mode: Mode
    setup: Setup
    progress: Progress

    async def all(self, saturation: float) -> Result:
        """All loads of a mode. saturation: of mode `endpoint`; 0: not known."""
        wanted = self.options.loads
        found: Result = {}
        here = [load for load in ON_ONE_PLANE if load in wanted]
        if here or Load.SHAPE in wanted:
            async with self._plane("steady", World(self.options.shape, self.options.seed)) as up:
                connecting = phases.cold(up, self.options.connected)
                found["cold"] = await self._do("agents connect", connecting)
                for load in ON_ONE_PLANE:
                    if load in wanted or (Load.SHAPE in wanted and load in SHAPE):
                        found |= await self._one(load, up, saturation)
                found["verified"] = await self._do("comparing with etcd", up.verify())
        if Load.REGISTERED in wanted:
            found |= await self._registered()
        if Load.MEMORY in wanted:
            found["memory"] = [await self._memory(pods) for pods in MEMORY_PODS_PER_NODE]
        if Load.CL2 in wanted:
            found["cl2"] = await self._replay()
        return found

    @contextlib.asynccontextmanager
    async def _plane(self, name: str, world: World, *, empty: bool = False) -> Any:  # noqa: ANN401
        folder = self.setup.folder / name
        folder.mkdir()
        setup = Setup(
            self.setup.fleets, self.setup.controls, self.setup.level, folder, self.setup.fsync
        )
        async with plane(self.mode, setup, world, empty=empty, progress=self.progress) as made:
            yield made

    async def _do(self, what: str, measuring: Any) -> Any:  # noqa: ANN401 - a phase
        self.progress(f"{self.mode.title}: {what}")
        return await measuring

    async def _one(self, load: Load, up: Plane, saturation: float) -> Result:
        options, world = self.options, up.world
        match load:
            case Load.CHURN:
                async with phases.listing(up) as lists:
                    steps = loads.churn(world, rate=options.rate, seconds=options.seconds)
                    found = await self._do("churn", phases.under(up, steps))
                quiet = loads.churn(world, rate=options.rate, seconds=options.seconds)
                alone = await self._do("churn, nobody lists", phases.under(up, quiet))
                return {"churn": alone, "churn_listed": found, "list": lists}
            case Load.ROLLING:
                pods = int(options.rate * options.seconds / 2)
                steps = loads.rolling(world, rate=options.rate, pods=pods)
                return {"rolling": await self._do("rolling update", phases.under(up, steps))}
            case Load.STARTUP:
                starting = phases.startup(up, count=options.startups, rate=options.rate)
                found = {"startup": await self._do("pods start", starting)}
                registering = phases.peak(up, PEAK)
                return found | {"peak": await self._do("pods registered together", registering)}
            case Load.BATCHES:
                return {"batches": await self._do("batch sizes", phases.batches(up))}
            case Load.RECONNECT:
                return {"reconnect": await self._do("all streams cut", phases.reconnect(up))}
            case Load.CORRUPTION if self.mode.name == "delta":
                return {"corruption": await self._do("memory spoiled", phases.corruption(up))}
            case Load.SATURATION:
                return await self._saturation(up, saturation)
            case _:
                return {}

    async def _saturation(self, up: Plane, reference: float) -> Result:
        found = await self._do("saturation", phases.saturation(up))
        reference = reference or found["changes_per_second"]
        compared = []
        for share in SHARES_OF_SATURATION:
            rate = share * reference
            if rate >= 1:
                measured = await self._do(f"{rate:.0f} changes/s", phases.at_rate(up, rate))
                compared.append({"share": share, "rate": rate, **measured})
        return {"saturation": found, "at_shares_of_saturation": compared}

    async def _registered(self) -> Result:
        world = World(self.options.shape, self.options.seed)
        found: Result = {}
        async with self._plane("registered", world, empty=True) as up:
            await up.connect()
            for count in REGISTERED_AT_ONCE:
                if count > world.room:
                    self.progress(f"{count} endpoints need more nodes than {self.options.nodes}")
                    continue
                measuring = phases.registered_at_once(up, count)
                found[f"registered_{count}"] = await self._do(f"{count} endpoints", measuring)
            found["registered_verified"] = await self._do("comparing with etcd", up.verify())
        return found

    async def _memory(self, pods_per_node: int) -> Result:
        world = World(Shape(self.options.nodes, pods_per_node), self.options.seed)
        agents = min(self.options.nodes, MEMORY_AGENTS)
        async with self._plane(f"memory-{pods_per_node}", world) as up:
            found: Result = await self._do("memory", phases.memory(up, agents))
        return found

    async def _replay(self) -> Result | None:
        options = self.options
        if not options.cl2.is_file():
            self.progress(f"no replay: {options.cl2} is not there")
            return None
        replay = loads.Replay(
            options.cl2,
            nodes=options.nodes,
            pods_per_node=options.pods_per_node,
            seed=options.seed,
        )
        async with self._plane("cl2", replay.world, empty=True) as up:
            await up.connect()
            steps = replay.steps(seconds=options.seconds)
            found: Result = await self._do("ClusterLoader2's load", phases.under(up, steps))
            found["verified"] = await self._do("comparing with etcd", up.verify())
        return found


def wrong(report: Result) -> Iterator[str]:
    """Where an agent did not hold what etcd has: such a run measured nothing."""
    for title, mode in report["modes"].items():
        for name, part in mode.items():
            if not isinstance(part, dict):
                continue
            verified = part if name.endswith("verified") else part.get("verified")
            if verified and verified["differences"]:
                yield f"{title}: {verified['differences']} differences: {verified['examples']}"

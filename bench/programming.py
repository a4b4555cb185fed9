"""What services cost an agent: all of them at once, one backend after another, tables alone.

The published shape through the kernel's real maps, in a mount of its own; nothing is attached, so
no packet meets it. No stream: barriers are made here, as it would hand them over.
"""

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.services.shape import TARGET_PORT, services
from bench.times import Times
from deltaplane.delta.changes import Removal, Upsert
from deltaplane.delta.view import View
from deltaplane.model.addresses import AddressPair, to_mapped
from deltaplane.model.objects import BackendObject, ServiceObject
from deltaplane.model.service import ServicePort, SlicePort
from deltaplane.runtime import interpreter
from nodeagent.balancing import Balancing
from nodeagent.dataplane import bpffs
from nodeagent.dataplane.balancing import Backend
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.services import maglev
from nodeagent.services import steps as s
from nodeagent.services.adopting import NOTHING
from nodeagent.services.balancer import Balancer
from nodeagent.services.choosing import Where
from nodeagent.stream import BarrierReached
from nodeagent.tables import best_fill
from nodeagent.worker import Worker

SEED = 1
NODES = 200
"""Backends are spread over so many."""

FIRST_NODE_PORT = 30_000
OWN = AddressPair(ipv4=bytes((192, 0, 2, 1)), ipv6=b"\xfd" + bytes(14) + b"\1")
NODE = 1
LINEAGE = bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programming:
    """What was measured of one shape.

    Attributes:
        cold: from the first complete view to the last map.
        warm: the same by an agent that finds all of it in the kernel.
        removed: a backend of the large service goes; added: it comes back.
        plan: what of either is choosing what to write.
        writes: entries that one such change writes or removes, a table counting as one.
        frontends: that the kernel holds in the end; slots and tables as well.
    """

    node_ports: bool
    family: int
    cold: Times
    warm: Times
    removed: Times
    added: Times
    plan: Times
    writes: tuple[int, ...]
    frontends: int
    slots: int
    tables: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """All tables of the shape, one after another. first: no walk of a backend is known yet."""

    count: int
    first: Times
    again: Times


def measure(*, family: int, node_ports: bool, rounds: int, changes: int) -> Programming:
    """Measures one shape; as root."""
    interpreter.prepare()
    with tempfile.TemporaryDirectory(prefix="dp-bench-") as folder:
        mount = Path(folder)
        bpffs.ensure(mount)
        try:
            plane = KernelDataPlane(mount / "pins", config=DataPlaneConfig())
            try:
                return asyncio.run(_Run(plane, family, node_ports=node_ports).all(rounds, changes))
            finally:
                plane.close()
                bpffs.remove_pins(mount / "pins")
        finally:
            bpffs.release(mount)


def measure_tables(family: int, rounds: int) -> Tables:
    """Builds the tables of 801 node ports, which nothing is written of."""
    turns = [
        [(Backend(address=to_mapped(one), port=TARGET_PORT), n) for n, one in enumerate(addresses)]
        for addresses in (sorted(service.backends) for service in services(family))
    ]
    fill = best_fill()
    first, again = Times(), Times()
    for _ in range(rounds):
        maglev.forget_walks()
        for times in (first, again):
            with times.sample():
                for backends in turns:
                    maglev.table(backends, fill)
    return Tables(count=len(turns), first=first, again=again)


class _Run:
    """One kernel, and agents that come and go."""

    def __init__(self, plane: KernelDataPlane, family: int, *, node_ports: bool) -> None:
        self._plane = plane
        self._family = family
        self._node_ports = node_ports
        self._services, self._backends = _objects(family, node_ports=node_ports)
        self._view = View()
        self._revision = 0

    async def all(self, rounds: int, changes: int) -> Programming:
        worker = Worker("kernel")
        agent = self._agent(worker)
        cold, warm = Times(), Times()
        try:
            for number in range(rounds):
                if number:
                    await self._apply(self._agent(worker), View(), ())
                self._view = self._filled()
                with cold.sample():
                    await self._apply(self._agent(worker), self._view, ())
                agent = self._agent(worker)
                with warm.sample():
                    await self._apply(agent, self._view, ())
            removed, added = await self._changes(agent, changes)
            plan, writes = self._plans(changes)
        finally:
            worker.close()
        held = self._plane.balancing()
        return Programming(
            node_ports=self._node_ports,
            family=self._family,
            cold=cold,
            warm=warm,
            removed=removed,
            added=added,
            plan=plan,
            writes=writes,
            frontends=len(held.frontends),
            slots=len(held.slots),
            tables=len(held.tables),
        )

    def _agent(self, worker: Worker) -> Balancing:
        return Balancing(self._plane, worker, node="n1", own=OWN, zone="", fill=best_fill())

    def _filled(self) -> View:
        view = View()
        values: list[ServiceObject | BackendObject] = [*self._services, *self._backends]
        for value in values:
            self._revision += 1
            view.apply(Upsert(value, self._revision))
        return view

    async def _apply(self, agent: Balancing, view: View, changed: Iterable[BackendObject]) -> None:
        self._revision += 1
        reached = BarrierReached(
            view=view,
            lineage=LINEAGE,
            revision=self._revision,
            changed=frozenset((value.kind, value.key) for value in changed),
            complete=True,
            head_revision=self._revision,
            head_unix_ns=0,
        )
        await agent.barrier(reached, NODE)
        assert not agent.refused, agent.refused

    async def _changes(self, agent: Balancing, count: int) -> tuple[Times, Times]:
        removed, added = Times(), Times()
        for value in self._drawn(count):
            for times, change in ((removed, self._gone), (added, self._back)):
                change(value)
                with times.sample():
                    await self._apply(agent, self._view, [value])
        return removed, added

    def _plans(self, count: int) -> tuple[Times, tuple[int, ...]]:
        """The same changes, by a core of its own that writes nowhere."""
        balancer = Balancer(Where(node_index=NODE, node="n1", zone=""), best_fill())
        balancer.learn(self._services, self._backends)
        balancer.adopt(NOTHING)
        times, writes = Times(), set()
        for value in self._drawn(count):
            for change in (self._gone, self._back):
                change(value)
                with times.sample():
                    draft = balancer.advance(self._view, [(value.kind, value.key)])
                    planned = s.steps(draft)
                writes.add(sum(map(_entries, planned)))
        return times, tuple(sorted(writes))

    def _drawn(self, count: int) -> list[BackendObject]:
        large = self._services[-1].number
        of_it = [value for value in self._backends if value.service == large]
        return random.Random(SEED).sample(of_it, count)

    def _gone(self, value: BackendObject) -> None:
        self._revision += 1
        self._view.apply(Removal(kind=value.kind, key=value.key, generation=self._revision))

    def _back(self, value: BackendObject) -> None:
        self._revision += 1
        self._view.apply(Upsert(value, self._revision))


def _objects(family: int, *, node_ports: bool) -> tuple[list[ServiceObject], list[BackendObject]]:
    made, backends = [], []
    for one in services(family):
        port = ServicePort(port=80, node_port=FIRST_NODE_PORT + one.number if node_ports else 0)
        made.append(
            ServiceObject(
                number=one.number,
                namespace="bench",
                name=f"service-{one.number}",
                ports=(port,),
                cluster_ips=(one.address,),
            )
        )
        backends += [
            BackendObject(
                service=one.number,
                address=address,
                ports=(SlicePort(number=TARGET_PORT),),
                node_index=1 + number % NODES,
            )
            for number, address in enumerate(one.backends)
        ]
    return made, backends


_COUNTED: dict[type, Callable[..., Sequence[object]]] = {
    s.SetSources: lambda step: step.sources,
    s.SetMembers: lambda step: step.members,
    s.SetSlots: lambda step: step.slots,
    s.WriteTables: lambda step: step.tables,
    s.SetFrontends: lambda step: step.frontends,
    s.DeleteFrontends: lambda step: step.keys,
    s.DeleteSlots: lambda step: step.places,
    s.DeleteMembers: lambda step: step.members,
    s.DeleteTables: lambda step: step.list_ids,
    s.DeleteSources: lambda step: step.sources,
}


def _entries(step: s.Step) -> int:
    counted = _COUNTED.get(type(step))
    return len(counted(step)) if counted else 0

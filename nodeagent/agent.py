"""The agent as a whole: what starts when, and what goes on at the same time.

lock, journal ─► spooled DELs ─► adopt the kernel's state ─► CNI socket, gRPC ─► register
a new journal: the two in the middle follow the registration
register ─┬─► stream: view ─► kernel
          ├─► blocks
          └─► postponed releases
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import grpc.aio

from deltaplane.errors import DeltaplaneError, Refused, Unavailable
from deltaplane.runtime import log, metrics, service
from deltaplane.runtime.clock import Clock, SystemClock
from deltaplane.runtime.roles import Role
from deltaplane.v1 import agent_pb2, agent_pb2_grpc, audit_pb2, audit_pb2_grpc
from nodeagent.abandoned import Collector
from nodeagent.apply import Applier
from nodeagent.balancing import Balancing
from nodeagent.blocks import Blocks
from nodeagent.cni.server import CniServer
from nodeagent.cni.spool import Spool
from nodeagent.config import AgentConfig
from nodeagent.control import ControlPlane, NodeFacts, NodeRegistration
from nodeagent.dataplane.port import Applied, DataPlane
from nodeagent.execute import RouteTable
from nodeagent.healthports import HealthPorts
from nodeagent.interfaces import Interfaces
from nodeagent.journal import Journal
from nodeagent.knowledge import Knowledge
from nodeagent.masquerade import Masquerade
from nodeagent.mending import Mender
from nodeagent.netlink.addresses import AddressTable
from nodeagent.netlink.tunnel import Tunnel
from nodeagent.plugin import Plugin
from nodeagent.pods import PodLinks
from nodeagent.rebuilding import Rebuilding
from nodeagent.releases import Releases
from nodeagent.reporting import AddressSources, NodeAddressesServicer
from nodeagent.resuming import Resuming
from nodeagent.servicer import AgentServicer, Sources
from nodeagent.spanning import SpanWait
from nodeagent.stream import ApplyResult, BarrierReached, Floor, HelloState, SlicerStream
from nodeagent.tables import best_fill
from nodeagent.tracing import Following
from nodeagent.worker import Worker
from nodeagent.workplace import Workplace

REGISTER_RETRY_SECONDS = (0.2, 5.0)
"""First and longest pause between attempts to register the node."""

COUNT_SECONDS = 10
"""Between two looks at the counters of rules: no rarer than Prometheus usually asks."""

_APPLIED = metrics.gauge("applied_revision", "Store revision that the kernel agrees with")
_APPLY_SECONDS = metrics.histogram("apply_seconds", "From a barrier to the kernel's agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the agent is made of; tests put fakes in.

    Attributes:
        config: the options.
        node: this node.
        journal: opened.
        dataplane: the kernel's maps.
        routes: the kernel's routes.
        links: the pods' links.
        control: the services.
        uplink_index: index of the uplink.
        mtu: of pods, bytes.
        tunnel: this node's end, if packets to other nodes are wrapped.
        direct: the same for what nodes hand over to each other for clients outside.
        masquerade: of pods' packets to the world; None: they keep their source.
        cgroup: whose sockets find services by themselves; None: no sockets do.
        table: marked links and routes, for reports and repairs; None: neither is served.
    """

    config: AgentConfig
    node: NodeFacts
    journal: Journal
    dataplane: DataPlane
    routes: RouteTable
    links: PodLinks
    control: ControlPlane
    uplink_index: int
    mtu: int
    tunnel: Tunnel | None = None
    direct: Tunnel | None = None
    masquerade: Masquerade | None = None
    cgroup: Path | None = None
    table: AddressTable | None = None
    span_wait: SpanWait | None = None
    clock: Clock = field(default_factory=SystemClock)


class Agent:
    """Runs until its signals say stop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._worker = Worker("kernel")
        writer = Worker("journal")
        self._applier = Applier(
            parts.dataplane,
            parts.routes,
            self._worker,
            tunnel=parts.tunnel.own if parts.tunnel else None,
            masquerade=parts.masquerade,
        )
        self._balancing = Balancing(
            parts.dataplane,
            self._worker,
            node=parts.node.name,
            own=parts.node.addresses,
            zone=parts.config.zone,
            fill=best_fill(),
        )
        self._health_ports = HealthPorts(parts.node.addresses, lambda: self._balancing.health_ports)
        self._following = Following(parts.clock.wall_ns)
        self._stream = SlicerStream(
            clock=parts.clock,
            following=self._following,
            tls=parts.config.tls_to(Role.SLICER),
        )
        self._blocks = Blocks(
            parts.journal,
            writer,
            parts.control,
            parts.node,
            chosen=frozenset(parts.config.pools),
            lineage=self._lineage,
            clock=parts.clock,
        )
        place = Workplace(
            journal=parts.journal,
            writer=writer,
            links=parts.links,
            applier=self._applier,
            balancing=self._balancing,
            blocks=self._blocks,
            control=parts.control,
            node=parts.node,
            mtu=parts.mtu,
            lineage=self._lineage,
            clock=parts.clock,
        )
        self._releases = Releases(place)
        self._resuming = Resuming(place, self._releases)
        self._knowledge = Knowledge(
            parts.journal,
            writer,
            only_strict=parts.config.reuse == "strict",
            clock=parts.clock,
        )
        self._resumed = asyncio.Event()
        self._seen_lineage = b""
        self._complaint = ""
        self._rebuilding = Rebuilding(
            journal=parts.journal,
            writer=writer,
            control=parts.control,
            links=parts.links,
            balancing=self._balancing,
            node=parts.node,
            clock=parts.clock,
        )
        self._spool = Spool(parts.config.spool, self._releases.retire)
        self._plugin = self._make_plugin(place)

    def _collector(self) -> Collector:
        parts = self._parts
        return Collector(
            parts.journal,
            parts.links,
            self._releases,
            node_uid=parts.node.uid,
            clock=parts.clock,
        )

    def _make_plugin(self, place: Workplace) -> Plugin:
        parts = self._parts
        return Plugin(
            interfaces=Interfaces(place, self._releases, parts.span_wait),
            releases=self._releases,
            journal=parts.journal,
            blocks=self._blocks,
            applier=self._applier,
            stream=self._stream,
            spool=self._spool,
            links=parts.links,
            clock=parts.clock,
        )

    async def run(self) -> None:
        """Adopts what is there, serves, and returns after a graceful stop."""
        applied = await self._applier.load()
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(self._applier.run())]
            await self._worker.call(self._parts.dataplane.attach_uplink, self._parts.uplink_index)
            if self._parts.tunnel is not None:
                await self._worker.call(
                    self._parts.dataplane.attach_tunnel, self._parts.tunnel.index
                )
            if self._parts.direct is not None:
                await self._worker.call(
                    self._parts.dataplane.attach_direct, self._parts.direct.index
                )
            if self._parts.cgroup is not None:
                await self._worker.call(self._parts.dataplane.attach_sockets, self._parts.cgroup)
            if not self._parts.journal.ledger.is_new:
                await self._resume()
            listening = asyncio.Event()
            cni = CniServer(self._parts.config.socket, self._plugin.handle)
            serving_cni = group.create_task(cni.run(listening))
            await listening.wait()
            background.append(group.create_task(self._connect(applied)))
            background.append(group.create_task(self._releases.run()))
            background.append(group.create_task(self._collector().run()))
            background.append(group.create_task(self._health_ports.run()))
            background.append(group.create_task(self._replay()))
            background.append(group.create_task(self._count_rules()))
            await service.serve(
                self._parts.config, name="agent", register=self._register, ready=self._is_ready
            )
            # First the calls, which need everything else to end well.
            await _stop(serving_cni)
            for task in reversed(background):
                await _stop(task)

    async def _count_rules(self) -> None:
        """Keeps the metrics of rules fresh: the kernel counts, nobody tells."""
        while True:
            await asyncio.sleep(COUNT_SECONDS)
            await self._applier.rule_hits()

    async def _resume(self) -> None:
        """Takes over what was there before this process."""
        await self._spool.replay()
        await self._resuming.resume()
        self._resumed.set()

    async def _replay(self) -> None:
        """Looks after DELs that the plugin has left, once it is known what they are about."""
        await self._resumed.wait()
        await self._spool.run()

    async def _connect(self, applied: Applied) -> None:
        """Everything that needs the services."""
        found = await self._register_node()
        if not self._resumed.is_set():
            # Before the stream: to a tracker that knows no interface, all of them are too many.
            await _until_answered(partial(self._rebuilding.run, found.index))
            await self._resume()
        self._applier.tracker.node_index = found.index
        await self._worker.call(self._parts.dataplane.set_node_index, found.index)
        await self._resuming.remove_strangers()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._agree(found.index))
            group.create_task(self._resuming.register_again())
            group.create_task(self._follow(applied, found.revision))

    async def _agree(self, index: int) -> None:
        """Makes the journal agree with what ipam says, then follows the demand for blocks."""
        for step in (self._blocks.learn_pools, partial(self._blocks.reconcile, index)):
            await _until_answered(step)
        await self._resuming.close_strays()
        await self._blocks.run()

    def _lineage(self) -> bytes:
        """Lineage of the store that the services work on, as far as is known."""
        return self._stream.lineage if self._stream.connected else b""

    async def _register_node(self) -> NodeRegistration:
        """Registers for as long as it takes; says why not when the reason changes."""
        pause, longest = REGISTER_RETRY_SECONDS
        complaint = ""
        while True:
            try:
                found = await self._parts.control.register_node(self._parts.node)
            except DeltaplaneError as error:
                if str(error) != complaint:
                    log.get().warning("node_not_registered", reason=str(error))
                complaint = str(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                log.get().info("node_registered", node=self._parts.node.name, index=found.index)
                return found

    async def _follow(self, applied: Applied, registered: int) -> None:
        # Nothing older than the registration: addresses that were let go of before may be others'.
        floor = Floor(registered=registered)
        if any(applied.lineage):
            floor = replace(floor, lineage=applied.lineage, revision=applied.revision)
        hello = HelloState(
            node=self._parts.node.name,
            node_uid=self._parts.node.uid,
            boot_id=self._parts.node.boot_id,
            floor=floor,
        )
        await self._stream.run(self._parts.config.slicers, hello, self._apply)

    async def _apply(self, reached: BarrierReached) -> ApplyResult:
        self._check_lineage(reached.lineage)
        started, started_ns = self._clock.now(), self._clock.wall_ns()
        outcome = await self._applier.barrier(reached, replaced=self._stream.replaced)
        if outcome.held:
            self._balancing.missed()
            return outcome
        await self._balancing.barrier(reached, self._applier.tracker.node_index)
        self._health_ports.changed()
        self._following.applied(reached.revision, barrier_ns=started_ns)
        is_written = await self._learn(reached)
        _APPLY_SECONDS.observe(self._clock.now() - started)
        _APPLIED.set(self._applier.applied)
        refused = outcome.refused + self._balancing.refused
        return ApplyResult(refused=refused, unwritten=not is_written)

    async def _learn(self, reached: BarrierReached) -> bool:
        """Writes down what a barrier says of addresses; False: that was not possible.

        Before the barrier is acknowledged: whoever drains a pool waits for that.
        """
        own_index = self._applier.tracker.node_index
        try:
            if await self._knowledge.take(reached, own_index=own_index):
                self._blocks.changed()
        except Unavailable as error:
            if str(error) != self._complaint:
                log.get().error("barrier_not_acknowledged", reason=str(error))
            self._complaint = str(error)
            return False
        self._complaint = ""
        self._blocks.progressed()
        return True

    def _check_lineage(self, lineage: bytes) -> None:
        """Ends this process where a store was restored under it: the next one starts from there.

        It has to register its node and interfaces again, and to ask which blocks it still owns; all
        that a start does. The data path goes on meanwhile.

        Raises:
            Refused: the store has another lineage than the one that this process knows.
        """
        if self._seen_lineage not in (b"", lineage):
            raise Refused("the store has another lineage: a backup was restored; starting again")
        self._seen_lineage = lineage

    def _register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        sources = Sources(
            node=self._parts.node,
            journal=self._parts.journal,
            applier=self._applier,
            balancing=self._balancing,
            stream=self._stream,
            dataplane=self._parts.dataplane,
            worker=self._worker,
            clock=self._clock,
        )
        agent_pb2_grpc.add_AgentServicer_to_server(AgentServicer(sources), server)
        names: tuple[str, ...] = (agent_pb2.DESCRIPTOR.services_by_name["Agent"].full_name,)
        if self._parts.table is not None:
            reports = self._reports(self._parts.table)
            audit_pb2_grpc.add_NodeAddressesServicer_to_server(reports, server)
            names += (audit_pb2.DESCRIPTOR.services_by_name["NodeAddresses"].full_name,)
        return names

    def _reports(self, table: AddressTable) -> NodeAddressesServicer:
        reader = Worker("address-table")
        sources = AddressSources(
            node=self._parts.node,
            journal=self._parts.journal,
            applier=self._applier,
            dataplane=self._parts.dataplane,
            worker=self._worker,
            table=table,
            reader=reader,
        )
        mender = Mender(
            node=self._parts.node,
            journal=self._parts.journal,
            resuming=self._resuming,
            blocks=self._blocks,
            applier=self._applier,
            balancing=self._balancing,
            links=self._parts.links,
            table=table,
            worker=reader,
        )
        return NodeAddressesServicer(sources, mender)

    async def _is_ready(self) -> bool:
        """Ready: pods can be added with their policies."""
        return self._applier.complete and bool(self._blocks.families)


async def _until_answered(step: Callable[[], Awaitable[object]]) -> None:
    """Repeats a call until it is answered; says why not when the reason changes."""
    pause, longest = REGISTER_RETRY_SECONDS
    complaint = ""
    while True:
        try:
            await step()
        except DeltaplaneError as error:
            if str(error) != complaint:
                log.get().warning("services_not_asked", reason=str(error))
            complaint = str(error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        else:
            return


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def boot_id() -> str:
    """Changes with every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

"""deltaplane.v1.Agent: what this node says about itself, and what it is told to sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

import deltaplane
from deltaplane import wire
from deltaplane.runtime.clock import Clock
from deltaplane.v1 import agent_pb2, agent_pb2_grpc, policy_pb2, registry_pb2
from nodeagent.apply import Applier
from nodeagent.balancing import Balancing
from nodeagent.control import NodeFacts
from nodeagent.dataplane.port import DataPlane
from nodeagent.entries import Kind
from nodeagent.fronting import frontends
from nodeagent.journal import Journal, State
from nodeagent.netlink.links import host_name
from nodeagent.stream import SlicerStream
from nodeagent.worker import Worker

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the answers come from."""

    node: NodeFacts
    journal: Journal
    applier: Applier
    balancing: Balancing
    stream: SlicerStream
    dataplane: DataPlane
    worker: Worker
    clock: Clock


class AgentServicer(agent_pb2_grpc.AgentServicer):
    """Implements the service."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources

    async def GetStatus(
        self, request: agent_pb2.GetStatusRequest, context: Context
    ) -> agent_pb2.GetStatusResponse:
        """How the agent is."""
        del request, context
        applier, node = self._from.applier, self._from.node
        served = self._from.balancing.counts
        counts, held = applier.tracker.counts(), applier.brake.sweep
        return agent_pb2.GetStatusResponse(
            node=node.name,
            node_uid=node.uid,
            node_index=applier.tracker.node_index,
            lineage=self._from.stream.lineage,
            applied_revision=applier.applied,
            connected=self._from.stream.connected,
            endpoints=counts.endpoints,
            identities=counts.identities,
            subject_policies=counts.subject_policies,
            interfaces=len(self._from.journal.interfaces),
            refused=[
                f"{refusal.kind.name} {refusal.key.hex()}: {refusal.reason}"
                for refusal in applier.refused + self._from.balancing.refused
            ],
            version=deltaplane.__version__,
            held_entries=held.entries if held else 0,
            held_of=held.held if held else 0,
            services=served.services,
            backends=served.backends,
            frontends=served.frontends,
            wall_ms=self._from.clock.wall_ns() // 1_000_000,
        )

    async def ConfirmSweep(
        self, request: agent_pb2.ConfirmSweepRequest, context: Context
    ) -> agent_pb2.ConfirmSweepResponse:
        """Removes what the brake holds."""
        del context
        await self._from.applier.confirm_sweep(request.entries)
        return agent_pb2.ConfirmSweepResponse()

    async def ListDenials(
        self, request: agent_pb2.ListDenialsRequest, context: Context
    ) -> agent_pb2.ListDenialsResponse:
        """Who was denied what."""
        del request, context
        denials = await self._from.worker.call(self._from.dataplane.denials)
        return agent_pb2.ListDenialsResponse(
            denials=[
                agent_pb2.Denial(
                    subject_identity=denial.subject_identity,
                    peer_identity=denial.peer_identity,
                    ingress=denial.ingress,
                    protocol=denial.protocol,
                    port=denial.port,
                    packets=denial.packets,
                    last_boot_ns=denial.last_boot_ns,
                    audit=denial.audit,
                )
                for denial in denials
            ]
        )

    async def ListRuleCounters(
        self, request: agent_pb2.ListRuleCountersRequest, context: Context
    ) -> agent_pb2.ListRuleCountersResponse:
        """How often each rule has decided."""
        del context
        hits = await self._from.applier.rule_hits()
        return agent_pb2.ListRuleCountersResponse(
            counters=[
                agent_pb2.RuleCounter(
                    policy=name.policy,
                    ingress=name.ingress,
                    rule=name.rule,
                    # Numbered alike.
                    action=policy_pb2.RuleAction.ValueType(name.action),
                    audit=name.audit,
                    hits=count,
                )
                for name, count in hits.items()
                if request.policy in ("", name.policy)
            ]
        )

    async def ListInterfaces(
        self, request: agent_pb2.ListInterfacesRequest, context: Context
    ) -> agent_pb2.ListInterfacesResponse:
        """The interfaces of the journal that are not on their way out."""
        del request, context
        return agent_pb2.ListInterfacesResponse(interfaces=self._interfaces())

    def _interfaces(self) -> Sequence[agent_pb2.Interface]:
        identities = self._from.applier.identities()
        return [
            agent_pb2.Interface(
                id=number,
                owner=registry_pb2.OwnerToken(
                    network=record.attachment.network,
                    container_id=record.attachment.container_id,
                    interface=record.attachment.ifname,
                    attempt=record.attempt,
                ),
                namespace=record.pod.namespace,
                pod=record.pod.name,
                addresses=wire.address_pair_to_proto(record.addresses),
                host_interface=host_name(number) if record.kind is Kind.POD else "",
                identity=identities.get(number, 0),
            )
            for number, record in sorted(self._from.journal.interfaces.items())
            if record.state is not State.RELEASING and record.kind is not Kind.GATEWAY
        ]

    async def ListCounters(
        self, request: agent_pb2.ListCountersRequest, context: Context
    ) -> agent_pb2.ListCountersResponse:
        """Packet counters, one per outcome."""
        del request, context
        counters = await self._from.worker.call(self._from.dataplane.counters)
        return agent_pb2.ListCountersResponse(
            counters=[
                agent_pb2.Counter(
                    outcome=counter.outcome, packets=counter.packets, bytes=counter.bytes
                )
                for counter in counters
            ]
        )

    async def ListFrontends(
        self, request: agent_pb2.ListFrontendsRequest, context: Context
    ) -> agent_pb2.ListFrontendsResponse:
        """Where services answer on this node."""
        del context
        held = await self._from.worker.call(self._from.dataplane.balancing)
        return agent_pb2.ListFrontendsResponse(frontends=frontends(held, request))

"""The objects of the stream ↔ the upsert messages of deltaplane.v1, without their generations."""

from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import assert_never

from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.objects import (
    BackendObject,
    BackendState,
    BlockObject,
    DirectionPolicy,
    DirectionRule,
    EndpointObject,
    IdentityObject,
    NodeObject,
    PeerSet,
    PoolObject,
    ServiceObject,
    StreamObject,
    SubjectPolicy,
)
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.service import Distribution, ServicePort, SlicePort
from deltaplane.model.tiers import Action, Tier
from deltaplane.v1 import common_pb2, policy_pb2, service_pb2
from deltaplane.v1 import slicer_pb2 as pb

UpsertMessage = (
    pb.NodeUpsert
    | pb.BlockUpsert
    | pb.IdentityUpsert
    | pb.EndpointUpsert
    | pb.PeerSetUpsert
    | pb.SubjectPolicyUpsert
    | pb.PoolUpsert
    | pb.ServiceUpsert
    | pb.BackendUpsert
)


def object_to_proto(value: StreamObject, base_revision: int) -> UpsertMessage:
    """The message of an object; an incarnation counts from the base revision."""
    match value:
        case EndpointObject():
            return pb.EndpointUpsert(
                id=value.id,
                node_index=value.node_index,
                incarnation_lag=base_revision - value.incarnation,
                identity=value.identity,
                ipv4=value.addresses.ipv4 or b"",
                ipv6=value.addresses.ipv6 or b"",
            )
        case NodeObject():
            return pb.NodeUpsert(
                index=value.index, name=value.name, addresses=_pair_to_proto(value.addresses)
            )
        case BlockObject():
            return pb.BlockUpsert(
                prefix=_prefix_to_proto(value.prefix), node_index=value.node_index
            )
        case IdentityObject():
            return pb.IdentityUpsert(id=value.id, namespace=value.namespace, labels=value.labels)
        case PoolObject():
            return pb.PoolUpsert(
                name=value.name,
                prefix=_prefix_to_proto(value.prefix),
                block_length=value.block_length,
                reserved=map(_prefix_to_proto, value.reserved),
                is_static=value.is_static,
                draining=value.draining,
                min_free_percent=value.min_free_percent,
                on_request=value.on_request,
            )
        case PeerSet():
            return pb.PeerSetUpsert(key=value.set_key, identity_deltas=deltas(value.identities))
        case SubjectPolicy():
            return pb.SubjectPolicyUpsert(
                identity=value.identity,
                ingress=_direction_to_proto(value.ingress),
                egress=_direction_to_proto(value.egress),
            )
        case BackendObject():
            return pb.BackendUpsert(
                service=value.service,
                address=value.address,
                ports=map(_slice_port_to_proto, value.ports),
                terminating=value.state is BackendState.TERMINATING,
                node_index=value.node_index,
                zones=value.zones,
                nodes=value.nodes,
            )
        case ServiceObject():
            return _service_to_proto(value)
        case _:
            assert_never(value)


def object_from_proto(  # noqa: C901 - a table: one entry for each kind
    message: UpsertMessage, base_revision: int
) -> StreamObject:
    """The object of a message.

    Raises:
        ValueError: an address, prefix, port or key that cannot be.
    """
    match message:
        case pb.EndpointUpsert():
            return EndpointObject(
                node_index=message.node_index,
                id=message.id,
                identity=message.identity,
                addresses=AddressPair(ipv4=message.ipv4 or None, ipv6=message.ipv6 or None),
                incarnation=base_revision - message.incarnation_lag,
            )
        case pb.NodeUpsert():
            return NodeObject(
                index=message.index,
                name=message.name,
                addresses=AddressPair(
                    ipv4=message.addresses.ipv4 or None, ipv6=message.addresses.ipv6 or None
                ),
            )
        case pb.BlockUpsert():
            return BlockObject(
                prefix=_prefix_from_proto(message.prefix), node_index=message.node_index
            )
        case pb.IdentityUpsert():
            return IdentityObject(
                id=message.id, namespace=message.namespace, labels=tuple(message.labels)
            )
        case pb.PoolUpsert():
            return PoolObject(
                name=message.name,
                prefix=_prefix_from_proto(message.prefix),
                block_length=message.block_length,
                reserved=tuple(map(_prefix_from_proto, message.reserved)),
                is_static=message.is_static,
                draining=message.draining,
                min_free_percent=message.min_free_percent,
                on_request=message.on_request,
            )
        case pb.PeerSetUpsert():
            if len(message.key) != 16:
                raise ValueError(f"a peer set's key has 16 bytes, not {len(message.key)}")
            return PeerSet(
                set_key=message.key, identities=tuple(accumulate(message.identity_deltas))
            )
        case pb.SubjectPolicyUpsert():
            return SubjectPolicy(
                identity=message.identity,
                ingress=_direction_from_proto(message.ingress),
                egress=_direction_from_proto(message.egress),
            )
        case pb.BackendUpsert():
            return BackendObject(
                service=message.service,
                address=_address(message.address),
                ports=tuple(map(_slice_port_from_proto, message.ports)),
                state=BackendState.TERMINATING if message.terminating else BackendState.READY,
                node_index=message.node_index,
                zones=tuple(message.zones),
                nodes=tuple(message.nodes),
            )
        case pb.ServiceUpsert():
            return _service_from_proto(message)
        case _:
            assert_never(message)


def deltas(ascending: Iterable[int]) -> Iterable[int]:
    """Ascending numbers, each as the difference from the one before; the first one from 0."""
    return (after - before for before, after in pairwise((0, *ascending)))


def _pair_to_proto(pair: AddressPair) -> common_pb2.AddressPair:
    return common_pb2.AddressPair(ipv4=pair.ipv4 or b"", ipv6=pair.ipv6 or b"")


def _prefix_to_proto(prefix: Prefix) -> common_pb2.Prefix:
    return common_pb2.Prefix(address=prefix.address, length=prefix.length)


def _prefix_from_proto(message: common_pb2.Prefix) -> Prefix:
    return Prefix(message.address, message.length)


def _address(address: bytes) -> bytes:
    if len(address) not in (4, 16):
        raise ValueError(f"an address has 4 or 16 bytes, not {len(address)}")
    return address


def _protocol_to_proto(protocol: Protocol) -> common_pb2.Protocol.ValueType:
    """TCP is what is meant where nothing is said."""
    return common_pb2.Protocol.ValueType(0 if protocol is Protocol.TCP else protocol)


def _protocol_from_proto(number: int) -> Protocol:
    return Protocol(number) if number else Protocol.TCP


def _slice_port_to_proto(port: SlicePort) -> service_pb2.SlicePort:
    return service_pb2.SlicePort(
        name=port.name, protocol=_protocol_to_proto(port.protocol), number=port.number
    )


def _slice_port_from_proto(message: service_pb2.SlicePort) -> SlicePort:
    return SlicePort(
        name=message.name, protocol=_protocol_from_proto(message.protocol), number=message.number
    )


def _service_to_proto(value: ServiceObject) -> pb.ServiceUpsert:
    return pb.ServiceUpsert(
        number=value.number,
        namespace=value.namespace,
        name=value.name,
        ports=(
            service_pb2.ServicePort(
                name=port.name,
                protocol=_protocol_to_proto(port.protocol),
                port=port.port,
                node_port=port.node_port,
            )
            for port in value.ports
        ),
        cluster_ips=value.cluster_ips,
        external_ips=value.external_ips,
        load_balancer_ips=value.load_balancer_ips,
        source_ranges=map(_prefix_to_proto, value.source_ranges),
        affinity_seconds=value.affinity_seconds,
        internal_local=value.internal_local,
        external_local=value.external_local,
        health_check_node_port=value.health_check_node_port,
        distribution=service_pb2.TrafficDistribution.ValueType(value.distribution),
    )


def _service_from_proto(message: pb.ServiceUpsert) -> ServiceObject:
    return ServiceObject(
        number=message.number,
        namespace=message.namespace,
        name=message.name,
        ports=tuple(
            ServicePort(
                name=port.name,
                protocol=_protocol_from_proto(port.protocol),
                port=port.port,
                node_port=port.node_port,
            )
            for port in message.ports
        ),
        cluster_ips=tuple(map(_address, message.cluster_ips)),
        external_ips=tuple(map(_address, message.external_ips)),
        load_balancer_ips=tuple(map(_address, message.load_balancer_ips)),
        source_ranges=tuple(map(_prefix_from_proto, message.source_ranges)),
        affinity_seconds=message.affinity_seconds,
        internal_local=message.internal_local,
        external_local=message.external_local,
        health_check_node_port=message.health_check_node_port,
        distribution=Distribution(message.distribution),
    )


def _direction_to_proto(direction: DirectionPolicy) -> pb.DirectionPolicy:
    return pb.DirectionPolicy(
        isolated=direction.isolated,
        audit_isolated=direction.audit_isolated,
        rules=map(_rule_to_proto, direction.rules),
        policies=direction.policies,
    )


def _rule_to_proto(rule: DirectionRule) -> pb.DirectionRule:
    message = pb.DirectionRule(
        tier=policy_pb2.PolicyTier.ValueType(0 if rule.tier is Tier.NORMAL else rule.tier),
        action=policy_pb2.RuleAction.ValueType(0 if rule.action is Action.ALLOW else rule.action),
        audit=rule.audit,
        entities=rule.entities,
        outside_only=rule.outside_only,
        sources=(pb.RuleSource(policy=policy, rule=number) for policy, number in rule.sources),
        all_peers=rule.all_peers,
        peer_sets=rule.peer_sets,
        ports=(
            pb.RulePort(
                protocol=common_pb2.Protocol.ValueType(port.protocol),
                first=port.first,
                last=port.last,
            )
            for port in rule.ports
        ),
    )
    for block in rule.blocks:
        added = message.blocks.add(cidr=_prefix_to_proto(block.cidr))
        # A word of Python's: the generated class has the field, but not as an attribute.
        getattr(added, "except").extend(map(_prefix_to_proto, block.except_))
    return message


def _direction_from_proto(message: pb.DirectionPolicy) -> DirectionPolicy:
    return DirectionPolicy(
        isolated=message.isolated,
        audit_isolated=message.audit_isolated,
        rules=tuple(map(_rule_from_proto, message.rules)),
        policies=tuple(message.policies),
    )


def _rule_from_proto(message: pb.DirectionRule) -> DirectionRule:
    return DirectionRule(
        tier=Tier(message.tier) if message.tier else Tier.NORMAL,
        action=Action(message.action) if message.action else Action.ALLOW,
        audit=message.audit,
        entities=tuple(message.entities),
        outside_only=message.outside_only,
        sources=tuple((source.policy, source.rule) for source in message.sources),
        all_peers=message.all_peers,
        peer_sets=tuple(message.peer_sets),
        blocks=tuple(
            IPBlock(
                _prefix_from_proto(block.cidr),
                tuple(map(_prefix_from_proto, getattr(block, "except"))),
            )
            for block in message.blocks
        ),
        ports=tuple(
            PortRange(Protocol(port.protocol), port.first, port.last) for port in message.ports
        ),
    )

"""One byte string for one value, the same in every process and version: what digests are made of.

Not the wire format: protobuf does not promise stable bytes. Numbers are big endian, lists and texts
carry their length in front, so that different values never have the same bytes.
"""

import struct
from collections.abc import Iterable
from typing import assert_never

from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.objects import (
    BackendObject,
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
from deltaplane.model.service import SlicePort


def canonical(value: StreamObject) -> bytes:
    """The bytes of a value, its key not included."""
    match value:
        case EndpointObject():
            return struct.pack(">IQ", value.identity, value.incarnation) + _pair(value.addresses)
        case NodeObject():
            return _text(value.name) + _pair(value.addresses)
        case BlockObject():
            return struct.pack(">I", value.node_index)
        case IdentityObject():
            return _text(value.namespace) + _list(map(_text, value.labels))
        case PoolObject():
            numbers = bytes((value.block_length, value.min_free_percent))
            flags = bytes((value.is_static, value.draining, value.on_request))
            return _prefix(value.prefix) + numbers + flags + _list(map(_prefix, value.reserved))
        case PeerSet():
            return struct.pack(f">{len(value.identities)}I", *value.identities)
        case SubjectPolicy():
            return _direction(value.ingress) + _direction(value.egress)
        case BackendObject():
            return (
                struct.pack(">BI", value.state, value.node_index)
                + _list(map(_slice_port, value.ports))
                + _list(map(_text, value.zones))
                + _list(map(_text, value.nodes))
            )
        case ServiceObject():
            return _service(value)
        case _:
            assert_never(value)


def _list(items: Iterable[bytes]) -> bytes:
    parts = list(items)
    return struct.pack(">I", len(parts)) + b"".join(parts)


def _blob(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _text(text: str) -> bytes:
    return _blob(text.encode())


def _pair(pair: AddressPair) -> bytes:
    return _blob(pair.ipv4 or b"") + _blob(pair.ipv6 or b"")


def _prefix(prefix: Prefix) -> bytes:
    return _blob(prefix.address) + bytes((prefix.length,))


def _slice_port(port: SlicePort) -> bytes:
    return _text(port.name) + struct.pack(">BH", port.protocol, port.number)


def _service(value: ServiceObject) -> bytes:
    return (
        _text(value.namespace)
        + _text(value.name)
        + _list(
            _text(port.name) + struct.pack(">BHH", port.protocol, port.port, port.node_port)
            for port in value.ports
        )
        + _list(map(_blob, value.cluster_ips))
        + _list(map(_blob, value.external_ips))
        + _list(map(_blob, value.load_balancer_ips))
        + _list(map(_prefix, value.source_ranges))
        + struct.pack(
            ">IHB", value.affinity_seconds, value.health_check_node_port, value.distribution
        )
        + bytes((value.internal_local, value.external_local))
    )


def _direction(direction: DirectionPolicy) -> bytes:
    return (
        bytes((direction.isolated, direction.audit_isolated))
        + _list(map(_rule, direction.rules))
        + _list(map(_text, direction.policies))
    )


def _rule(rule: DirectionRule) -> bytes:
    return (
        bytes((rule.tier, rule.action, rule.audit, rule.all_peers, rule.outside_only))
        + _list(map(_blob, rule.peer_sets))
        + _list(
            _prefix(block.cidr) + _list(_prefix(hole) for hole in block.except_)
            for block in rule.blocks
        )
        + _list(struct.pack(">BHH", port.protocol, port.first, port.last) for port in rule.ports)
        + _list(struct.pack(">I", entity) for entity in rule.entities)
        + _list(struct.pack(">II", *source) for source in rule.sources)
    )

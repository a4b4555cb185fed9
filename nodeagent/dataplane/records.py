"""Values of the port ↔ keys and values of the maps. Pure."""

import sys
from collections.abc import Iterable
from typing import Literal, TypeVar

from nodeagent.dataplane import abi
from nodeagent.dataplane.port import (
    Decisions,
    DenialCount,
    LocalEndpoint,
    Mapping,
    NextHop,
    PolicyEntry,
    PrefixEntry,
    Range,
    RuleCount,
    Subject,
)

_NATIVE: Literal["little", "big"] = sys.byteorder

Value = TypeVar("Value")

Item = tuple[bytes, bytes]
"""(key, value)."""

NO_ADDRESS = bytes(16)
V4_MAPPED = bytes(10) + b"\xff\xff"


def number_key(number: int) -> bytes:
    """Key of the maps that are indexed by a u32: nodes, subjects, endpoints, arrays."""
    return number.to_bytes(4, _NATIVE)


def number_of(key: bytes) -> int:
    """Undoes `number_key`."""
    return int.from_bytes(key, _NATIVE)


def mapping_item(mapping: Mapping) -> Item:
    """Entry of `mappings`."""
    return mapping.address, abi.Mapping(mapping.identity, mapping.node_index).pack()


def to_mapping(item: Item) -> Mapping:
    """Undoes `mapping_item`."""
    value = abi.Mapping.unpack(item[1])
    return Mapping(address=item[0], identity=value.identity, node_index=value.node_index)


def range_key(address: bytes, length: int) -> bytes:
    """Key of `ranges`."""
    return abi.RangeKey(length, address).pack()


def range_item(entry: Range) -> Item:
    """Entry of `ranges`."""
    key = range_key(entry.address, entry.length)
    return key, abi.Mapping(entry.identity, entry.node_index).pack()


def to_range(item: Item) -> Range:
    """Undoes `range_item`."""
    key, value = abi.RangeKey.unpack(item[0]), abi.Mapping.unpack(item[1])
    return Range(
        address=key.address,
        length=key.prefixlen,
        identity=value.identity,
        node_index=value.node_index,
    )


def next_hop_item(hop: NextHop) -> Item:
    """Entry of `nodes`."""
    value = abi.Node(
        ipv6=hop.ipv6 or NO_ADDRESS,
        ipv4=int.from_bytes(hop.ipv4 or b""),
        has_ipv4=hop.ipv4 is not None,
        has_ipv6=hop.ipv6 is not None,
    )
    return number_key(hop.node_index), value.pack()


def to_next_hop(item: Item) -> NextHop:
    """Undoes `next_hop_item`."""
    value = abi.Node.unpack(item[1])
    return NextHop(
        node_index=number_of(item[0]),
        ipv4=value.ipv4.to_bytes(4) if value.has_ipv4 else None,
        ipv6=value.ipv6 if value.has_ipv6 else None,
    )


def entry_item(set_id: int, entry: PolicyEntry) -> Item:
    """Entry of `policy_entries`."""
    if entry.protocol is None:
        bits = abi.POLICY_PEER_BITS
    elif entry.port is None:
        bits = abi.POLICY_PROTO_BITS
    else:
        bits = abi.POLICY_PROTO_BITS + entry.port_bits
    key = abi.PolicyKey(bits, set_id, entry.peer, entry.protocol or 0, entry.port or 0)
    return key.pack(), abi.PolicyEntry(*entry.decisions).pack()


def to_entry(item: Item) -> tuple[int, PolicyEntry]:
    """Undoes `entry_item`: (set id, entry). Zero port bits and "every port" are the same."""
    key, value = abi.PolicyKey.unpack(item[0]), abi.PolicyEntry.unpack(item[1])
    port_bits = max(key.prefixlen - abi.POLICY_PROTO_BITS, 0)
    return key.set_id, PolicyEntry(
        peer=key.peer,
        protocol=None if key.prefixlen <= abi.POLICY_PEER_BITS else key.protocol,
        port=key.port if port_bits else None,
        port_bits=port_bits,
        decisions=(value.admin, value.normal, value.baseline),
    )


def prefix_item(set_id: int, entry: PrefixEntry) -> Item:
    """Entry of `policy_prefixes`."""
    key = abi.PrefixKey(abi.PREFIX_SET_BITS + entry.length, set_id, entry.address)
    return key.pack(), abi.PrefixEntry(entry.peer_class, entry.outside_class).pack()


def to_prefix(item: Item) -> tuple[int, PrefixEntry]:
    """Undoes `prefix_item`: (set id, entry)."""
    key, value = abi.PrefixKey.unpack(item[0]), abi.PrefixEntry.unpack(item[1])
    return key.set_id, PrefixEntry(
        address=key.address,
        length=key.prefixlen - abi.PREFIX_SET_BITS,
        peer_class=value.peer_class,
        outside_class=value.outside_class,
    )


def subject_item(subject: Subject) -> Item:
    """Entry of `subjects`."""
    value = abi.Subject(*subject.sets, subject.epoch)
    return number_key(subject.identity), value.pack()


def to_subject(item: Item) -> Subject:
    """Undoes `subject_item`."""
    value = abi.Subject.unpack(item[1])
    return Subject(
        identity=number_of(item[0]),
        ingress_set=value.ingress_set,
        egress_set=value.egress_set,
        audit_ingress_set=value.audit_ingress_set,
        audit_egress_set=value.audit_egress_set,
        epoch=value.epoch,
    )


def endpoint_value(endpoint: LocalEndpoint) -> bytes:
    """Value of `endpoints` and `addresses`."""
    return abi.Endpoint(
        ifindex=endpoint.ifindex,
        endpoint_id=endpoint.endpoint_id,
        identity=endpoint.identity,
        ipv4=NO_ADDRESS if endpoint.ipv4 is None else V4_MAPPED + endpoint.ipv4,
        ipv6=endpoint.ipv6 or NO_ADDRESS,
        pod_mac=endpoint.pod_mac,
        host_mac=endpoint.host_mac,
    ).pack()


def to_endpoint(value: bytes) -> LocalEndpoint:
    """Undoes `endpoint_value`."""
    raw = abi.Endpoint.unpack(value)
    return LocalEndpoint(
        ifindex=raw.ifindex,
        endpoint_id=raw.endpoint_id,
        identity=raw.identity,
        ipv4=raw.ipv4[12:] if raw.ipv4 != NO_ADDRESS else None,
        ipv6=raw.ipv6 if raw.ipv6 != NO_ADDRESS else None,
        pod_mac=raw.pod_mac,
        host_mac=raw.host_mac,
    )


def address_keys(endpoint: LocalEndpoint) -> tuple[bytes, ...]:
    """Keys of an endpoint in `addresses`."""
    addresses = (endpoint.ipv4 and V4_MAPPED + endpoint.ipv4, endpoint.ipv6)
    return tuple(address for address in addresses if address is not None)


def grouped(pairs: Iterable[tuple[int, Value]]) -> dict[int, list[Value]]:
    """Set id → what belongs to it, in the order given."""
    groups: dict[int, list[Value]] = {}
    for set_id, value in pairs:
        groups.setdefault(set_id, []).append(value)
    return groups


def entry_order(entry: PolicyEntry) -> tuple[int, int, int, int]:
    """Key by which the entries of a set ascend; "every" comes before a number."""
    return (
        entry.peer,
        -1 if entry.protocol is None else entry.protocol,
        -1 if entry.port is None else entry.port,
        entry.port_bits,
    )


def to_denial(item: Item) -> DenialCount:
    """What an entry of `denials` counts."""
    key, value = abi.DenialKey.unpack(item[0]), abi.Denial.unpack(item[1])
    return DenialCount(
        subject_identity=key.subject,
        peer_identity=key.peer,
        ingress=bool(key.flags & abi.DenialFlag.INGRESS),
        protocol=key.protocol,
        port=key.port,
        packets=value.packets,
        last_boot_ns=value.last_seen,
        audit=bool(key.flags & abi.DenialFlag.AUDIT),
    )


def rule_key(set_id: int, ruling: int) -> bytes:
    """Key of `rules`."""
    return abi.RuleKey(set_id, ruling).pack()


def to_rule_count(item: Item) -> RuleCount:
    """What an entry of `rules` counts."""
    key, value = abi.RuleKey.unpack(item[0]), abi.Rule.unpack(item[1])
    return RuleCount(set_id=key.set_id, ruling=key.ruling, hits=value.hits)


def rulings_of(decisions: Iterable[Decisions]) -> set[int]:
    """The rulings that a set with these decisions may give, and the one if nobody decides."""
    return {0} | {
        tier << abi.RULING_TIER | decision
        for said in decisions
        for tier, decision in zip(abi.Tier, said, strict=True)
        if decision
    }

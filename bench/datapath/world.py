"""What the nodes' maps hold: a cluster of 10,000 pods, and policies of any size. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from deltaplane.model.addresses import AddressPair, Prefix, to_mapped
from nodeagent.dataplane.abi import FIRST_IDENTITY, PEER_CLASS, Identity
from nodeagent.dataplane.port import (
    ALLOWING,
    LocalEndpoint,
    Mapping,
    NextHop,
    PolicyEntry,
    PolicySet,
    PrefixEntry,
    Range,
    Subject,
)

NODES = 200
PODS_ON_NODE = 50
IDENTITIES = 500

CLASS_EVERY = 10
"""One entry of so many is about a block of addresses instead of an identity."""

NEIGHBOUR_ENTRIES = 20
"""Of each policy set of the other pods on a node."""

TCP = 6
_BLOCKS_IPV4 = Prefix.parse("10.244.0.0/16")
_BLOCKS_IPV6 = Prefix.parse("fd00:10:244::/112")
_UPLINKS_IPV4 = Prefix.parse("198.19.0.0/16")
_UPLINKS_IPV6 = Prefix.parse("fd99::/64")
_OUTSIDE = Prefix.parse("100.64.0.0/10")
_BLOCK_SIZE = 64


def uplink(node: int) -> AddressPair:
    """Of a node, 1..NODES."""
    return AddressPair(ipv4=_UPLINKS_IPV4.nth(node), ipv6=_UPLINKS_IPV6.nth(node))


def pod(node: int, ordinal: int = 0) -> AddressPair:
    """Of a pod, 0..PODS_ON_NODE - 1, of a node."""
    offset = node * _BLOCK_SIZE + ordinal
    return AddressPair(ipv4=_BLOCKS_IPV4.nth(offset), ipv6=_BLOCKS_IPV6.nth(offset))


def blocks(node: int) -> tuple[Prefix, Prefix]:
    """The two blocks of a node."""
    first = node * _BLOCK_SIZE
    return Prefix(_BLOCKS_IPV4.nth(first), 26), Prefix(_BLOCKS_IPV6.nth(first), 122)


def identity(node: int, ordinal: int = 0) -> int:
    """Of a pod; pods share identities across nodes, but not on one."""
    return FIRST_IDENTITY + (node * PODS_ON_NODE + ordinal) % IDENTITIES


def mappings() -> Iterator[Mapping]:
    """Who has which address: all pods and nodes, both families."""
    for node in range(1, NODES + 1):
        holders = [(pod(node, ordinal), identity(node, ordinal)) for ordinal in range(PODS_ON_NODE)]
        for pair, number in [*holders, (uplink(node), Identity.REMOTE_NODE)]:
            for address in pair:
                yield Mapping(address=to_mapped(address), identity=number, node_index=node)


def ranges() -> Iterator[Range]:
    """All blocks."""
    for node in range(1, NODES + 1):
        for block in blocks(node):
            address, length = block.mapped
            yield Range(
                address=address, length=length, identity=Identity.OTHER_POD, node_index=node
            )


def next_hops() -> Iterator[NextHop]:
    """All nodes."""
    for node in range(1, NODES + 1):
        pair = uplink(node)
        yield NextHop(node_index=node, ipv4=pair.ipv4, ipv6=pair.ipv6)


def neighbours(node: int, first_link: int) -> Iterator[LocalEndpoint]:
    """All pods of a node but the first: nobody sends to them, their links do not exist."""
    for ordinal in range(1, PODS_ON_NODE):
        pair = pod(node, ordinal)
        yield LocalEndpoint(
            ifindex=first_link + ordinal,
            endpoint_id=first_link + ordinal,
            identity=identity(node, ordinal),
            ipv4=pair.ipv4,
            ipv6=pair.ipv6,
            pod_mac=bytes(6),
            host_mac=bytes(6),
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A subject and the two sets that are in force for it."""

    subject: Subject
    sets: tuple[PolicySet, PolicySet]


def policy(subject: int, peer: int, entries: int, first_set: int) -> Policy:
    """Isolates a subject in both directions, with so many entries in each, and lets a peer pass.

    Args:
        subject: identity.
        peer: identity.
        entries: 1 or more.
        first_set: number of the first set, never used before; the second is the next.
    """
    sets = policy_set(first_set, peer, entries), policy_set(first_set + 1, peer, entries)
    return Policy(
        Subject(
            identity=subject,
            ingress_set=first_set,
            egress_set=first_set + 1,
            epoch=first_set,
        ),
        sets,
    )


def neighbour_policies(node: int, first_set: int) -> Iterator[Policy]:
    """Policies of the pods of a node that `neighbours` gives."""
    for ordinal in range(1, PODS_ON_NODE):
        number = identity(node, ordinal)
        yield policy(number, number, NEIGHBOUR_ENTRIES, first_set + 2 * ordinal)


def policy_set(set_id: int, peer: int, entries: int) -> PolicySet:
    """One entry lets the peer pass, the others are about all identities, ports, and blocks."""
    found = [PolicyEntry(peer=peer)]
    prefixes = []
    for number in range(1, entries):
        port = 1024 + number // IDENTITIES
        if number % CLASS_EVERY:
            other = FIRST_IDENTITY + (peer - FIRST_IDENTITY + number) % IDENTITIES
        else:
            other = PEER_CLASS | number
            address, length = Prefix(_OUTSIDE.nth(number * 256), 24).mapped
            prefixes.append(
                PrefixEntry(address=address, length=length, peer_class=other, outside_class=other)
            )
        found.append(
            PolicyEntry(peer=other, protocol=TCP, port=port, port_bits=16, decisions=ALLOWING)
        )
    return PolicySet(
        set_id=set_id, entries=tuple(sorted(found, key=_order)), prefixes=tuple(sorted(prefixes))
    )


def _order(entry: PolicyEntry) -> tuple[int, int, int]:
    return entry.peer, entry.protocol or 0, entry.port or 0

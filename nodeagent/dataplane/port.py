"""What the agent asks of the kernel.

Values mirror the maps of bpf/include/abi.h. Addresses are 16 bytes, IPv4 as IPv4-mapped. All calls
block (microseconds to milliseconds): the agent makes them from one worker thread.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nodeagent.dataplane.balancing import BalancingPlane


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Address → identity and node: one entry of the identity map.

    Attributes:
        address: 16 bytes.
        identity: number of the identity, reserved ones included.
        node_index: node that the address is on; 0 for none.
    """

    address: bytes
    identity: int
    node_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Prefix → identity of its addresses that have no mapping, and the node it is routed to.

    Attributes:
        address: 16 bytes.
        length: 0..128 (IPv4: 96 + its own length).
        identity: reserved number, OTHER_POD for blocks.
        node_index: owning node.
    """

    address: bytes
    length: int
    identity: int
    node_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHop:
    """Uplink addresses of a node; ipv4 4 bytes or None, ipv6 16 bytes or None."""

    node_index: int
    ipv4: bytes | None
    ipv6: bytes | None


class Verdict(enum.IntEnum):
    """Twin of enum dp_verdict."""

    DENY = 0
    ALLOW = 1


Decisions = tuple[int, int, int]
"""What an entry says in the ADMIN, NORMAL and BASELINE tier: order << 2 | action; 0: nothing."""

ALLOWING: Decisions = (0, 1 << 2 | 1, 0)
"""Of a NetworkPolicy with one rule."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PolicyEntry:
    """One entry of a policy set. The longest match on (peer, protocol, port prefix) counts.

    Attributes:
        peer: identity number (OTHER_POD: every pod), a class number of the same set (top bit set),
            or 0 for every peer.
        protocol: IP protocol number; None: every protocol, then port is None, too.
        port: first port, or ICMP type, of an aligned range of 2^(16-port_bits); None: every port.
        port_bits: 0..16 leading bits of the port that count.
        decisions: see Decisions; nothing at all hides a wider entry.
    """

    peer: int
    protocol: int | None = None
    port: int | None = None
    port_bits: int = 0
    decisions: Decisions = ALLOWING


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PrefixEntry:
    """Remote addresses of a prefix belong to a class of this set; the longest prefix decides.

    Attributes:
        address: 16 bytes.
        length: 0..128.
        peer_class: class number: 0x80000000 | n; 0 means none (a hole). Of an address that a pod or
            a node has.
        outside_class: the same, of an address that nobody has (identity WORLD).
    """

    address: bytes
    length: int
    peer_class: int
    outside_class: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Complete content of one policy set, for one direction of one subject.

    Attributes:
        set_id: 1 or more; chosen by the agent, never reused while anything may refer to it.
        entries: ascending.
        prefixes: ascending.
    """

    set_id: int
    entries: tuple[PolicyEntry, ...]
    prefixes: tuple[PrefixEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Which policy sets are in force for an identity. An identity without an entry is closed.

    Attributes:
        identity: number of the identity.
        ingress_set: set id, or 0: everything is allowed.
        egress_set: set id, or 0: everything is allowed.
        audit_ingress_set: set that is asked about what passes, for the counters only; 0: none.
        audit_egress_set: the same for what goes out.
        epoch: changes whenever the meaning of the sets changes; conntrack re-evaluates on a
            difference.
    """

    identity: int
    ingress_set: int
    egress_set: int
    audit_ingress_set: int = 0
    audit_egress_set: int = 0
    epoch: int

    @property
    def sets(self) -> tuple[int, int, int, int]:
        """All four, zeros included: ingress, egress, audit of ingress, audit of egress."""
        return self.ingress_set, self.egress_set, self.audit_ingress_set, self.audit_egress_set


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEndpoint:
    """A pod interface of this node.

    Attributes:
        ifindex: of the host-side link.
        endpoint_id: number in the journal.
        identity: 0: closed (nothing passes but the node's own probes and neighbour discovery).
        ipv4: 4 bytes or None.
        ipv6: 16 bytes or None.
        pod_mac: 6 bytes, of the link in the pod.
        host_mac: 6 bytes, of the host-side link.
    """

    ifindex: int
    endpoint_id: int
    identity: int
    ipv4: bytes | None
    ipv6: bytes | None
    pod_mac: bytes
    host_mac: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What the kernel state stems from. lineage: 16 bytes, zeros before the first."""

    lineage: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialCount:
    """Denied packets of one kind; see deltaplane.v1.Denial. audit: they passed."""

    subject_identity: int
    peer_identity: int
    ingress: bool
    protocol: int
    port: int
    packets: int
    last_boot_ns: int
    audit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCount:
    """How often a ruling of a policy set was given.

    Attributes:
        set_id: of the set.
        ruling: tier << 30 | order << 2 | action; 0: no rule decided.
        hits: first packets of connections, and denied packets.
    """

    set_id: int
    ruling: int
    hits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Entries of a map: how many there are, and how many fit."""

    used: int
    capacity: int

    @property
    def free(self) -> int:
        """Entries that still fit; never below 0."""
        return max(self.capacity - self.used, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The maps that a policy set needs room in."""

    policy_entries: Usage
    policy_prefixes: Usage
    subjects: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeCount:
    """Packets and bytes that ended in one outcome of the decision lists."""

    outcome: str
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """Everything the kernel holds, dumped at once for reconciling."""

    applied: Applied
    mappings: frozenset[Mapping]
    ranges: frozenset[Range]
    next_hops: frozenset[NextHop]
    policy_sets: tuple[PolicySet, ...]
    subjects: frozenset[Subject]
    local_endpoints: frozenset[LocalEndpoint]


class CapacityError(Exception):
    """A map is full. map_name and capacity say which and how large."""

    def __init__(self, map_name: str, capacity: int) -> None:
        super().__init__(f"map {map_name} is full ({capacity} entries)")
        self.map_name = map_name
        self.capacity = capacity


class DataPlane(BalancingPlane, Protocol):
    """The maps and programs of one node. tests/contract/dataplane is the contract.

    Upserts replace; deleting what is absent does nothing. A batch that ends with CapacityError may
    have been
    applied in part.
    """

    def upsert_mappings(self, mappings: Sequence[Mapping]) -> None:
        """Writes identity-map entries."""
        ...

    def delete_mappings(self, addresses: Sequence[bytes]) -> None:
        """Removes identity-map entries."""
        ...

    def upsert_ranges(self, ranges: Sequence[Range]) -> None:
        """Writes prefixes."""
        ...

    def delete_ranges(self, prefixes: Sequence[tuple[bytes, int]]) -> None:
        """Removes prefixes (16 bytes, length)."""
        ...

    def upsert_next_hops(self, next_hops: Sequence[NextHop]) -> None:
        """Writes nodes."""
        ...

    def delete_next_hops(self, node_indexes: Sequence[int]) -> None:
        """Removes nodes."""
        ...

    def write_policy_set(self, policy_set: PolicySet) -> None:
        """Writes the whole content of a set that nothing refers to yet."""
        ...

    def delete_policy_sets(self, set_ids: Iterable[int]) -> tuple[RuleCount, ...]:
        """Removes sets that nothing refers to any more; returns what they have counted."""
        ...

    def room(self) -> Room:
        """How full the maps of policies are."""
        ...

    def rule_counts(self) -> tuple[RuleCount, ...]:
        """Reads the counters of all sets; rulings that were never given are left out."""
        ...

    def upsert_subjects(self, subjects: Sequence[Subject]) -> None:
        """Switches identities to their sets: atomic per identity."""
        ...

    def delete_subjects(self, identities: Sequence[int]) -> None:
        """Closes identities."""
        ...

    def upsert_local_endpoints(self, endpoints: Sequence[LocalEndpoint]) -> None:
        """Writes interfaces, in the table by link and in the table by address."""
        ...

    def delete_local_endpoints(self, ifindexes: Sequence[int]) -> None:
        """Removes interfaces from both tables."""
        ...

    def holder_of(self, address: bytes) -> int | None:
        """The link that packets to an address (16 bytes) go to; None: no local pod has it."""
        ...

    def set_node_index(self, node_index: int) -> None:
        """Says which node this is, 1 or more, as soon as it is registered."""
        ...

    def synchronize(self) -> None:
        """Returns when no program still runs on what was replaced before the call."""
        ...

    def set_applied(self, applied: Applied) -> None:
        """Records what the kernel state stems from."""
        ...

    def dump(self) -> Actual:
        """Reads everything back."""
        ...

    def denials(self) -> tuple[DenialCount, ...]:
        """Reads the denial counters."""
        ...

    def counters(self) -> tuple[OutcomeCount, ...]:
        """Reads the outcome counters, summed over CPUs, in outcome order."""
        ...

    def attach_pod(self, ifindex: int) -> None:
        """Puts from_pod and to_pod on the host-side link, replacing earlier ones atomically."""
        ...

    def attach_uplink(self, ifindex: int) -> None:
        """Puts from_net on the uplink, replacing earlier ones atomically."""
        ...

    def attach_tunnel(self, ifindex: int) -> None:
        """Puts from_tunnel on the tunnel, replacing earlier ones atomically."""
        ...

    def attach_direct(self, ifindex: int) -> None:
        """Puts from_entry on the link of direct return, replacing earlier ones atomically."""
        ...

    def attach_sockets(self, cgroup: Path) -> None:
        """Puts the programs of sockets on a cgroup, replacing earlier ones in place.

        From then on sockets of all processes in it, and in those below, find services.

        Raises:
            OSError: it is no cgroup of version 2.
        """
        ...

    def close(self) -> None:
        """Closes descriptors; pinned maps and attached programs stay."""
        ...

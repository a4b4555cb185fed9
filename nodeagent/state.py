"""What the kernel of this node holds and what it should hold, by key: values for the planner.

Pure.
"""

from collections.abc import Iterable
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from typing import TypeVar

from deltaplane.model.addresses import AddressPair, Prefix
from nodeagent.dataplane import port
from nodeagent.dataplane.port import LocalEndpoint, Mapping, NextHop, PolicyEntry, Range
from nodeagent.masquerade import Member
from nodeagent.policy import ResolvedDirection
from nodeagent.routes import Route

RangeKey = tuple[bytes, int]

K = TypeVar("K")
V = TypeVar("V")


CLOSED = ResolvedDirection(entries=(), prefixes=())
"""A set without entries allows nothing."""


@dataclass(frozen=True, slots=True)
class Policies:
    """Both directions of a subject, and again as if policies under audit counted.

    None: everything is allowed; of the audit: there is none.
    """

    ingress: ResolvedDirection | None
    egress: ResolvedDirection | None
    audit_ingress: ResolvedDirection | None = None
    audit_egress: ResolvedDirection | None = None

    @property
    def sets(self) -> tuple[ResolvedDirection | None, ...]:
        """In the order of port.Subject.sets."""
        return self.ingress, self.egress, self.audit_ingress, self.audit_egress


@dataclass(frozen=True, slots=True)
class InForce:
    """A subject as the kernel has it: the entry and what its sets say."""

    subject: port.Subject
    policies: Policies


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalInterface:
    """An interface of a pod of this node whose link is there.

    Attributes:
        number: endpoint number; with our node index the key on the stream.
        ifindex: of the host-side link.
        addresses: of the pod.
        pod_mac: 6 bytes.
        host_mac: 6 bytes.
        identity: what the registration answered; counts until the stream covers `revision`.
        revision: store revision of the registration; 0: not registered (yet).
    """

    number: int
    ifindex: int
    addresses: AddressPair
    pod_mac: bytes
    host_mac: bytes
    identity: int = 0
    revision: int = 0


@dataclass(kw_only=True)
class Touched:
    """Keys of `Wanted` and `Kernel` to look at."""

    next_hops: set[int] = field(default_factory=set)
    ranges: set[RangeKey] = field(default_factory=set)
    routes: set[Prefix] = field(default_factory=set)
    mappings: set[bytes] = field(default_factory=set)
    subjects: set[int] = field(default_factory=set)
    endpoints: set[int] = field(default_factory=set)
    members: set[Member] = field(default_factory=set)

    def add(self, other: "Touched") -> None:
        """Takes over the keys of another."""
        self.next_hops |= other.next_hops
        self.ranges |= other.ranges
        self.routes |= other.routes
        self.mappings |= other.mappings
        self.subjects |= other.subjects
        self.endpoints |= other.endpoints
        self.members |= other.members

    def remove(self, other: "Touched") -> None:
        """Drops the keys of another."""
        self.next_hops -= other.next_hops
        self.ranges -= other.ranges
        self.routes -= other.routes
        self.mappings -= other.mappings
        self.subjects -= other.subjects
        self.endpoints -= other.endpoints
        self.members -= other.members

    def __bool__(self) -> bool:
        return any(
            (
                self.next_hops,
                self.ranges,
                self.routes,
                self.mappings,
                self.subjects,
                self.endpoints,
                self.members,
            )
        )


@dataclass(kw_only=True)
class Wanted:
    """What the kernel should hold; a key that is absent should not be there.

    Attributes:
        next_hops: by node index.
        ranges: by prefix.
        routes: by block.
        mappings: by address, 16 bytes.
        subjects: by identity.
        endpoints: by index of the host-side link.
        members: of the masquerading, by themselves.
    """

    next_hops: dict[int, NextHop] = field(default_factory=dict)
    ranges: dict[RangeKey, Range] = field(default_factory=dict)
    routes: dict[Prefix, Route] = field(default_factory=dict)
    mappings: dict[bytes, Mapping] = field(default_factory=dict)
    subjects: dict[int, Policies] = field(default_factory=dict)
    endpoints: dict[int, LocalEndpoint] = field(default_factory=dict)
    members: dict[Member, Member] = field(default_factory=dict)

    def leave_out(self, keys: Touched) -> None:
        """Forgets keys: what cannot be had should not be there."""
        self.next_hops = _without(self.next_hops, keys.next_hops)
        self.ranges = _without(self.ranges, keys.ranges)
        self.routes = _without(self.routes, keys.routes)
        self.mappings = _without(self.mappings, keys.mappings)
        self.subjects = _without(self.subjects, keys.subjects)
        self.endpoints = _without(self.endpoints, keys.endpoints)
        self.members = _without(self.members, keys.members)


@dataclass(kw_only=True)
class Kernel:
    """What the kernel holds; as `Wanted`, with the numbers that the agent gave.

    Attributes:
        orphan_sets: ids of policy sets that no subject refers to.
    """

    next_hops: dict[int, NextHop] = field(default_factory=dict)
    ranges: dict[RangeKey, Range] = field(default_factory=dict)
    routes: dict[Prefix, Route] = field(default_factory=dict)
    mappings: dict[bytes, Mapping] = field(default_factory=dict)
    subjects: dict[int, InForce] = field(default_factory=dict)
    endpoints: dict[int, LocalEndpoint] = field(default_factory=dict)
    members: dict[Member, Member] = field(default_factory=dict)
    orphan_sets: set[int] = field(default_factory=set)

    def cut(self, keys: Touched) -> "Kernel":
        """The part that the keys name, and the orphans."""
        return Kernel(
            next_hops=_only(self.next_hops, keys.next_hops),
            ranges=_only(self.ranges, keys.ranges),
            routes=_only(self.routes, keys.routes),
            mappings=_only(self.mappings, keys.mappings),
            subjects=_only(self.subjects, keys.subjects),
            endpoints=_only(self.endpoints, keys.endpoints),
            members=_only(self.members, keys.members),
            orphan_sets=set(self.orphan_sets),
        )


def _only(table: dict[K, V], keys: set[K]) -> dict[K, V]:
    return {key: table[key] for key in keys if key in table}


def _without(table: dict[K, V], keys: set[K]) -> dict[K, V]:
    return {key: value for key, value in table.items() if key not in keys}


def everything_in(kernel: Kernel) -> Touched:
    """All that the kernel holds: with `Tracker.everything`, what a full comparison looks at."""
    return Touched(
        next_hops=set(kernel.next_hops),
        ranges=set(kernel.ranges),
        routes=set(kernel.routes),
        mappings=set(kernel.mappings),
        subjects=set(kernel.subjects),
        endpoints=set(kernel.endpoints),
        members=set(kernel.members),
    )


def from_dump(
    actual: port.Actual, routes: MappingOf[Prefix, Route], members: Iterable[Member] = ()
) -> Kernel:
    """Orders a dump by key. A set that is referred to but missing is closed, as for packets."""
    contents = {
        held.set_id: ResolvedDirection(
            entries=tuple(sorted(held.entries, key=_order)), prefixes=tuple(sorted(held.prefixes))
        )
        for held in actual.policy_sets
    }

    def content(set_id: int) -> ResolvedDirection | None:
        return contents.get(set_id, CLOSED) if set_id else None

    subjects = {
        subject.identity: InForce(subject, Policies(*map(content, subject.sets)))
        for subject in actual.subjects
    }
    used = {set_id for subject in actual.subjects for set_id in subject.sets}
    return Kernel(
        next_hops={hop.node_index: hop for hop in actual.next_hops},
        ranges={(entry.address, entry.length): entry for entry in actual.ranges},
        routes=dict(routes),
        mappings={mapping.address: mapping for mapping in actual.mappings},
        subjects=subjects,
        endpoints={endpoint.ifindex: endpoint for endpoint in actual.local_endpoints},
        members={member: member for member in members},
        orphan_sets=contents.keys() - used,
    )


def _order(entry: PolicyEntry) -> tuple[int, ...]:
    """The order that `nodeagent.policy` gives to entries: "every" before a number."""
    protocol = -1 if entry.protocol is None else entry.protocol
    first = -1 if entry.port is None else entry.port
    return entry.peer, protocol, first, entry.port_bits

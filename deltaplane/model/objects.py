"""The objects that travel on the delta stream, one class per kind.

Each knows its canonical key (see enum Kind in proto/deltaplane/v1/slicer.proto). A value holds
neither its generation nor, but for endpoints, a revision: those belong to the view that keeps it.
"""

import enum
import struct
from dataclasses import dataclass
from typing import ClassVar

from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange
from deltaplane.model.service import Distribution, ServicePort, SlicePort
from deltaplane.model.tiers import Action, Tier


class Kind(enum.IntEnum):
    """Numbers of deltaplane.v1.Kind."""

    NODE = 1
    BLOCK = 2
    IDENTITY = 3
    ENDPOINT = 4
    SERVICE = 5
    BACKEND = 6
    PEER_SET = 7
    SUBJECT_POLICY = 8
    POOL = 9


BRAKED = "braked: "
"""How the reason begins for which a node refuses its own object, while it removes nothing."""

DERIVED_KINDS = frozenset({Kind.PEER_SET, Kind.SUBJECT_POLICY, Kind.BACKEND})
"""Kinds that the slicer computes from several stored objects.

Their generation is the revision at which the value last changed as far as the replica knows, so
digests leave it out.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeObject:
    """A node as a next hop. index is 1 or more."""

    kind: ClassVar[Kind] = Kind.NODE
    index: int
    name: str
    addresses: AddressPair

    @property
    def key(self) -> bytes:
        """4 bytes big endian."""
        return self.index.to_bytes(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockObject:
    """A range of addresses and the node it is routed to."""

    kind: ClassVar[Kind] = Kind.BLOCK
    prefix: Prefix
    node_index: int

    @property
    def key(self) -> bytes:
        """Prefix length, 1 byte, then the address."""
        return bytes((self.prefix.length,)) + self.prefix.address


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolObject:
    """A pool, as far as nodes must know it.

    Attributes:
        name: DNS label.
        prefix: the whole range.
        block_length: prefix length of each block.
        reserved: ranges of which nodes hand out nothing unasked, ascending.
        is_static: one block for each node.
        draining: no new addresses.
        min_free_percent: share of a node's addresses that should be free, 1..100.
        on_request: only for pods, namespaces and nodes that name it.
    """

    kind: ClassVar[Kind] = Kind.POOL
    name: str
    prefix: Prefix
    block_length: int
    reserved: tuple[Prefix, ...] = ()
    is_static: bool = False
    draining: bool = False
    min_free_percent: int = 50
    on_request: bool = False

    @property
    def key(self) -> bytes:
        """The name, UTF-8."""
        return self.name.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityObject:
    """An identity, for people and flows. labels: "key=value", ascending."""

    kind: ClassVar[Kind] = Kind.IDENTITY
    id: int
    namespace: str
    labels: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """4 bytes big endian."""
        return self.id.to_bytes(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointObject:
    """An interface's addresses and identity.

    Attributes:
        node_index: number of its node.
        id: number that the node gave it.
        identity: number of the identity.
        addresses: IPv4, IPv6 or both.
        incarnation: store revision at which it got its addresses.
    """

    kind: ClassVar[Kind] = Kind.ENDPOINT
    node_index: int
    id: int
    identity: int
    addresses: AddressPair
    incarnation: int

    @property
    def key(self) -> bytes:
        """Node index and id, 4 bytes big endian each."""
        return struct.pack(">II", self.node_index, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSet:
    """The identities that one canonical selector matches.

    Attributes:
        set_key: 16 bytes.
        identities: numbers, ascending.
    """

    kind: ClassVar[Kind] = Kind.PEER_SET
    set_key: bytes
    identities: tuple[int, ...]

    @property
    def key(self) -> bytes:
        """The 16 bytes."""
        return self.set_key


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionRule:
    """One rule: (any peer) and (any port). deltaplane.model.tiers says how rules are judged.

    Attributes:
        tier: tier of its policy.
        action: what becomes of what it matches.
        audit: it counts only for what is recorded, not for what passes.
        all_peers: every peer, also one without identity; the next three are empty then.
        peer_sets: keys of peer sets, ascending.
        blocks: prefixes with exceptions.
        entities: reserved identities, ascending; OTHER_POD stands for every pod.
        outside_only: blocks match only addresses of no pod and no node.
        ports: empty means every port of every protocol (ICMP included).
        sources: what it was made of, ascending: index in the direction's `policies`, and index of
            the rule in that policy's direction.
    """

    tier: Tier = Tier.NORMAL
    action: Action = Action.ALLOW
    audit: bool = False
    all_peers: bool = False
    peer_sets: tuple[bytes, ...] = ()
    blocks: tuple[IPBlock, ...] = ()
    entities: tuple[int, ...] = ()
    outside_only: bool = False
    ports: tuple[PortRange, ...] = ()
    sources: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionPolicy:
    """One direction of a subject policy.

    Attributes:
        isolated: what no rule of the NORMAL tier allows is denied there; policies under audit do
            not count.
        audit_isolated: the same if policies under audit count.
        rules: ADMIN's from the first to be asked to the last, then NORMAL's in any canonical order,
            then BASELINE's like ADMIN's.
        policies: references of the policies that apply to the subject, ascending.
    """

    isolated: bool = False
    audit_isolated: bool = False
    rules: tuple[DirectionRule, ...] = ()
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectPolicy:
    """All that the policies say about one subject identity.

    There is one for every identity, isolated or not: a subject without one is closed.
    """

    kind: ClassVar[Kind] = Kind.SUBJECT_POLICY
    identity: int
    ingress: DirectionPolicy = DirectionPolicy()
    egress: DirectionPolicy = DirectionPolicy()

    @property
    def key(self) -> bytes:
        """4 bytes big endian."""
        return self.identity.to_bytes(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceObject:
    """What a node must know of a service to answer for its addresses; see model.service.Service.

    A service that answers on no address (headless, external name) has none.
    """

    kind: ClassVar[Kind] = Kind.SERVICE
    number: int
    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[bytes, ...] = ()
    external_ips: tuple[bytes, ...] = ()
    load_balancer_ips: tuple[bytes, ...] = ()
    source_ranges: tuple[Prefix, ...] = ()
    affinity_seconds: int = 0
    internal_local: bool = False
    external_local: bool = False
    health_check_node_port: int = 0
    distribution: Distribution = Distribution.ANY

    @property
    def key(self) -> bytes:
        """4 bytes big endian."""
        return self.number.to_bytes(4)


class BackendState(enum.IntEnum):
    """Whether a backend may be given new connections."""

    READY = 0
    """Yes."""
    TERMINATING = 1
    """It goes, but still answers: only where nobody is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendObject:
    """An address behind a service; there is none for one that answers nobody new at all.

    Attributes:
        service: number of the service.
        address: 4 or 16 bytes.
        ports: its port for each port of the service that it serves, ascending.
        state: see BackendState.
        node_index: number of its node; 0: unknown, or no node of the cluster.
        zones: clients in these zones should use it, ascending; empty: no hint.
        nodes: clients on the nodes of these names should use it, ascending; empty: no hint.
    """

    kind: ClassVar[Kind] = Kind.BACKEND
    service: int
    address: bytes
    ports: tuple[SlicePort, ...]
    state: BackendState = BackendState.READY
    node_index: int = 0
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def key(self) -> bytes:
        """Number of the service, 4 bytes big endian, then the address."""
        return self.service.to_bytes(4) + self.address


StreamObject = (
    NodeObject
    | BlockObject
    | IdentityObject
    | EndpointObject
    | PeerSet
    | SubjectPolicy
    | PoolObject
    | ServiceObject
    | BackendObject
)

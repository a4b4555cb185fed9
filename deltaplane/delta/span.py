"""Span: what one node needs of the view, a pure function of the view.

    endpoints on the node ──► subjects ──► peer sets that their policies name ──► identities
                                                                                     │
                          endpoints that the node is told of: its own, and theirs ◄──┘

Nodes, blocks, pools, services and backends go to everybody. What a node is not told of stays
`other-pod` there: an address of a pool whose identity no policy of that node asks for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.view import View
from deltaplane.model.objects import (
    EndpointObject,
    IdentityObject,
    Kind,
    PeerSet,
    StreamObject,
    SubjectPolicy,
)

BALANCING_KINDS = frozenset({Kind.SERVICE, Kind.BACKEND})
COMMON_KINDS = BALANCING_KINDS | {Kind.NODE, Kind.BLOCK, Kind.POOL}
"""Kinds that every node is told of."""

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Scope:
    """A span, named by its parts.

    Attributes:
        subjects: identities whose policies the node enforces: those of its endpoints, and those
            that it asked for in advance.
        peer_sets: keys of the peer sets that these policies name.
        peers: identities in these sets: their endpoints are told wherever they are.
    """

    subjects: frozenset[int] = _NOTHING
    peer_sets: frozenset[bytes] = frozenset()
    peers: frozenset[int] = _NOTHING

    def holds(self, value: StreamObject, node_index: int) -> bool:
        """Whether a node with this span and this number is told of an object."""
        match value:
            case EndpointObject(node_index=index, identity=identity):
                return index == node_index or identity in self.peers
            case IdentityObject(id=identity):
                return identity in self.subjects or identity in self.peers
            case SubjectPolicy(identity=identity):
                return identity in self.subjects
            case PeerSet(set_key=key):
                return key in self.peer_sets
            case _:
                return True

    def names(self, key: ObjectKey) -> bool:
        """Whether an identity, subject policy or peer set with this key belongs to the span."""
        kind, name = key
        if kind is Kind.PEER_SET:
            return name in self.peer_sets
        number = int.from_bytes(name)
        return number in self.subjects or (kind is Kind.IDENTITY and number in self.peers)


EMPTY = Scope()


def peer_sets_of(policy: SubjectPolicy) -> frozenset[bytes]:
    """Keys of the peer sets that a policy names."""
    directions = (policy.ingress, policy.egress)
    return frozenset(
        key for direction in directions for rule in direction.rules for key in rule.peer_sets
    )


def span(view: View, node_index: int, prefetched: Iterable[int] = ()) -> Scope:
    """The span of a node, from scratch; `SpanIndex` keeps it up to date and agrees with this.

    Args:
        view: everything.
        node_index: of the node.
        prefetched: identities whose policies the node wants before an endpoint has them. Their
            peers' endpoints are not told on that account: an address is mapped only where the
            store alone says so, which is what every replica vouches for.
    """
    local = {
        held.value.identity
        for held in view.endpoints.values()
        if held.value.node_index == node_index
    }
    return _scope(view, frozenset(local), frozenset(prefetched))


def held_span(view: View, node_index: int) -> Scope:
    """The span that an agent's view holds: of what it was told, not of what it should be told."""
    local = {
        held.value.identity
        for held in view.endpoints.values()
        if held.value.node_index == node_index
    }
    subjects = {held.value.identity for held in view.subject_policies.values()}
    return _scope(view, frozenset(local), frozenset(subjects - local))


def _scope(view: View, local: frozenset[int], prefetched: frozenset[int]) -> Scope:
    peers: set[int] = set()
    for key in _named(view, local):
        if (held := view.peer_sets.get(key)) is not None:
            peers.update(held.value.identities)
    subjects = local | prefetched
    return Scope(subjects, frozenset(_named(view, subjects)), frozenset(peers))


def _named(view: View, subjects: Iterable[int]) -> set[bytes]:
    keys: set[bytes] = set()
    for number in subjects:
        if (held := view.subject_policies.get(number.to_bytes(4))) is not None:
            keys |= peer_sets_of(held.value)
    return keys

"""Random small worlds of what spans are made of, as changes in revision order."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from deltaplane.delta.changes import Change, Removal, Upsert, incarnation_of
from deltaplane.delta.span import Scope
from deltaplane.delta.span_digest import SpanDigest
from deltaplane.delta.view import View
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import (
    DirectionPolicy,
    DirectionRule,
    EndpointObject,
    IdentityObject,
    Kind,
    NodeObject,
    PeerSet,
    StreamObject,
    SubjectPolicy,
)

NODES = (1, 2, 3)
IDENTITIES = (300, 301, 302, 303)
SETS = tuple(bytes([number]) * 16 for number in range(1, 4))


@dataclass(frozen=True)
class Step:
    """What is to be under a key; None: nothing. wanted: a node's prefetched identities instead."""

    key: tuple[Kind, bytes]
    value: StreamObject | None = None
    node: int = 0
    wanted: frozenset[int] = frozenset()


def _direction(sets: Sequence[bytes]) -> DirectionPolicy:
    rules = (DirectionRule(peer_sets=tuple(sorted(sets))),) if sets else ()
    return DirectionPolicy(isolated=bool(sets), rules=rules)


def _endpoint(node: int, number: int, identity: int, incarnation: int) -> Step:
    value = EndpointObject(
        node_index=node,
        id=number,
        identity=identity or 300,
        addresses=AddressPair(ipv4=bytes((10, 0, node, number)), ipv6=bytes(15) + bytes((node,))),
        incarnation=incarnation,
    )
    return Step((value.kind, value.key), value if identity else None)


def _policy(subject: int, ingress: list[bytes], egress: list[bytes], there: bool) -> Step:
    value = SubjectPolicy(identity=subject, ingress=_direction(ingress), egress=_direction(egress))
    return Step((value.kind, value.key), value if there else None)


def _peer_set(key: bytes, members: list[int]) -> Step:
    value = PeerSet(set_key=key, identities=tuple(sorted(members)))
    return Step((value.kind, value.key), value if members else None)


def _identity(number: int, labels: list[str], there: bool) -> Step:
    value = IdentityObject(id=number, namespace="shop", labels=tuple(labels))
    return Step((value.kind, value.key), value if there else None)


def node_step(index: int, name: str) -> Step:
    value = NodeObject(index=index, name=name, addresses=AddressPair(ipv4=bytes((9, 9, 9, index))))
    return Step((value.kind, value.key), value)


def _prefetch(node: int, wanted: frozenset[int]) -> Step:
    return Step((Kind.NODE, b""), None, node, wanted)


_nodes, _identities = st.sampled_from(NODES), st.sampled_from(IDENTITIES)
_some_sets = st.lists(st.sampled_from(SETS), unique=True, max_size=2)
_endpoints = st.builds(
    _endpoint, _nodes, st.integers(1, 2), st.sampled_from((*IDENTITIES, 0)), st.integers(1, 3)
)
steps = st.one_of(
    _endpoints,
    _endpoints,
    st.builds(_policy, _identities, _some_sets, _some_sets, st.booleans()),
    st.builds(_peer_set, st.sampled_from(SETS), st.lists(_identities, unique=True, max_size=3)),
    st.builds(_identity, _identities, st.lists(st.sampled_from("ab"), max_size=1), st.booleans()),
    st.builds(node_step, _nodes, st.sampled_from("xy")),
)
prefetches = st.builds(_prefetch, _nodes, st.frozensets(_identities, max_size=2))


def change_for(view: View, step: Step, revision: int) -> Change | None:
    """What makes a view hold what a step says; None: it does."""
    held = view.get(step.key)
    if step.value is not None:
        return Upsert(step.value, revision)
    if held is None:
        return None
    kind, key = step.key
    return Removal(kind=kind, key=key, generation=revision, incarnation=incarnation_of(held.value))


def restricted(view: View, scope: Scope, node_index: int) -> View:
    """A view that holds just a span."""
    found = View(SpanDigest())
    for held in view:
        if scope.holds(held.value, node_index):
            found.apply(Upsert(held.value, held.generation))
    return found

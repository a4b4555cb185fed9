import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.digest import Digest, hash_object
from deltaplane.delta.view import Outcome, View
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.objects import (
    BlockObject,
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
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol

KEY = bytes((0, 0, 0, 1, 0, 0, 0, 7))


def endpoint(identity: int, incarnation: int) -> EndpointObject:
    return EndpointObject(
        node_index=1,
        id=7,
        identity=identity,
        addresses=AddressPair(ipv4=b"\x0a\x00\x00\x07"),
        incarnation=incarnation,
    )


def removal(incarnation: int, generation: int) -> Removal:
    return Removal(kind=Kind.ENDPOINT, key=KEY, generation=generation, incarnation=incarnation)


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (Upsert(endpoint(301, 10), 21), Outcome.CHANGED),
        (Upsert(endpoint(300, 10), 21), Outcome.RENEWED),
        (Upsert(endpoint(301, 10), 20), Outcome.STALE),
        (Upsert(endpoint(301, 10), 19), Outcome.STALE),
        (removal(10, 21), Outcome.CHANGED),
        (removal(10, 20), Outcome.STALE),
        (removal(9, 21), Outcome.STALE),
        (removal(11, 21), Outcome.STALE),
    ],
)
def test_guards(change: Change, outcome: Outcome) -> None:
    view = View()
    view.apply(Upsert(endpoint(300, 10), 20))
    assert view.apply(change) is outcome


def test_removing_what_is_not_there_is_nothing() -> None:
    assert View().apply(removal(1, 2)) is Outcome.STALE


def test_a_late_removal_does_not_touch_the_next_incarnation() -> None:
    view = View()
    view.apply(Upsert(endpoint(300, 10), 10))
    view.apply(Upsert(endpoint(300, 12), 12))
    assert view.apply(removal(10, 11)) is Outcome.STALE
    assert view.endpoints[KEY].value.incarnation == 12


def test_upserts_of_one_object_end_the_same_in_any_order() -> None:
    upserts = [Upsert(endpoint(300 + n, 10), 10 + n) for n in range(4)]
    for order in itertools.permutations(upserts):
        view = View()
        for change in (*order, *order):
            view.apply(change)
        assert view.endpoints[KEY].value.identity == 303


@given(st.lists(st.tuples(st.integers(300, 303), st.booleans()), max_size=20))
def test_the_kept_digest_is_that_of_what_is_held(steps: list[tuple[int, bool]]) -> None:
    view = View()
    for generation, (identity, present) in enumerate(steps, start=10):
        view.apply(Upsert(endpoint(identity, 5), generation) if present else removal(5, generation))
    scratch = Digest()
    for held in view:
        scratch.add(held.value, held.generation)
    assert view.digest.buckets == scratch.buckets
    assert view.digest.root == scratch.root


def subject(rule: DirectionRule) -> SubjectPolicy:
    direction = DirectionPolicy(isolated=True, rules=(rule,), policies=("shop/a",))
    return SubjectPolicy(identity=300, ingress=direction)


DIFFERENT: list[StreamObject] = [
    endpoint(300, 10),
    endpoint(301, 10),
    endpoint(300, 11),
    NodeObject(index=1, name="a", addresses=AddressPair(ipv4=b"\x0a\x00\x00\x01")),
    NodeObject(index=1, name="b", addresses=AddressPair(ipv4=b"\x0a\x00\x00\x01")),
    NodeObject(index=1, name="b", addresses=AddressPair(ipv4=b"\x0a\x00\x00\x02")),
    BlockObject(prefix=Prefix.parse("10.0.0.0/26"), node_index=1),
    BlockObject(prefix=Prefix.parse("10.0.0.0/26"), node_index=2),
    BlockObject(prefix=Prefix.parse("10.0.0.0/27"), node_index=2),
    IdentityObject(id=300, namespace="shop", labels=("a=b", "c=d")),
    IdentityObject(id=300, namespace="shop", labels=("a=b",)),
    IdentityObject(id=300, namespace="shopa=b", labels=()),
    PeerSet(set_key=bytes(16), identities=(300,)),
    PeerSet(set_key=bytes(16), identities=(300, 301)),
    PeerSet(set_key=bytes(15) + b"\x01", identities=(300, 301)),
    SubjectPolicy(identity=300),
    SubjectPolicy(identity=300, ingress=DirectionPolicy(isolated=True)),
    SubjectPolicy(identity=300, egress=DirectionPolicy(isolated=True)),
    subject(DirectionRule(all_peers=True)),
    subject(DirectionRule(peer_sets=(bytes(16),))),
    subject(DirectionRule(blocks=(IPBlock(Prefix.parse("10.0.0.0/8")),))),
    subject(
        DirectionRule(blocks=(IPBlock(Prefix.parse("10.0.0.0/8"), (Prefix.parse("10.1.0.0/16"),)),))
    ),
    subject(DirectionRule(ports=(PortRange(Protocol.TCP, 80, 80),))),
    subject(DirectionRule(ports=(PortRange(Protocol.UDP, 80, 80),))),
    subject(DirectionRule(ports=(PortRange(Protocol.UDP, 80, 81),))),
]


def test_different_values_have_different_hashes() -> None:
    hashes = {hash_object(value, 7) for value in DIFFERENT}
    assert len(hashes) == len(DIFFERENT)


def test_only_stored_kinds_count_their_generation() -> None:
    for value in DIFFERENT:
        derived = isinstance(value, PeerSet | SubjectPolicy)
        assert (hash_object(value, 7) == hash_object(value, 8)) is derived


def test_differences_are_values_not_generations() -> None:
    left, right = View(), View()
    left.apply(Upsert(endpoint(300, 10), 20))
    right.apply(Upsert(endpoint(300, 10), 21))
    assert left.differences(right) == set()
    right.apply(Upsert(endpoint(301, 10), 22))
    left.apply(Upsert(PeerSet(set_key=bytes(16), identities=()), 3))
    expected = {(Kind.ENDPOINT, KEY), (Kind.PEER_SET, bytes(16))}
    assert left.differences(right) == right.differences(left) == expected

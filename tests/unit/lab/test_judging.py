"""What tables say about a first packet, one table after the other taken away."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from deltaplane.model.addresses import parse_address, to_mapped
from lab.judging import Outcome, Tables, judge
from lab.probing import Question
from nodeagent.dataplane.balancing import Balancing
from nodeagent.dataplane.memory import Held
from nodeagent.dataplane.port import (
    Actual,
    Applied,
    LocalEndpoint,
    Mapping,
    NextHop,
    PolicyEntry,
    PolicySet,
    Range,
    Subject,
)

ADDRESSES = {"ipv4": ("10.0.0.1", "10.0.1.1"), "ipv6": ("fd00::1", "fd00::1:1")}
CLIENT, SERVER = 300, 301
TCP, PORT = 6, 80
NO_SERVICES = Balancing(
    frontends=frozenset(), slots=frozenset(), members=frozenset(), sources=frozenset(), tables={}
)


def mapped(text: str) -> bytes:
    return to_mapped(parse_address(text))


def endpoint(place: int, identity: int) -> LocalEndpoint:
    return LocalEndpoint(
        ifindex=1000,
        endpoint_id=1,
        identity=identity,
        ipv4=parse_address(ADDRESSES["ipv4"][place]),
        ipv6=parse_address(ADDRESSES["ipv6"][place]),
        pod_mac=bytes(6),
        host_mac=bytes(6),
    )


def allowing(set_id: int, peer: int) -> PolicySet:
    entry = PolicyEntry(peer=peer, protocol=TCP, port=PORT, port_bits=16)
    return PolicySet(set_id=set_id, entries=(entry,), prefixes=())


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A client on node 1, a server on node 2; each has policies that let the other through."""

    near: Actual
    far: Actual

    def ask(self, family: str, port: int = PORT) -> Outcome:
        nodes = {
            number: Tables(Held(node_index=number, actual=actual, balancing=NO_SERVICES))
            for number, actual in ((1, self.near), (2, self.far))
        }
        source, destination = ADDRESSES[family]
        question = Question(
            source="a/client",
            destination="a/server",
            port=port,
            protocol="TCP",
            family=family,
            address=destination,
            source_uid="",
            node="node-1",
        )
        return judge(nodes, nodes[1], source, question)


def actual(own: LocalEndpoint, other: int, subject: Subject, rule: PolicySet) -> Actual:
    places = [(CLIENT, 1, 0), (SERVER, 2, 1)]
    return Actual(
        applied=Applied(lineage=bytes(16), revision=1),
        mappings=frozenset(
            Mapping(address=mapped(texts[place]), identity=identity, node_index=node)
            for texts in ADDRESSES.values()
            for identity, node, place in places
        ),
        ranges=frozenset(
            {
                Range(address=mapped("10.0.1.0"), length=96 + 24, identity=3, node_index=2),
                Range(address=mapped("fd00::1:0"), length=112, identity=3, node_index=2),
            }
        ),
        next_hops=frozenset(
            {
                NextHop(
                    node_index=other,
                    ipv4=parse_address("192.0.2.9"),
                    ipv6=parse_address("2001:db8::9"),
                )
            }
        ),
        policy_sets=(rule,),
        subjects=frozenset({subject}),
        local_endpoints=frozenset({own}),
    )


@pytest.fixture
def world() -> World:
    return World(
        near=actual(
            endpoint(0, CLIENT),
            2,
            Subject(identity=CLIENT, ingress_set=0, egress_set=7, epoch=1),
            allowing(7, SERVER),
        ),
        far=actual(
            endpoint(1, SERVER),
            1,
            Subject(identity=SERVER, ingress_set=7, egress_set=0, epoch=1),
            allowing(7, CLIENT),
        ),
    )


FAMILIES = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


@FAMILIES
def test_what_both_ends_allow_passes_and_nothing_else(world: World, family: str) -> None:
    assert world.ask(family) is Outcome.PASSED
    assert world.ask(family, PORT + 1) is Outcome.EGRESS


def changed(kept: Actual, **changes: object) -> Actual:
    return replace(kept, **changes)  # type: ignore[arg-type]


def unknown(kept: Actual, identity: int) -> Actual:
    mappings = frozenset(held for held in kept.mappings if held.identity != identity)
    return changed(kept, mappings=mappings)


NOTHING: frozenset[object] = frozenset()


@FAMILIES
@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda w: replace(w, near=changed(w.near, local_endpoints=NOTHING)), Outcome.NO_ENDPOINT),
        (lambda w: replace(w, near=changed(w.near, subjects=NOTHING)), Outcome.SENDER_CLOSED),
        (lambda w: replace(w, near=changed(w.near, next_hops=NOTHING)), Outcome.NO_WAY),
        # To its block it is another pod, which the rule for the server does not name.
        (lambda w: replace(w, near=unknown(w.near, SERVER)), Outcome.EGRESS),
        (lambda w: replace(w, far=changed(w.far, local_endpoints=NOTHING)), Outcome.NOBODY),
        (lambda w: replace(w, far=changed(w.far, subjects=NOTHING)), Outcome.RECEIVER_CLOSED),
        (lambda w: replace(w, far=unknown(w.far, CLIENT)), Outcome.INGRESS),
        (
            lambda w: replace(w, far=changed(w.far, policy_sets=(allowing(7, SERVER),))),
            Outcome.INGRESS,
        ),
    ],
)
def test_one_table_decides(
    world: World, family: str, spoil: Callable[[World], World], outcome: Outcome
) -> None:
    assert spoil(world).ask(family) is outcome


@FAMILIES
def test_an_identity_without_a_set_is_open(world: World, family: str) -> None:
    subject = Subject(identity=CLIENT, ingress_set=0, egress_set=0, epoch=1)
    opened = replace(world, near=changed(world.near, subjects=frozenset({subject})))
    assert opened.ask(family, PORT + 1) is Outcome.INGRESS


@FAMILIES
def test_an_unmapped_address_goes_where_its_block_is(world: World, family: str) -> None:
    subject = Subject(identity=CLIENT, ingress_set=0, egress_set=0, epoch=1)
    near = changed(unknown(world.near, SERVER), subjects=frozenset({subject}))
    assert replace(world, near=near).ask(family) is Outcome.PASSED
    assert replace(world, near=changed(near, ranges=NOTHING)).ask(family) is Outcome.NO_WAY


def test_ipv4_goes_over_ipv6_and_not_the_other_way(world: World) -> None:
    (both,) = world.near.next_hops

    def with_hop(hop: NextHop) -> World:
        return replace(world, near=changed(world.near, next_hops=frozenset({hop})))

    assert with_hop(replace(both, ipv4=None)).ask("ipv4") is Outcome.PASSED
    assert with_hop(replace(both, ipv6=None)).ask("ipv4") is Outcome.PASSED
    assert with_hop(replace(both, ipv6=None)).ask("ipv6") is Outcome.NO_WAY


@FAMILIES
def test_two_pods_of_one_node_need_no_next_hop(world: World, family: str) -> None:
    both = changed(
        world.near,
        local_endpoints=world.near.local_endpoints
        | {replace(endpoint(1, SERVER), ifindex=1001, endpoint_id=2)},
        subjects=world.near.subjects
        | {Subject(identity=SERVER, ingress_set=8, egress_set=0, epoch=1)},
        policy_sets=(*world.near.policy_sets, allowing(8, CLIENT)),
        next_hops=NOTHING,
    )
    assert replace(world, near=both).ask(family) is Outcome.PASSED

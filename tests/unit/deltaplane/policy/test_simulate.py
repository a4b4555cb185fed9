"""What a change of policies would change, against asking for every connection."""

from itertools import product

from hypothesis import given, settings

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.identity import Identity, LabelSet, Reserved
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import NamedPort, PortRange, Protocol
from deltaplane.model.selector import LabelSelector
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector, Tier
from deltaplane.policy.explain import Party
from deltaplane.policy.simulate import simulate
from tests.unit.deltaplane.policy import worlds
from tests.unit.deltaplane.policy.brute_force import AnyPolicy, End, Packet, allowed
from tests.unit.deltaplane.policy.test_equivalence import general, party

TCP = Protocol.TCP
PORTS = (0, 8, 53, 80, 81, 101)
SHOP = Selector(namespace="shop")
HTTP = (NamedPort("http", TCP, 80),)


def pod(number: int, app: str, address: str, ports: tuple[NamedPort, ...] = ()) -> Party:
    label_set = LabelSet.of("shop", {}, {"app": app}, ports)
    return Party(address=parse_address(address), identity=number, label_set=label_set)


WEB = pod(300, "web", "10.0.0.1")
WEB_TWO = pod(300, "web", "10.0.0.2")
API = pod(301, "api", "10.0.0.3", HTTP)
WORLD = Party(address=parse_address("192.0.2.1"))


def policy(*rules: Rule, audit: bool = False) -> Policy:
    return Policy(
        kind=PolicyKind.CILIUM,
        namespace="shop",
        name="p",
        subject=Selector(namespace="shop", pods=LabelSelector.of({"app": "api"})),
        isolates_ingress=True,
        ingress=rules,
        audit=audit,
    )


def test_the_same_policies_change_nothing() -> None:
    found = simulate((policy(),), (policy(),), (WEB, API))
    assert found.changes == ()
    assert found.complete
    assert found.pairs == 0


def test_pods_of_one_kind_are_one_change_and_ports_are_ranges() -> None:
    rule = Rule(selectors=(SHOP,), ranges=(PortRange(TCP, 80, 90),))
    found = simulate((), (policy(rule),), (WEB, WEB_TWO, API, WORLD))
    from_web = [change for change in found.changes if change.source == 300]
    assert {change.sources for change in from_web} == {(WEB, WEB_TWO)}
    assert {change.destinations for change in from_web} == {(API,)}
    assert not any(change.allowed for change in from_web)
    assert [change.ports for change in from_web] == [
        PortRange(Protocol.ICMP, 0, 255),
        PortRange(TCP, 0, 79),
        PortRange(TCP, 91, 65535),
        PortRange(Protocol.UDP),
        PortRange(Protocol.SCTP),
    ]
    from_world = [change.ports for change in found.changes if change.source == Reserved.WORLD]
    assert PortRange(TCP) in from_world


def test_a_block_that_holds_some_pods_of_an_identity() -> None:
    block = IPBlock(Prefix.parse("10.0.0.1/32"))
    rule = Rule(blocks=(block,), any_port=True)
    found = simulate((policy(),), (policy(rule),), (WEB, WEB_TWO, API))
    assert {change.sources for change in found.changes} == {(WEB,)}
    assert all(change.allowed for change in found.changes)


def test_a_policy_under_audit_changes_nothing() -> None:
    assert simulate((), (policy(audit=True),), (WEB, API)).changes == ()


def test_a_limit_ends_the_search_and_says_so() -> None:
    found = simulate((), (policy(),), (WEB, API, WORLD), max_changes=3)
    assert len(found.changes) == 3
    assert not found.complete
    found = simulate((), (policy(),), (WEB, API, WORLD), max_pairs=1)
    assert found.pairs == 1
    assert not found.complete


def test_what_another_tier_decides_does_not_change() -> None:
    admin = Policy(
        kind=PolicyKind.CLUSTER,
        namespace="",
        name="a",
        subject=Selector(),
        tier=Tier.ADMIN,
        ingress=(Rule(action=Action.ALLOW, all_peers=True, any_port=True),),
    )
    assert simulate((admin,), (admin, policy()), (WEB, API)).changes == ()


@settings(max_examples=60, deadline=None)
@given(worlds.any_policy_lists(), worlds.any_policies, worlds.identities())
def test_it_finds_every_connection_that_changes_and_no_other(
    policies: tuple[AnyPolicy, ...], other: AnyPolicy, identities: tuple[Identity, ...]
) -> None:
    after = (*(p for p in policies if p.reference != other.reference), other)
    ends: list[tuple[End, str]] = [
        (identity, worlds.ADDRESSES[(number + family) % len(worlds.ADDRESSES)])
        for number, identity in enumerate(identities)
        for family in (0, 4)
    ]
    ends += [(Reserved.WORLD, "192.0.2.1"), (Reserved.HOST, "fd00::9")]
    found = simulate(general(policies), general(after), [party(*end) for end in ends])
    assert found.complete
    changed = {
        (source, destination, change.ports.protocol, port): change.allowed
        for change in found.changes
        for source, destination in product(change.sources, change.destinations)
        for port in PORTS
        if change.ports.first <= port <= change.ports.last
    }
    for (source, source_address), (destination, destination_address) in product(ends, repeat=2):
        if (":" in source_address) != (":" in destination_address):
            continue
        for protocol, port in product((TCP, Protocol.SCTP, Protocol.ICMP), PORTS):
            if protocol is Protocol.ICMP and (port > 255 or ":" in source_address):
                continue
            sent = Packet(
                source=source,
                source_address=source_address,
                destination=destination,
                destination_address=destination_address,
                protocol=protocol,
                port=port,
            )
            was, now = (
                all(allowed(some, sent, outgoing=outgoing) for outgoing in (True, False))
                for some in (policies, after)
            )
            key = (
                party(source, source_address),
                party(destination, destination_address),
                protocol,
                port,
            )
            assert changed.get(key, was) == now, sent
            assert (key in changed) == (was != now), sent

"""Tiers and denials, ICMP types, audit and counters: what only packets in a row show."""

import pytest

from deltaplane.model.tiers import Action, Tier
from nodeagent.dataplane.port import PolicyEntry, PolicySet, RuleCount, Subject
from nodeagent.verdict import NOBODY, decision, ruling_of
from tests.bpf.conftest import A4, A6, A_ID, OTHER_NODE, R4, R6, R_ID, World
from tests.bpf.packets import (
    ACK,
    FRAGMENT,
    ICMP,
    ICMPV6,
    SYN,
    TCP,
    Flow,
    ethernet,
    fragment_header,
    icmp,
    ipv4,
    ipv6,
    udp,
)

FAMILIES = pytest.mark.parametrize("out", [Flow(A4, R4), Flow(A6, R6)], ids=["v4", "v6"])
UNKNOWN = 4
EMPTY = 9
ALLOW, DENY = decision(1, Action.ALLOW), decision(2, Action.DENY)
ALLOWED, DENIED = ruling_of(Tier.NORMAL, ALLOW), ruling_of(Tier.NORMAL, DENY)
EVERYBODY = PolicyEntry(peer=0, decisions=(0, ALLOW, 0))


def types(flow: Flow) -> tuple[int, int]:
    """Echo request and reply."""
    return (8, 0) if flow.is_ipv4 else (128, 129)


def icmp_entry(flow: Flow, kind: int, *, peer: int = R_ID) -> PolicyEntry:
    return PolicyEntry(peer=peer, protocol=flow.icmp_protocol, port=kind, port_bits=16)


def counts(world: World) -> set[RuleCount]:
    return set(world.plane.rule_counts())


# ICMP


@FAMILIES
def test_an_echo_allowed_by_its_type_is_answered(world: World, out: Flow) -> None:
    """The answer is of another type: it finds the request's connection."""
    request, _ = types(out)
    world.policy(10, icmp_entry(out, request))
    world.subject(A_ID, ingress=EMPTY, egress=10)
    assert world.outcome("from_net", out.reversed().echo_reply()) == "drop_ingress_policy"
    assert world.outcome("from_pod", out.echo()) == "pass_remote"
    assert world.outcome("from_net", out.reversed().echo_reply()) == "pass_local"
    assert world.outcome("from_net", out.reversed().echo()) == "drop_ingress_policy"


@FAMILIES
def test_a_type_is_no_other_type(world: World, out: Flow) -> None:
    request, reply = types(out)
    world.policy(10, icmp_entry(out, reply))
    world.subject(A_ID, egress=10)
    assert world.outcome("from_pod", out.echo()) == "drop_egress_policy"
    assert world.outcome("from_pod", out.echo_reply()) == "pass_remote"
    world.policy(10, icmp_entry(out, 13))
    frames = [out.frame(out.icmp_protocol, icmp(kind)) for kind in (13, 14)]
    outcomes = [world.outcome("from_pod", frame) for frame in frames]
    assert outcomes == ["pass_remote", "drop_egress_policy"]
    assert request not in (13, 14)


@FAMILIES
def test_an_echo_is_judged_again_by_its_type(world: World, out: Flow) -> None:
    request, reply = types(out)
    world.run("from_pod", out.echo())
    world.policy(10, icmp_entry(out, request))
    world.subject(A_ID, ingress=EMPTY, egress=10, epoch=2)
    assert world.outcome("from_net", out.reversed().echo_reply()) == "pass_local"
    world.policy(11, icmp_entry(out, reply))
    world.subject(A_ID, ingress=EMPTY, egress=11, epoch=3)
    assert world.outcome("from_net", out.reversed().echo_reply()) == "drop_ingress_policy"
    assert world.connections() == 0


@FAMILIES
def test_an_error_shares_the_fate_of_an_echo(world: World, out: Flow) -> None:
    request, _ = types(out)
    world.policy(10, icmp_entry(out, request))
    world.subject(A_ID, ingress=EMPTY, egress=10)
    error = out.reversed().icmp_error(out.echo()[14:])
    assert world.outcome("from_net", error) == "drop_ingress_policy"
    world.run("from_pod", out.echo())
    assert world.outcome("from_net", error) == "pass_local"


@FAMILIES
def test_neighbours_are_found_whatever_the_policy_says(world: World, out: Flow) -> None:
    if out.is_ipv4:
        return
    deny = PolicyEntry(peer=0, decisions=(decision(1, Action.DENY), 0, 0))
    world.policy(10, deny)
    world.subject(A_ID, ingress=10, egress=10)
    solicitation = Flow(A6, "ff02::1:ff00:1").frame(ICMPV6, icmp(135), ttl=255)
    assert world.outcome("from_pod", solicitation) == "pass_neighbour"
    # Sent further than the link it is a packet like any other.
    assert world.outcome("from_pod", Flow(A6, R6).frame(ICMPV6, icmp(135))) == "drop_egress_policy"


# fragments


def pieces(flow: Flow, protocol: int, whole: bytes) -> list[bytes]:
    first, second = whole[:8], whole[8:]
    if flow.is_ipv4:
        return [
            ethernet(0x0800, ipv4(flow.src, flow.dst, protocol, part, fragment=flags))
            for part, flags in ((first, 0x2000), (second, 1))
        ]
    return [
        ethernet(
            0x86DD,
            ipv6(flow.src, flow.dst, FRAGMENT, fragment_header(protocol, at, 5, more=more) + part),
        )
        for part, at, more in ((first, 0, True), (second, 1, False))
    ]


@FAMILIES
def test_fragments_of_icmp_are_judged_by_the_type_of_the_first(world: World, out: Flow) -> None:
    whole = icmp(13, 0, bytes(16))
    for kind, outcome in ((13, "pass_remote"), (0, "drop_egress_policy")):
        world.policy(10, icmp_entry(out, kind))
        world.subject(A_ID, egress=10)
        for piece in pieces(out, out.icmp_protocol, whole):
            assert world.outcome("from_pod", piece) == outcome


@FAMILIES
def test_fragments_of_a_datagram_are_denied_with_the_first(world: World, out: Flow) -> None:
    deny = PolicyEntry(peer=R_ID, protocol=17, port=80, port_bits=16, decisions=(0, DENY, 0))
    world.policy(10, EVERYBODY, deny)
    world.subject(A_ID, egress=10)
    for port, outcome in ((80, "drop_egress_policy"), (81, "pass_remote")):
        for piece in pieces(out, 17, udp(40000, port, bytes(16))):
            assert world.outcome("from_pod", piece) == outcome


# denials


@FAMILIES
def test_a_denial_ends_a_connection_that_was_allowed(world: World, out: Flow) -> None:
    world.policy(10, EVERYBODY)
    world.subject(A_ID, egress=10)
    world.run("from_pod", out.tcp())
    assert world.outcome("from_net", out.reversed().tcp(SYN | ACK)) == "pass_local"
    deny = PolicyEntry(peer=R_ID, protocol=TCP, port=80, port_bits=16, decisions=(0, DENY, 0))
    world.policy(11, EVERYBODY, deny)
    world.subject(A_ID, ingress=EMPTY, egress=11, epoch=2)
    # The answer comes by first: the direction in which it began is what is denied.
    assert world.outcome("from_net", out.reversed().tcp(ACK)) == "drop_ingress_policy"
    assert world.connections() == 0
    assert world.outcome("from_pod", out.tcp(ACK)) == "drop_egress_policy"
    assert world.outcome("from_pod", Flow(out.src, out.dst, dport=81).tcp()) == "pass_remote"


@FAMILIES
def test_a_peer_in_doubt_is_denied_by_every_set_and_its_connections_end(
    world: World, out: Flow
) -> None:
    world.policy(10, EVERYBODY, PolicyEntry(peer=UNKNOWN, decisions=(0, ALLOW, 0)))
    world.subject(A_ID, egress=10)
    assert world.outcome("from_pod", out.udp()) == "pass_remote"
    world.map(out.dst, UNKNOWN, OTHER_NODE)
    assert world.outcome("from_pod", out.udp()) == "drop_egress_policy"
    # Who is restricted by nobody need not know who it is.
    world.subject(A_ID)
    assert world.outcome("from_pod", out.udp()) == "pass_remote"


# counters


@FAMILIES
def test_a_rule_counts_connections_it_allows_and_packets_it_denies(world: World, out: Flow) -> None:
    deny = PolicyEntry(peer=R_ID, protocol=TCP, port=81, port_bits=16, decisions=(0, DENY, 0))
    world.policy(10, EVERYBODY, deny)
    world.subject(A_ID, egress=10)
    for _ in range(3):
        world.run("from_pod", out.udp())
        world.run("from_pod", Flow(out.src, out.dst, dport=81).tcp(ACK))
    world.run("from_pod", out.tcp())
    world.run("from_net", out.reversed().tcp(SYN | ACK))
    world.run("from_pod", out.tcp(ACK))
    assert counts(world) == {
        RuleCount(set_id=10, ruling=ALLOWED, hits=2),
        RuleCount(set_id=10, ruling=DENIED, hits=3),
    }
    world.plane.delete_policy_sets([10])
    assert counts(world) == set()


@FAMILIES
def test_what_ends_a_connection_is_what_counts(world: World, out: Flow) -> None:
    world.run("from_pod", out.udp())
    world.subject(A_ID, ingress=EMPTY, egress=10, epoch=2)
    world.policy(10, PolicyEntry(peer=R_ID, decisions=(0, DENY, 0)))
    world.run("from_net", out.reversed().udp())
    assert {(c.ruling, c.hits) for c in counts(world)} == {(DENIED, 1)}


def test_the_node_itself_is_judged_and_counted_by_nobody(world: World) -> None:
    world.subject(A_ID, ingress=EMPTY)
    assert world.outcome("to_pod", Flow(R4, A4).tcp(), ingress_ifindex=0) == "pass_from_host"
    assert counts(world) == set()


# audit


def audited(world: World, *, ingress: int = 0, egress: int = 0, audit_egress: int = 0) -> None:
    world.plane.upsert_subjects(
        [
            Subject(
                identity=A_ID,
                ingress_set=ingress,
                egress_set=egress,
                audit_egress_set=audit_egress,
                epoch=1,
            )
        ]
    )


@FAMILIES
def test_what_an_audit_denies_passes_and_is_counted_once_per_connection(
    world: World, out: Flow
) -> None:
    world.policy(20, PolicyEntry(peer=R_ID, protocol=TCP, decisions=(0, DENY, 0)), EVERYBODY)
    audited(world, audit_egress=20)
    for frame in (out.tcp(), out.tcp(ACK), out.tcp(ACK), out.udp(), out.udp()):
        assert world.outcome("from_pod", frame) == "pass_remote"
    assert world.outcome("from_net", out.reversed().tcp(SYN | ACK)) == "pass_local"
    assert counts(world) == {RuleCount(set_id=20, ruling=DENIED, hits=1)}
    [denial] = world.plane.denials()
    assert (denial.audit, denial.ingress, denial.packets) == (True, False, 1)
    assert (denial.subject_identity, denial.peer_identity) == (A_ID, R_ID)
    assert (denial.protocol, denial.port) == (TCP, 80)


@FAMILIES
def test_an_audit_set_without_entries_is_isolation_that_does_not_count_yet(
    world: World, out: Flow
) -> None:
    audited(world, audit_egress=20)
    assert world.outcome("from_pod", out.udp()) == "pass_remote"
    assert counts(world) == {RuleCount(set_id=20, ruling=NOBODY, hits=1)}


@FAMILIES
def test_what_is_denied_already_is_not_asked_of_the_audit(world: World, out: Flow) -> None:
    audited(world, egress=EMPTY, audit_egress=20)
    assert world.outcome("from_pod", out.udp()) == "drop_egress_policy"
    assert counts(world) == {RuleCount(set_id=EMPTY, ruling=NOBODY, hits=1)}
    assert [denial.audit for denial in world.plane.denials()] == [False]


def test_a_set_may_hold_three_tiers_in_one_entry(world: World) -> None:
    said = (decision(1, Action.PASS), decision(1, Action.DENY), decision(1, Action.ALLOW))
    world.plane.write_policy_set(
        PolicySet(set_id=10, entries=(PolicyEntry(peer=0, decisions=said),), prefixes=())
    )
    world.subject(A_ID, egress=10)
    assert world.outcome("from_pod", Flow(A4, R4).frame(ICMP, icmp(8))) == "drop_egress_policy"
    ruling = ruling_of(Tier.NORMAL, decision(1, Action.DENY))
    assert counts(world) == {RuleCount(set_id=10, ruling=ruling, hits=1)}

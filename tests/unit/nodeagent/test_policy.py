"""From subject policies to kernel entries, and the verdict over them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix, parse_address, to_mapped
from deltaplane.model.identity import Reserved
from deltaplane.model.objects import DirectionPolicy, DirectionRule, PeerSet, SubjectPolicy
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.tiers import Action, Tier
from nodeagent.dataplane.port import ALLOWING, PolicyEntry, PrefixEntry, Verdict
from nodeagent.policy import ResolvedDirection, RuleName, resolve
from nodeagent.verdict import CLASS_BIT, NOTHING, decision, ruling_of, verdict

TCP = Protocol.TCP
WORLD = 2
KEY = bytes(16)
HTTP = PortRange(TCP, 80, 80)


def prefix(address: bytes, length: int, peer_class: int) -> PrefixEntry:
    return PrefixEntry(
        address=address, length=length, peer_class=peer_class, outside_class=peer_class
    )


def ingress(
    *rules: DirectionRule, sets: Mapping[bytes, tuple[int, ...]] | None = None
) -> ResolvedDirection:
    policy = SubjectPolicy(identity=256, ingress=DirectionPolicy(isolated=True, rules=rules))
    peer_sets = {
        key: PeerSet(set_key=key, identities=numbers) for key, numbers in (sets or {}).items()
    }
    resolved = resolve(policy, peer_sets)
    assert resolved.egress is None
    assert resolved.ingress is not None
    return resolved.ingress


def block(cidr: str, *holes: str) -> IPBlock:
    return IPBlock(Prefix.parse(cidr), tuple(Prefix.parse(hole) for hole in holes))


def judge(tables: ResolvedDirection, address: str, port: int = 80, peer: int = WORLD) -> bool:
    return verdict(tables, peer, parse_address(address), TCP, port) is Verdict.ALLOW


def test_who_is_not_isolated_is_reached_by_everything() -> None:
    resolved = resolve(SubjectPolicy(identity=256), {})
    assert (resolved.ingress, resolved.egress, resolved.missing) == (None, None, ())
    assert verdict(None, WORLD, bytes(4), 1, 0) is Verdict.ALLOW


def test_who_is_isolated_without_rules_is_reached_by_nothing() -> None:
    tables = ingress()
    assert tables == ResolvedDirection(entries=(), prefixes=())
    assert not judge(tables, "10.0.0.1")


def test_a_rule_without_peers_and_ports_is_one_entry() -> None:
    assert ingress(DirectionRule(all_peers=True)).entries == (PolicyEntry(peer=0),)


def test_a_rule_for_every_port_lets_icmp_pass_and_one_for_a_port_does_not() -> None:
    every, http = (
        ingress(DirectionRule(all_peers=True)),
        ingress(DirectionRule(all_peers=True, ports=(PortRange(TCP),))),
    )
    assert verdict(every, WORLD, bytes(4), 1, 0) is Verdict.ALLOW
    assert verdict(http, WORLD, bytes(4), 1, 0) is Verdict.DENY


def test_a_peer_set_becomes_its_identities() -> None:
    tables = ingress(DirectionRule(peer_sets=(KEY,), ports=(HTTP,)), sets={KEY: (300, 301)})
    assert tables.entries == tuple(
        PolicyEntry(peer=peer, protocol=6, port=80, port_bits=16) for peer in (300, 301)
    )
    assert tables.names[ruling_of(Tier.NORMAL, ALLOWING[1])] == ()


def test_a_rule_with_a_missing_peer_set_allows_nothing_and_says_so() -> None:
    there, absent = b"a" * 16, b"b" * 16
    policy = SubjectPolicy(
        identity=256,
        ingress=DirectionPolicy(
            isolated=True,
            rules=(
                DirectionRule(peer_sets=(there, absent), blocks=(block("10.0.0.0/8"),)),
                DirectionRule(peer_sets=(there,), ports=(HTTP,)),
            ),
        ),
    )
    resolved = resolve(policy, {there: PeerSet(set_key=there, identities=(300,))})
    assert resolved.missing == (absent,)
    assert resolved.ingress == ResolvedDirection(
        entries=(PolicyEntry(peer=300, protocol=6, port=80, port_bits=16),), prefixes=()
    )


def test_what_everyone_may_do_is_not_said_again_for_a_peer() -> None:
    tables = ingress(
        DirectionRule(all_peers=True, ports=(PortRange(TCP, 80, 90),)),
        DirectionRule(peer_sets=(KEY,), ports=(PortRange(TCP, 85, 86), PortRange(TCP, 443, 443))),
        DirectionRule(blocks=(block("10.0.0.0/8"),), ports=(HTTP,)),
        sets={KEY: (300,)},
    )
    assert {entry.port for entry in tables.entries if entry.peer == 300} == {443}
    assert tables.prefixes == ()


def test_a_peer_with_every_port_adds_nothing_to_everyone_with_every_port() -> None:
    tables = ingress(
        DirectionRule(all_peers=True), DirectionRule(peer_sets=(KEY,)), sets={KEY: (300,)}
    )
    assert [entry.peer for entry in tables.entries] == [0]


def test_a_range_is_the_fewest_aligned_prefixes() -> None:
    tables = ingress(DirectionRule(all_peers=True, ports=(PortRange(TCP, 1, 8),)))
    assert [(entry.port, entry.port_bits, entry.decisions) for entry in tables.entries] == [
        (0, 13, ALLOWING),
        (0, 16, NOTHING),
        (8, 16, ALLOWING),
    ]


def test_all_ports_of_a_protocol_are_one_entry_without_a_port() -> None:
    tables = ingress(DirectionRule(all_peers=True, ports=(PortRange(TCP),)))
    assert tables.entries == (PolicyEntry(peer=0, protocol=6),)


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_a_range_allows_its_ports_and_no_other(one: int, other: int, port: int) -> None:
    first, last = sorted((one, other))
    tables = ingress(DirectionRule(all_peers=True, ports=(PortRange(TCP, first, last),)))
    assert len(tables.entries) <= 30
    for probe in (port, first, last, max(first - 1, 0), min(last + 1, 65535)):
        assert judge(tables, "10.0.0.1", probe) == (first <= probe <= last)


def test_a_block_reaches_its_addresses_but_not_the_exceptions() -> None:
    tables = ingress(DirectionRule(blocks=(block("10.0.0.0/8", "10.1.0.0/16"),), ports=(HTTP,)))
    assert tables.prefixes == (
        prefix(to_mapped(bytes((10, 0, 0, 0))), 104, CLASS_BIT | 1),
        prefix(to_mapped(bytes((10, 1, 0, 0))), 112, 0),
    )
    assert judge(tables, "10.2.0.1")
    assert not judge(tables, "10.1.0.1")
    assert not judge(tables, "11.0.0.1")
    # A pod's address is an address.
    assert judge(tables, "10.2.0.1", peer=300)


def test_an_exception_of_one_rule_is_no_exception_of_another() -> None:
    tables = ingress(
        DirectionRule(blocks=(block("10.0.0.0/8", "10.1.0.0/16"),)),
        DirectionRule(blocks=(block("10.1.2.0/24"),), ports=(HTTP,)),
    )
    assert judge(tables, "10.2.0.1", 22)
    assert not judge(tables, "10.1.0.1")
    assert judge(tables, "10.1.2.1")
    assert not judge(tables, "10.1.2.1", 22)


def test_all_of_ipv6_is_nothing_of_ipv4() -> None:
    tables = ingress(DirectionRule(blocks=(block("::/0"),)))
    assert judge(tables, "2001:db8::1")
    assert judge(tables, "::1")
    assert not judge(tables, "10.0.0.1")


def test_all_of_ipv4_is_nothing_of_ipv6() -> None:
    tables = ingress(DirectionRule(blocks=(block("0.0.0.0/0"),)))
    assert judge(tables, "10.0.0.1")
    assert not judge(tables, "::1")


def test_all_of_both_families_needs_one_prefix() -> None:
    tables = ingress(DirectionRule(blocks=(block("::/0"), block("0.0.0.0/0"))))
    assert tables.prefixes == (prefix(bytes(16), 0, CLASS_BIT | 1),)


def test_a_prefix_that_repeats_the_wider_one_is_left_out() -> None:
    tables = ingress(DirectionRule(blocks=(block("10.0.0.0/8"), block("10.1.0.0/16"))))
    assert len(tables.prefixes) == 1


def test_a_prefix_beside_nested_ones_is_not_taken_for_one_inside_them() -> None:
    https, ssh = PortRange(TCP, 443, 443), PortRange(TCP, 22, 22)
    tables = ingress(
        DirectionRule(blocks=(block("10.0.0.0/8"),), ports=(HTTP,)),
        DirectionRule(blocks=(block("10.0.0.0/16"), block("11.0.0.0/8")), ports=(HTTP, https)),
        DirectionRule(blocks=(block("10.0.0.0/24"),), ports=(ssh,)),
    )
    assert [entry.length - 96 for entry in tables.prefixes] == [8, 16, 24, 8]
    assert judge(tables, "11.0.0.1", 443)
    assert judge(tables, "10.0.0.1", 443)
    assert not judge(tables, "10.1.0.1", 443)


def test_addresses_with_the_same_rules_share_a_class() -> None:
    tables = ingress(
        DirectionRule(blocks=(block("10.0.0.0/8"), block("192.0.2.0/24")), ports=(HTTP,)),
        DirectionRule(blocks=(block("198.51.100.0/24"),)),
    )
    first, other, same = (entry.peer_class for entry in tables.prefixes)
    assert first == other != same


def test_entries_and_prefixes_ascend() -> None:
    tables = ingress(
        DirectionRule(peer_sets=(KEY,)),
        DirectionRule(peer_sets=(b"k" * 16,), ports=(PortRange(TCP, 1, 9),)),
        DirectionRule(blocks=(block("fd00::/16"), block("10.0.0.0/8")), ports=(HTTP,)),
        DirectionRule(all_peers=True, ports=(PortRange(TCP), PortRange(Protocol.UDP, 1, 6))),
        sets={KEY: (300, 301), b"k" * 16: (299,)},
    )
    keys = [(e.peer, e.protocol or -1, -1 if e.port is None else e.port) for e in tables.entries]
    assert keys == sorted(keys)
    assert list(tables.prefixes) == sorted(tables.prefixes)


def test_thousands_of_prefixes_do_not_take_a_square_of_time() -> None:
    many = tuple(
        IPBlock(Prefix(bytes((10, high, low, 0)), 24)) for high in range(16) for low in range(256)
    )
    tables = ingress(DirectionRule(blocks=many, ports=(HTTP,)))
    assert len(tables.prefixes) == 4096
    assert len(tables.entries) == 1


# --- tiers ----------------------------------------------------------------------------------------


def direction(*rules: DirectionRule, isolated: bool = False) -> ResolvedDirection | None:
    policy = DirectionPolicy(isolated=isolated, rules=rules, policies=("a", "b"))
    sets = {KEY: PeerSet(set_key=KEY, identities=(300, 301))}
    return resolve(SubjectPolicy(identity=256, egress=policy), sets).egress


def test_a_rule_that_denies_wins_over_those_that_allow_and_the_default_is_to_allow() -> None:
    tables = direction(
        DirectionRule(action=Action.DENY, peer_sets=(KEY,), ports=(HTTP,)),
        DirectionRule(all_peers=True, ports=(HTTP,)),
    )
    assert tables is not None
    assert not judge(tables, "10.0.0.1", 80, peer=300)
    assert judge(tables, "10.0.0.1", 81, peer=300)
    assert judge(tables, "10.0.0.1", 80, peer=302)


def test_who_is_isolated_never_asks_the_baseline() -> None:
    allow = DirectionRule(tier=Tier.BASELINE, all_peers=True)
    passing_on = DirectionRule(tier=Tier.ADMIN, action=Action.PASS, all_peers=True)
    tables = direction(passing_on, allow, isolated=True)
    assert tables is not None
    assert not judge(tables, "10.0.0.1")
    open_ = direction(passing_on, replace(allow, action=Action.DENY, ports=(HTTP,)))
    assert open_ is not None
    assert [judge(open_, "10.0.0.1", port) for port in (80, 81)] == [False, True]


@pytest.mark.parametrize("action", [Action.DENY, Action.PASS])
@pytest.mark.parametrize("tier", [Tier.ADMIN, Tier.BASELINE])
def test_a_rule_whose_peers_are_missing_denies_everybody_unless_it_allows(
    action: Action, tier: Tier
) -> None:
    """Whom it would have spared or left to others is not known either."""
    rule = DirectionRule(tier=tier, action=action, peer_sets=(b"?" * 16,), ports=(HTTP,))
    tables = direction(rule)
    assert tables is not None
    assert [judge(tables, "10.0.0.1", port) for port in (80, 81)] == [False, True]
    assert direction(replace(rule, action=Action.ALLOW)) is None


def test_a_rule_for_every_pod_is_one_entry_and_what_it_says_is_not_said_again() -> None:
    pods = DirectionRule(entities=(Reserved.OTHER_POD,), ports=(HTTP,))
    tables = direction(pods, DirectionRule(peer_sets=(KEY,), ports=(HTTP,)), isolated=True)
    assert tables is not None
    assert [entry.peer for entry in tables.entries] == [Reserved.OTHER_POD]
    assert judge(tables, "10.0.0.1", peer=300)
    assert not judge(tables, "10.0.0.1", peer=WORLD)


def test_a_block_for_the_outside_leaves_out_who_is_inside() -> None:
    tables = direction(
        DirectionRule(blocks=(block("10.0.0.0/8"),), outside_only=True),
        DirectionRule(blocks=(block("10.1.0.0/16"),)),
        isolated=True,
    )
    assert tables is not None
    judged = [
        judge(tables, address, peer=peer)
        for peer in (WORLD, 300, Reserved.REMOTE_NODE)
        for address in ("10.0.0.1", "10.1.0.1")
    ]
    assert judged == [True, True, False, True, False, True]


def test_icmp_types_are_the_ports_of_icmp() -> None:
    tables = direction(
        DirectionRule(all_peers=True, ports=(PortRange(Protocol.ICMP, 8, 8),)), isolated=True
    )
    assert tables is not None
    allowed = [verdict(tables, WORLD, bytes(4), 1, kind) is Verdict.ALLOW for kind in (8, 0)]
    assert allowed == [True, False]
    assert verdict(tables, WORLD, bytes(4), 58, 8) is Verdict.DENY


def test_each_ruling_names_its_rules() -> None:
    tables = direction(
        DirectionRule(tier=Tier.ADMIN, action=Action.DENY, all_peers=True, sources=((1, 4),)),
        DirectionRule(all_peers=True, sources=((0, 0), (1, 2))),
    )
    assert tables is not None
    deny, allow = (decision(1, action) for action in (Action.DENY, Action.ALLOW))
    assert tables.names == {
        ruling_of(Tier.ADMIN, deny): (RuleName("b", False, 4, Action.DENY, False),),
        ruling_of(Tier.NORMAL, allow): (
            RuleName("a", False, 0, Action.ALLOW, False),
            RuleName("b", False, 2, Action.ALLOW, False),
        ),
        1 | Tier.BASELINE << 30: (RuleName("", False, 0, Action.ALLOW, False),),
    }
    isolated = direction(isolated=True)
    assert isolated is not None
    assert isolated.names == {0: (RuleName("", False, 0, Action.DENY, False),)}


# --- audit ----------------------------------------------------------------------------------------


def both(policy: DirectionPolicy) -> tuple[ResolvedDirection | None, ResolvedDirection | None]:
    sets = {KEY: PeerSet(set_key=KEY, identities=(300, 301))}
    resolved = resolve(SubjectPolicy(identity=256, ingress=policy), sets)
    assert (resolved.egress, resolved.audit_egress) == (None, None)
    return resolved.ingress, resolved.audit_ingress


def test_a_policy_under_audit_changes_nothing_and_has_tables_of_its_own() -> None:
    rule = DirectionRule(audit=True, peer_sets=(KEY,), ports=(HTTP,))
    enforced, audited = both(DirectionPolicy(audit_isolated=True, rules=(rule,)))
    assert enforced is None
    assert audited is not None
    assert judge(audited, "10.0.0.1", peer=300)
    assert not judge(audited, "10.0.0.1", peer=302)
    assert all(name.audit for names in audited.names.values() for name in names)


def test_isolation_under_audit_counts_without_a_rule() -> None:
    enforced, audited = both(DirectionPolicy(audit_isolated=True))
    assert enforced is None
    assert audited == ResolvedDirection(entries=(), prefixes=())


def test_without_audit_there_are_no_other_tables() -> None:
    rule = DirectionRule(peer_sets=(KEY,))
    enforced, audited = both(DirectionPolicy(isolated=True, audit_isolated=True, rules=(rule,)))
    assert enforced is not None
    assert audited is None


def test_a_denial_under_audit_is_seen_beside_what_is_enforced() -> None:
    deny = DirectionRule(audit=True, action=Action.DENY, peer_sets=(KEY,))
    allow = DirectionRule(all_peers=True, ports=(HTTP,))
    enforced, audited = both(DirectionPolicy(isolated=True, rules=(deny, allow)))
    assert enforced is not None
    assert audited is not None
    assert [judge(tables, "10.0.0.1", peer=300) for tables in (enforced, audited)] == [True, False]
    assert [judge(tables, "10.0.0.1", peer=302) for tables in (enforced, audited)] == [True, True]
    assert not judge(audited, "10.0.0.1", 81, peer=302)

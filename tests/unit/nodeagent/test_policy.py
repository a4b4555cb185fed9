"""From subject policies to kernel entries, and the verdict over them."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix, parse_address, to_mapped
from deltaplane.model.objects import DirectionPolicy, DirectionRule, PeerSet, SubjectPolicy
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol
from nodeagent.dataplane.port import PolicyEntry, PolicySet, PrefixEntry, Verdict
from nodeagent.policy import CLASS_BIT, ResolvedDirection, resolve, verdict

TCP = Protocol.TCP
WORLD = 2
KEY = bytes(16)
HTTP = PortRange(TCP, 80, 80)


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
    assert tables.entries == (PolicyEntry(peer=0),)


def test_a_range_is_the_fewest_aligned_prefixes() -> None:
    tables = ingress(DirectionRule(all_peers=True, ports=(PortRange(TCP, 1, 8),)))
    assert [(entry.port, entry.port_bits) for entry in tables.entries] == [
        (1, 16),
        (2, 15),
        (4, 14),
        (8, 16),
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
        PrefixEntry(address=to_mapped(bytes((10, 0, 0, 0))), length=104, peer_class=CLASS_BIT | 1),
        PrefixEntry(address=to_mapped(bytes((10, 1, 0, 0))), length=112, peer_class=0),
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
    assert tables.prefixes == (PrefixEntry(address=bytes(16), length=0, peer_class=CLASS_BIT | 1),)


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
        DirectionRule(blocks=(block("10.0.0.0/8"),), ports=(HTTP,)),
        DirectionRule(blocks=(block("192.0.2.0/24"),), ports=(HTTP,)),
        DirectionRule(blocks=(block("198.51.100.0/24"),)),
    )
    assert [entry.peer_class & 0xF for entry in tables.prefixes] == [2, 2, 1]


@given(st.permutations(range(4)))
def test_the_order_of_rules_does_not_matter(order: list[int]) -> None:
    rules = (
        DirectionRule(blocks=(block("10.0.0.0/8", "10.1.0.0/16"),), ports=(HTTP,)),
        DirectionRule(blocks=(block("10.1.0.0/16"),)),
        DirectionRule(peer_sets=(KEY,), ports=(HTTP, PortRange(TCP, 1, 100))),
        DirectionRule(all_peers=True, ports=(PortRange(Protocol.UDP, 53, 53),)),
    )
    sets = {KEY: (300, 400)}
    assert ingress(*(rules[number] for number in order), sets=sets) == ingress(*rules, sets=sets)


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


# --- the kernel's order of lookups; entries as only later kinds of policy make them -------------


def tables(*entries: PolicyEntry, prefixes: tuple[PrefixEntry, ...] = ()) -> PolicySet:
    return PolicySet(set_id=1, entries=entries, prefixes=prefixes)


TEN = PrefixEntry(address=to_mapped(bytes((10, 0, 0, 0))), length=104, peer_class=CLASS_BIT | 1)
ADDRESS = bytes((10, 0, 0, 1))


def test_the_longest_entry_of_the_peer_decides() -> None:
    found = tables(
        PolicyEntry(peer=300),
        PolicyEntry(peer=300, protocol=6, verdict=Verdict.DENY),
        PolicyEntry(peer=300, protocol=6, port=80, port_bits=15),
        PolicyEntry(peer=300, protocol=6, port=81, port_bits=16, verdict=Verdict.DENY),
    )
    judged = {
        (protocol, port): verdict(found, 300, ADDRESS, protocol, port)
        for protocol, port in ((17, 80), (6, 79), (6, 80), (6, 81))
    }
    assert judged == {
        (17, 80): Verdict.ALLOW,
        (6, 79): Verdict.DENY,
        (6, 80): Verdict.ALLOW,
        (6, 81): Verdict.DENY,
    }


def test_the_peer_goes_before_its_class_and_the_class_before_everyone() -> None:
    by_peer = PolicyEntry(peer=300, verdict=Verdict.DENY)
    by_class = PolicyEntry(peer=CLASS_BIT | 1)
    by_all = PolicyEntry(peer=0, protocol=6, port=80, port_bits=16, verdict=Verdict.DENY)
    found = tables(by_all, by_peer, by_class, prefixes=(TEN,))
    assert verdict(found, 300, ADDRESS, 6, 80) is Verdict.DENY
    assert verdict(found, 301, ADDRESS, 6, 80) is Verdict.ALLOW
    assert verdict(found, 301, bytes((11, 0, 0, 1)), 6, 80) is Verdict.DENY


def test_a_class_without_a_matching_entry_leaves_it_to_everyone() -> None:
    found = tables(
        PolicyEntry(peer=0),
        PolicyEntry(peer=CLASS_BIT | 1, protocol=17, verdict=Verdict.DENY),
        prefixes=(TEN,),
    )
    assert verdict(found, 301, ADDRESS, 6, 80) is Verdict.ALLOW


def test_the_longest_prefix_decides_even_if_it_is_a_hole() -> None:
    hole = PrefixEntry(address=to_mapped(bytes((10, 0, 0, 0))), length=120, peer_class=0)
    for prefixes in ((TEN, hole), (hole, TEN)):
        found = tables(PolicyEntry(peer=CLASS_BIT | 1), prefixes=prefixes)
        assert verdict(found, 301, ADDRESS, 6, 80) is Verdict.DENY
        assert verdict(found, 301, bytes((10, 0, 1, 1)), 6, 80) is Verdict.ALLOW

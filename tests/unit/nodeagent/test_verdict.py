"""The kernel's order of lookups, told by its twin: tests/bpf holds the kernel to it."""

from deltaplane.model.addresses import to_mapped
from deltaplane.model.identity import Reserved
from deltaplane.model.tiers import Action, Tier
from nodeagent.dataplane.port import Decisions, PolicyEntry, PolicySet, PrefixEntry, Verdict
from nodeagent.verdict import CLASS_BIT, NOBODY, NOTHING, Judge, decision, ruling_of, verdict

ALLOW, DENY, PASS = Action
INSIDE, OUTSIDE = CLASS_BIT | 1, CLASS_BIT | 2
TEN = PrefixEntry(
    address=to_mapped(bytes((10, 0, 0, 0))), length=104, peer_class=INSIDE, outside_class=OUTSIDE
)
ADDRESS, ELSEWHERE = bytes((10, 0, 0, 1)), bytes((11, 0, 0, 1))
POD, OTHER_POD, WORLD = 301, Reserved.OTHER_POD, Reserved.WORLD


def tables(*entries: PolicyEntry, prefixes: tuple[PrefixEntry, ...] = ()) -> PolicySet:
    return PolicySet(set_id=1, entries=entries, prefixes=prefixes)


def normal(order: int, action: Action) -> Decisions:
    return (0, decision(order, action), 0)


def admin(order: int, action: Action) -> Decisions:
    return (decision(order, action), 0, 0)


def baseline(order: int, action: Action) -> Decisions:
    return (0, 0, decision(order, action))


def ruling(found: PolicySet, peer: int = POD, address: bytes = ADDRESS, port: int = 80) -> int:
    return Judge(found).ruling(peer, address, 6, port)


def test_the_longest_entry_of_a_peer_counts() -> None:
    found = tables(
        PolicyEntry(peer=POD, decisions=normal(1, ALLOW)),
        PolicyEntry(peer=POD, protocol=6, decisions=normal(2, DENY)),
        PolicyEntry(peer=POD, protocol=6, port=80, port_bits=15, decisions=normal(1, ALLOW)),
        PolicyEntry(peer=POD, protocol=6, port=81, port_bits=16, decisions=NOTHING),
    )
    judged = [
        verdict(found, POD, ADDRESS, protocol, port)
        for protocol, port in ((17, 80), (6, 79), (6, 80), (6, 81))
    ]
    assert judged == [Verdict.ALLOW, Verdict.DENY, Verdict.ALLOW, Verdict.DENY]


def test_the_highest_of_all_entries_that_match_counts_whoever_they_are_for() -> None:
    asked = {0: 0, POD: 0, OTHER_POD: 0, INSIDE: 0}
    for peer in asked:
        found = tables(
            *(
                PolicyEntry(
                    peer=each, decisions=normal(9, DENY) if each == peer else normal(1, ALLOW)
                )
                for each in asked
            ),
            prefixes=(TEN,),
        )
        assert ruling(found) == ruling_of(Tier.NORMAL, decision(9, DENY)), peer


def test_an_entry_for_every_pod_is_for_pods_alone() -> None:
    found = tables(PolicyEntry(peer=OTHER_POD, decisions=normal(1, ALLOW)))
    peers = (256, POD, OTHER_POD, WORLD, Reserved.HOST, Reserved.REMOTE_NODE)
    passing = [peer for peer in peers if verdict(found, peer, ADDRESS, 6, 80) is Verdict.ALLOW]
    assert passing == [256, POD, OTHER_POD]


def test_the_class_depends_on_whether_somebody_has_the_address() -> None:
    found = tables(
        PolicyEntry(peer=INSIDE, decisions=normal(1, ALLOW)),
        PolicyEntry(peer=OUTSIDE, decisions=normal(2, DENY)),
        prefixes=(TEN,),
    )
    assert ruling(found, POD) == ruling_of(Tier.NORMAL, decision(1, ALLOW))
    assert ruling(found, OTHER_POD) == ruling_of(Tier.NORMAL, decision(1, ALLOW))
    assert ruling(found, WORLD) == ruling_of(Tier.NORMAL, decision(2, DENY))
    assert ruling(found, POD, ELSEWHERE) == NOBODY


def test_the_longest_prefix_decides_even_if_it_is_a_hole() -> None:
    hole = PrefixEntry(address=TEN.address, length=120, peer_class=0, outside_class=OUTSIDE)
    for prefixes in ((TEN, hole), (hole, TEN)):
        found = tables(PolicyEntry(peer=INSIDE, decisions=normal(1, ALLOW)), prefixes=prefixes)
        assert ruling(found, address=bytes((10, 0, 0, 1))) == NOBODY
        assert ruling(found, address=bytes((10, 0, 1, 1))) != NOBODY


def test_tiers_are_asked_in_turn_and_pass_leaves_it_to_the_next() -> None:
    said = [
        admin(2, ALLOW),
        admin(1, PASS),
        normal(1, DENY),
        baseline(1, ALLOW),
    ]
    entries = [PolicyEntry(peer=peer, decisions=each) for peer, each in enumerate(said, start=301)]
    every = PolicyEntry(peer=0, decisions=(0, 0, decision(0, ALLOW)))
    found = tables(every, *entries)
    assert [ruling(found, peer) for peer in range(301, 306)] == [
        ruling_of(Tier.ADMIN, decision(2, ALLOW)),
        ruling_of(Tier.BASELINE, decision(0, ALLOW)),
        ruling_of(Tier.NORMAL, decision(1, DENY)),
        ruling_of(Tier.BASELINE, decision(1, ALLOW)),
        ruling_of(Tier.BASELINE, decision(0, ALLOW)),
    ]


def test_a_pass_that_is_higher_hides_a_denial_of_its_tier() -> None:
    found = tables(
        PolicyEntry(peer=0, decisions=(decision(1, DENY), decision(1, ALLOW), 0)),
        PolicyEntry(peer=POD, decisions=admin(2, PASS)),
    )
    assert ruling(found, POD) == ruling_of(Tier.NORMAL, decision(1, ALLOW))
    assert ruling(found, 302) == ruling_of(Tier.ADMIN, decision(1, DENY))


def test_what_nobody_decides_is_denied_and_where_there_is_no_set_all_is_allowed() -> None:
    passing_on = tables(PolicyEntry(peer=0, decisions=(decision(1, PASS), 0, decision(1, PASS))))
    assert ruling(passing_on) == ruling(tables()) == NOBODY
    assert verdict(tables(), POD, ADDRESS, 6, 80) is Verdict.DENY
    assert verdict(None, POD, ADDRESS, 6, 80) is Verdict.ALLOW


def test_nothing_passes_to_or_from_who_is_unknown() -> None:
    unknown = Reserved.UNKNOWN
    everything = (decision(9, ALLOW), decision(9, ALLOW), decision(9, ALLOW))
    found = tables(*(PolicyEntry(peer=peer, decisions=everything) for peer in (0, unknown)))
    assert verdict(found, unknown, ADDRESS, 6, 80) is Verdict.DENY
    assert verdict(None, unknown, ADDRESS, 6, 80) is Verdict.ALLOW

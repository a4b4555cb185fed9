import itertools
from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.story import BRISK, CUTS, DECK, Cast, Event, Kind, Pace, events, part

CAST = Cast(
    etcd=("etcd", "etcd-2", "etcd-3"),
    services=("ipam", "ipam-2", "slicer", "slicer-2"),
    agents={"node-1": "agent-node-1", "node-2": "agent-node-2"},
    small_disk="node-2",
)


def told(seed: int, count: int = 400) -> list[Event]:
    return list(itertools.islice(events(seed, CAST, Pace()), count))


def test_a_seed_always_tells_the_same_story_and_another_one_another() -> None:
    assert told(1) == told(1)
    assert [event.fault for event in told(1)] != [event.fault for event in told(2)]


@pytest.mark.parametrize("seed", range(20))
def test_a_short_story_has_every_kind_and_ends_all_that_it_begins(seed: int) -> None:
    story = list(events(seed, CAST, BRISK, faults=len(DECK)))

    begun = [event.fault for event in story if not event.ends]
    assert {fault.kind for fault in begun} == set(Kind)
    assert [fault.number for fault in begun] == list(range(1, len(DECK) + 1))
    ended = {event.fault.number for event in story if event.ends}
    assert ended == {fault.number for fault in begun if fault.seconds}
    assert [event.at for event in story] == sorted(event.at for event in story)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_hit_twice_at_a_time_and_two_members_of_etcd_are_there(seed: int) -> None:
    away: Counter[str] = Counter()
    for event in told(seed):
        fault = event.fault
        if not fault.seconds:
            continue
        away[part(fault.kind, fault.target)] += -1 if event.ends else 1
        assert max(away.values()) <= 1, event
        assert sum(away[name] for name in CAST.etcd) <= 1, event


def test_both_links_of_a_node_are_cut_apart_and_together() -> None:
    cut: set[tuple[Kind, str]] = set()
    seen = set()
    for event in told(3, 4000):
        if event.fault.kind in CUTS:
            cut ^= {(event.fault.kind, event.fault.target)}
            seen.add(frozenset(kind for kind, node in cut if node == "node-1"))
    assert seen == {frozenset(), *(frozenset({kind}) for kind in CUTS), frozenset(CUTS)}


@pytest.mark.parametrize("seed", range(20))
def test_a_story_that_stops_ends_what_it_has_begun_at_once(seed: int) -> None:
    whole = itertools.takewhile(lambda event: event.at <= 20, events(seed, CAST, Pace()))
    story = list(events(seed, CAST, Pace(), seconds=20))

    assert [event for event in story if event.at < 20] == list(whole)
    begun = {event.fault.number for event in story if not event.ends and event.fault.seconds}
    assert begun == {event.fault.number for event in story if event.ends}
    assert max(event.at for event in story) <= 20


def test_clocks_are_set_right_where_they_must_be() -> None:
    story = events(1, CAST, replace(BRISK, jumps_end=True), faults=50)
    jumps = [event.ends for event in story if event.fault.kind is Kind.JUMP_CLOCK]
    assert jumps.count(True) == jumps.count(False) > 0

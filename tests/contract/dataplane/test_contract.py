"""What every data plane does: the fake in memory and the kernel's."""

from collections.abc import Callable

import pytest

from nodeagent.dataplane import abi
from nodeagent.dataplane.port import (
    Applied,
    CapacityError,
    LocalEndpoint,
    Mapping,
    NextHop,
    PolicyEntry,
    PolicySet,
    PrefixEntry,
    Range,
    Subject,
)
from tests.contract.dataplane.conftest import EMPTY, Plane, Restart


def mapped(last: int) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes([10, 244, last >> 8, last & 255])


def mapping(last: int, identity: int = 300, node_index: int = 1) -> Mapping:
    return Mapping(address=mapped(last), identity=identity, node_index=node_index)


def endpoint(
    ifindex: int, *, ipv4: int | None = 1, ipv6: int | None = None, identity: int = 300
) -> LocalEndpoint:
    return LocalEndpoint(
        ifindex=ifindex,
        endpoint_id=ifindex + 1000,
        identity=identity,
        ipv4=None if ipv4 is None else mapped(ipv4)[12:],
        ipv6=None if ipv6 is None else b"\xfd" + bytes(14) + bytes([ipv6]),
        pod_mac=b"\x02\0\0\0\0\x01",
        host_mac=b"\x02\0\0\0\0\x02",
    )


def policy_set(set_id: int, count: int = 1) -> PolicySet:
    entries = tuple(PolicyEntry(peer=256 + n) for n in range(count))
    return PolicySet(set_id=set_id, entries=entries, prefixes=())


RICH_SET = PolicySet(
    set_id=7,
    entries=(
        PolicyEntry(peer=0, protocol=17, port=53, port_bits=16),
        PolicyEntry(peer=300),
        PolicyEntry(peer=300, protocol=6),
        PolicyEntry(peer=300, protocol=6, port=0, port_bits=1),
        PolicyEntry(peer=300, protocol=6, port=80, port_bits=16, decisions=(0, 0, 2**32 - 1)),
        PolicyEntry(peer=300, protocol=6, port=8080, port_bits=12),
        PolicyEntry(peer=0x80000001, protocol=132, port=65535, port_bits=16),
    ),
    prefixes=(
        PrefixEntry(address=bytes(16), length=0, peer_class=0x80000001, outside_class=0),
        PrefixEntry(address=mapped(0), length=112, peer_class=0, outside_class=0),
        PrefixEntry(address=mapped(5), length=128, peer_class=0x80000001, outside_class=0x80000002),
    ),
)


def test_new_plane_is_empty(plane: Plane) -> None:
    assert plane.dump() == EMPTY
    assert plane.denials() == ()
    counters = plane.counters()
    assert [counter.outcome for counter in counters] == [o.name.lower() for o in abi.Outcome]
    assert {(counter.packets, counter.bytes) for counter in counters} == {(0, 0)}


def test_mappings_are_written_replaced_and_removed(plane: Plane) -> None:
    plane.upsert_mappings([mapping(n) for n in range(1500)])
    plane.upsert_mappings([mapping(3, identity=0xFFFFFFFF, node_index=9)])
    expected = {mapping(n) for n in range(1500)} - {mapping(3)}
    expected |= {mapping(3, identity=0xFFFFFFFF, node_index=9)}
    assert plane.dump().mappings == expected
    plane.delete_mappings([mapped(n) for n in range(1498)])
    assert plane.dump().mappings == {mapping(1498), mapping(1499)}


def test_absent_keys_do_not_stop_a_removal(plane: Plane) -> None:
    plane.upsert_mappings([mapping(n) for n in range(0, 40, 2)])
    plane.delete_mappings([mapped(n) for n in range(40)])
    plane.delete_mappings([mapped(1)])
    plane.delete_ranges([(mapped(0), 112)])
    plane.delete_next_hops([1, 2])
    plane.delete_policy_sets([1])
    plane.delete_subjects([300])
    plane.delete_local_endpoints([5])
    assert plane.dump() == EMPTY


def test_nothing_to_do_is_nothing(plane: Plane) -> None:
    plane.upsert_mappings([])
    plane.delete_mappings([])
    plane.upsert_local_endpoints([])
    plane.write_policy_set(PolicySet(set_id=1, entries=(), prefixes=()))
    assert plane.dump() == EMPTY


def test_ranges_of_one_address_differ_by_length(plane: Plane) -> None:
    wide = Range(address=mapped(0), length=112, identity=3, node_index=1)
    narrow = Range(address=mapped(0), length=122, identity=3, node_index=2)
    everything = Range(address=bytes(16), length=0, identity=2, node_index=0)
    plane.upsert_ranges([wide, narrow, everything])
    assert plane.dump().ranges == {wide, narrow, everything}
    plane.delete_ranges([(mapped(0), 112)])
    assert plane.dump().ranges == {narrow, everything}


@pytest.mark.parametrize("ipv4", [None, bytes([198, 19, 0, 1])])
@pytest.mark.parametrize("ipv6", [None, b"\xfd\x99" + bytes(13) + b"\x01"])
def test_next_hops_keep_their_families(
    plane: Plane, ipv4: bytes | None, ipv6: bytes | None
) -> None:
    hop = NextHop(node_index=70000, ipv4=ipv4, ipv6=ipv6)
    plane.upsert_next_hops([hop, NextHop(node_index=2, ipv4=b"\x0a\0\0\x02", ipv6=None)])
    plane.delete_next_hops([2])
    assert plane.dump().next_hops == {hop}


def test_policy_sets_come_back_as_written(plane: Plane) -> None:
    plane.write_policy_set(RICH_SET)
    plane.write_policy_set(policy_set(8, 1200))
    assert plane.dump().policy_sets == (RICH_SET, policy_set(8, 1200))
    plane.delete_policy_sets([7])
    assert plane.dump().policy_sets == (policy_set(8, 1200),)


def test_writing_a_set_again_leaves_nothing_of_it(plane: Plane) -> None:
    plane.write_policy_set(RICH_SET)
    smaller = PolicySet(set_id=7, entries=(PolicyEntry(peer=400),), prefixes=())
    plane.write_policy_set(smaller)
    assert plane.dump().policy_sets == (smaller,)


def test_every_port_is_no_port_bits(plane: Plane) -> None:
    entry = PolicyEntry(peer=300, protocol=6, port=0, port_bits=0)
    plane.write_policy_set(PolicySet(set_id=1, entries=(entry,), prefixes=()))
    assert plane.dump().policy_sets[0].entries == (PolicyEntry(peer=300, protocol=6),)


def test_empty_set_is_there_while_a_subject_names_it(plane: Plane) -> None:
    plane.write_policy_set(PolicySet(set_id=4, entries=(), prefixes=()))
    plane.upsert_subjects([Subject(identity=300, ingress_set=4, egress_set=0, epoch=1)])
    assert plane.dump().policy_sets == (PolicySet(set_id=4, entries=(), prefixes=()),)
    plane.delete_subjects([300])
    assert plane.dump().policy_sets == ()


def test_subjects_are_replaced_whole(plane: Plane) -> None:
    old = Subject(identity=300, ingress_set=1, egress_set=2, epoch=1)
    new = Subject(identity=300, ingress_set=0, egress_set=3, epoch=0xFFFFFFFF)
    other = Subject(identity=301, ingress_set=0, egress_set=0, epoch=1)
    plane.upsert_subjects([old, other])
    plane.upsert_subjects([new])
    assert plane.dump().subjects == {new, other}
    plane.delete_subjects([301])
    assert plane.dump().subjects == {new}


def test_endpoint_is_found_by_link_and_by_address(plane: Plane) -> None:
    both = endpoint(5, ipv4=1, ipv6=1)
    plane.upsert_local_endpoints([both, endpoint(6, ipv4=2)])
    assert plane.dump().local_endpoints == {both, endpoint(6, ipv4=2)}
    assert plane.holder_of(mapped(1)) == plane.holder_of(b"\xfd" + bytes(14) + b"\x01") == 5
    assert plane.holder_of(mapped(3)) is None
    plane.delete_local_endpoints([5])
    assert plane.dump().local_endpoints == {endpoint(6, ipv4=2)}
    assert plane.holder_of(mapped(1)) is None


def test_endpoint_with_other_addresses_loses_the_old_ones(plane: Plane) -> None:
    plane.upsert_local_endpoints([endpoint(5, ipv4=1, ipv6=1)])
    plane.upsert_local_endpoints([endpoint(5, ipv4=2, ipv6=1, identity=0)])
    assert plane.dump().local_endpoints == {endpoint(5, ipv4=2, ipv6=1, identity=0)}
    assert plane.holder_of(mapped(1)) is None
    assert plane.holder_of(mapped(2)) == plane.holder_of(b"\xfd" + bytes(14) + b"\x01") == 5


def test_old_link_does_not_take_the_address_from_the_new_one(plane: Plane) -> None:
    """A pod's address may be given to the next before the old link is gone."""
    plane.upsert_local_endpoints([endpoint(5)])
    plane.upsert_local_endpoints([endpoint(6)])
    plane.delete_local_endpoints([5])
    assert plane.holder_of(mapped(1)) == 6


@pytest.mark.parametrize(
    ("name", "capacity", "fill"),
    [
        ("mappings", 2048, lambda p: p.upsert_mappings([mapping(n) for n in range(4096)])),
        (
            "ranges",
            16,
            lambda p: p.upsert_ranges(
                [Range(address=mapped(n), length=128, identity=3, node_index=1) for n in range(40)]
            ),
        ),
        ("policy_entries", 2048, lambda p: p.write_policy_set(policy_set(1, 3000))),
        (
            "endpoints",
            4,
            lambda p: p.upsert_local_endpoints([endpoint(n, ipv4=n) for n in range(1, 9)]),
        ),
    ],
    ids=["hash", "trie", "set", "one by one"],
)
def test_full_table_says_which_and_how_large(
    plane: Plane, name: str, capacity: int, fill: Callable[[Plane], None]
) -> None:
    with pytest.raises(CapacityError) as caught:
        fill(plane)
    assert (caught.value.map_name, caught.value.capacity) == (name, capacity)


def test_set_that_did_not_fit_can_be_removed(plane: Plane) -> None:
    with pytest.raises(CapacityError):
        plane.write_policy_set(policy_set(1, 3000))
    plane.delete_policy_sets([1])
    plane.write_policy_set(policy_set(2, 2000))
    assert plane.dump().policy_sets == (policy_set(2, 2000),)


def test_applied_and_grace(plane: Plane) -> None:
    applied = Applied(lineage=bytes(range(16)), revision=2**63 + 1)
    plane.set_applied(applied)
    plane.synchronize()
    assert plane.dump().applied == applied


def test_the_node_index_is_what_was_set_last(plane: Plane) -> None:
    for index in (1, 2**32 - 1):
        plane.set_node_index(index)
        assert plane.node_index == index


def test_restarted_agent_finds_everything(plane: Plane, restart: Restart) -> None:
    plane.set_node_index(3)
    plane.upsert_mappings([mapping(1)])
    plane.upsert_ranges([Range(address=mapped(0), length=122, identity=3, node_index=1)])
    plane.upsert_next_hops([NextHop(node_index=1, ipv4=b"\x0a\0\0\x01", ipv6=None)])
    plane.write_policy_set(RICH_SET)
    plane.upsert_subjects([Subject(identity=300, ingress_set=7, egress_set=9, epoch=2)])
    plane.upsert_local_endpoints([endpoint(5)])
    plane.set_applied(Applied(lineage=b"l" * 16, revision=5))
    before = plane.dump()
    plane = restart()
    assert plane.dump() == before
    assert plane.node_index == 3
    # It also knows what the sets that it did not write consist of.
    plane.delete_policy_sets([7])
    plane.upsert_subjects([Subject(identity=300, ingress_set=0, egress_set=0, epoch=3)])
    assert plane.dump().policy_sets == ()


def test_room_is_what_sets_and_subjects_leave(plane: Plane) -> None:
    plane.write_policy_set(RICH_SET)
    plane.write_policy_set(policy_set(8, 100))
    plane.upsert_subjects([Subject(identity=300, ingress_set=7, egress_set=8, epoch=1)])
    room = plane.room()
    usages = (room.policy_entries, room.policy_prefixes, room.subjects)
    assert [usage.capacity for usage in usages] == [2048, 16, 16]
    assert [usage.used for usage in usages] == [107, 3, 1]
    plane.delete_policy_sets([7])
    assert plane.room().policy_entries.free == 2048 - 100


def test_as_much_fits_as_the_room_says(plane: Plane) -> None:
    """A tree of prefixes has inner nodes: they do not count."""
    plane.write_policy_set(RICH_SET)
    plane.write_policy_set(policy_set(8, plane.room().policy_entries.free))
    assert plane.room().policy_entries.free == 0
    prefixes = tuple(
        PrefixEntry(address=mapped(n), length=128, peer_class=1, outside_class=0)
        for n in range(100, 100 + plane.room().policy_prefixes.free)
    )
    plane.write_policy_set(PolicySet(set_id=9, entries=(), prefixes=prefixes))
    assert plane.room().policy_prefixes.free == 0
    with pytest.raises(CapacityError):
        plane.write_policy_set(policy_set(10))


def test_no_set_has_counted_anything_before_a_packet(plane: Plane) -> None:
    plane.write_policy_set(RICH_SET)
    assert plane.rule_counts() == ()
    assert plane.delete_policy_sets([7, 8]) == ()

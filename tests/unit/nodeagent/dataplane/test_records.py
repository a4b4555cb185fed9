"""What is written into a map comes back as it was, for every value there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.dataplane import abi, records
from nodeagent.dataplane.config import Capacities, DataPlaneConfig, first_tick
from nodeagent.dataplane.port import (
    LocalEndpoint,
    Mapping,
    NextHop,
    PolicyEntry,
    PrefixEntry,
    Range,
    Subject,
)

U32 = st.integers(0, 2**32 - 1)
ADDRESSES = st.binary(min_size=16, max_size=16)
IPV4 = st.none() | st.binary(min_size=4, max_size=4)
# All zeros stand for "no address"; nobody has that one.
IPV6 = st.none() | ADDRESSES.filter(any)
MACS = st.binary(min_size=6, max_size=6)


@st.composite
def entries(draw: st.DrawFn) -> PolicyEntry:
    peer, said = draw(U32), draw(st.tuples(U32, U32, U32))
    protocol = draw(st.none() | st.integers(0, 255))
    bits = draw(st.integers(0, 16)) if protocol is not None else 0
    port = draw(st.integers(0, 65535)) >> (16 - bits) << (16 - bits) if bits else None
    return PolicyEntry(peer=peer, protocol=protocol, port=port, port_bits=bits, decisions=said)


@given(st.builds(Mapping, address=ADDRESSES, identity=U32, node_index=U32))
def test_mapping(value: Mapping) -> None:
    assert records.to_mapping(records.mapping_item(value)) == value


@given(
    st.builds(Range, address=ADDRESSES, length=st.integers(0, 128), identity=U32, node_index=U32)
)
def test_range(value: Range) -> None:
    assert records.to_range(records.range_item(value)) == value
    assert records.range_item(value)[0] == records.range_key(value.address, value.length)


@given(st.builds(NextHop, node_index=U32, ipv4=IPV4, ipv6=st.none() | ADDRESSES))
def test_next_hop(value: NextHop) -> None:
    assert records.to_next_hop(records.next_hop_item(value)) == value


@given(U32, entries())
def test_policy_entry(set_id: int, value: PolicyEntry) -> None:
    item = records.entry_item(set_id, value)
    assert records.to_entry(item) == (set_id, value)
    assert len(item[0]) == abi.POLICY_KEY_SIZE


@given(
    U32,
    st.builds(
        PrefixEntry,
        address=ADDRESSES,
        length=st.integers(0, 128),
        peer_class=U32,
        outside_class=U32,
    ),
)
def test_prefix_entry(set_id: int, value: PrefixEntry) -> None:
    assert records.to_prefix(records.prefix_item(set_id, value)) == (set_id, value)


@given(
    st.builds(
        Subject,
        identity=U32,
        ingress_set=U32,
        egress_set=U32,
        audit_ingress_set=U32,
        audit_egress_set=U32,
        epoch=U32,
    )
)
def test_subject(value: Subject) -> None:
    assert records.to_subject(records.subject_item(value)) == value


@given(
    st.builds(
        LocalEndpoint,
        ifindex=U32,
        endpoint_id=U32,
        identity=U32,
        ipv4=IPV4,
        ipv6=IPV6,
        pod_mac=MACS,
        host_mac=MACS,
    )
)
def test_local_endpoint(value: LocalEndpoint) -> None:
    assert records.to_endpoint(records.endpoint_value(value)) == value
    keys = records.address_keys(value)
    assert len(keys) == (value.ipv4 is not None) + (value.ipv6 is not None)
    assert all(len(key) == 16 for key in keys)


def test_wildcards_end_the_key_early() -> None:
    """The kernel compares as many bits as prefixlen says: the set and the peer are always in."""
    bits = [
        abi.PolicyKey.unpack(records.entry_item(1, entry)[0]).prefixlen
        for entry in (
            PolicyEntry(peer=5),
            PolicyEntry(peer=5, protocol=6),
            PolicyEntry(peer=5, protocol=6, port=80, port_bits=16),
            PolicyEntry(peer=5, protocol=6, port=0x8000, port_bits=1),
        )
    ]
    assert bits == [64, 72, 88, 73]
    key, _ = records.entry_item(0x01020304, PolicyEntry(peer=5, protocol=6, port=80, port_bits=16))
    assert key[4:] == bytes([1, 2, 3, 4, 0, 0, 0, 5, 6, 0, 80])


def test_order_of_entries_puts_every_before_a_number() -> None:
    ascending = [
        PolicyEntry(peer=1),
        PolicyEntry(peer=1, protocol=0),
        PolicyEntry(peer=1, protocol=6),
        PolicyEntry(peer=1, protocol=6, port=0, port_bits=1),
        PolicyEntry(peer=1, protocol=6, port=0, port_bits=16),
        PolicyEntry(peer=2),
    ]
    assert sorted(frozenset(ascending), key=records.entry_order) == ascending


@pytest.mark.parametrize("flags", range(4))
def test_denial(flags: int) -> None:
    key = abi.DenialKey(subject=300, peer=2, port=443, protocol=6, flags=flags)
    found = records.to_denial((key.pack(), abi.Denial(packets=3, last_seen=9).pack()))
    assert (found.subject_identity, found.peer_identity) == (300, 2)
    assert (found.ingress, found.audit) == (bool(flags & 1), bool(flags & 2))
    assert (found.protocol, found.port, found.packets, found.last_boot_ns) == (6, 443, 3, 9)


def test_grouping_keeps_the_order() -> None:
    assert records.grouped([(2, "a"), (1, "b"), (2, "c")]) == {2: ["a", "c"], 1: ["b"]}


def test_config_without_addresses_is_zeros() -> None:
    assert DataPlaneConfig().to_abi()._replace(tick_ns=0, first_tick=0).pack() == bytes(
        abi.CONFIG_SIZE
    )
    config = DataPlaneConfig(
        uplink_ifindex=2,
        uplink_mtu=1500,
        tunnel_ifindex=3,
        node_ipv4=bytes([10, 0, 0, 1]),
        tick_ns=4_000_000,
        direct_ifindex=4,
        hands_over=True,
    )
    assert config.to_abi() == abi.Config(
        uplink_ifindex=2,
        uplink_mtu=1500,
        tunnel_ifindex=3,
        tick_ns=4_000_000,
        first_tick=2**32 - 75_000,
        node_ipv4=bytes(10) + b"\xff\xff\x0a\0\0\x01",
        node_ipv6=bytes(16),
        refusal=0,
        netns_cookie=0,
        direct_ifindex=4,
        hands_over=1,
    )


@pytest.mark.parametrize(
    ("tick", "hz"), [(10_000_000, 100), (4_000_000, 250), (3_333_333, 300), (1_000_000, 1000)]
)
def test_ticks_begin_five_minutes_before_they_run_over(tick: int, hz: int) -> None:
    assert first_tick(tick) == 2**32 - 300 * hz


def test_addresses_have_room_for_both_families() -> None:
    assert Capacities(endpoints=10).by_map()["addresses"] == 20

"""from_pod: one story per rule of its decision list, for both families."""

import pytest

from nodeagent.dataplane.port import NextHop, PolicyEntry
from tests.bpf.conftest import (
    A4,
    A6,
    A_ID,
    B4,
    B6,
    B_ID,
    B_MACS,
    LINK_A,
    LINK_B,
    NODE,
    NODE4,
    NODE6,
    OTHER4,
    OTHER6,
    OTHER_NODE,
    R4,
    R6,
    R_ID,
    S4,
    S6,
    UPLINK_MTU,
    W4,
    W6,
    World,
)  # fmt: skip
from tests.bpf.packets import (
    ACK,
    ICMPV6,
    SYN,
    TCP,
    UDP,
    Flow,
    address,
    ethernet,
    header_is_sound,
    icmp,
    ipv4,
    ipv6,
    tcp,
    ttl_of,
    udp,
)  # fmt: skip

FAMILIES = pytest.mark.parametrize(("a", "b", "r"), [(A4, B4, R4), (A6, B6, R6)], ids=["v4", "v6"])
LOCAL = [Flow(A4, B4), Flow(A6, B6)]
REMOTE = [Flow(A4, R4), Flow(A6, R6)]


def neighbour_solicitation(src: str, dst: str, *, ttl: int = 255, kind: int = 135) -> bytes:
    return ethernet(0x86DD, ipv6(src, dst, ICMPV6, icmp(kind, 0, bytes(16)), ttl=ttl))


# 1. neighbours


def test_arp_goes_to_the_stack_even_without_an_endpoint(world: World) -> None:
    world.plane.delete_local_endpoints([LINK_A])
    assert world.outcome("from_pod", ethernet(0x0806, bytes(28))) == "pass_neighbour"


@pytest.mark.parametrize("dst", ["ff02::1:ff00:1", "fe80::1"])
def test_neighbour_discovery_on_the_link_goes_to_the_stack(world: World, dst: str) -> None:
    world.endpoint(LINK_A, 0, A4, A6)
    assert world.outcome("from_pod", neighbour_solicitation("fe80::5", dst)) == "pass_neighbour"


def test_neighbour_discovery_that_was_routed_is_none(world: World) -> None:
    frame = neighbour_solicitation(A6, "ff02::1:ff00:1", ttl=254)
    assert world.outcome("from_pod", frame) == "drop_link_scope"


def test_neighbour_discovery_beyond_the_link_is_judged(world: World) -> None:
    world.subject(A_ID, egress=9)
    assert world.outcome("from_pod", neighbour_solicitation(A6, R6)) == "drop_egress_policy"


@pytest.mark.parametrize("kind", [134, 137])
def test_pod_is_no_router(world: World, kind: int) -> None:
    frame = neighbour_solicitation("fe80::1", "ff02::1", kind=kind)
    assert world.outcome("from_pod", frame) == "drop_spoofed"


# 2. what cannot be parsed


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(0x0800, b"\x41" + ipv4(A4, B4, TCP, tcp(1, 2))[1:]),
        ethernet(0x0800, b"\x65" + ipv4(A4, B4, TCP, tcp(1, 2))[1:]),
        ethernet(0x0800, ipv4(A4, B4, TCP, tcp(1, 2)[:10])),
        ethernet(0x0800, ipv4(A4, B4, UDP, udp(1, 2)[:3])),
        ethernet(0x0800, ipv4(A4, B4, 1, b"\x08\x00")),
        ethernet(0x86DD, b"\x45" + ipv6(A6, B6, TCP, tcp(1, 2))[1:]),
        ethernet(0x86DD, ipv6(A6, B6, TCP, tcp(1, 2)[:10])),
    ],
    ids=["ihl", "version", "tcp", "udp", "icmp", "version6", "tcp6"],
)
def test_torn_packets_are_malformed(world: World, frame: bytes) -> None:
    assert world.outcome("from_pod", frame) == "drop_malformed"


@pytest.mark.parametrize(("src", "dst"), [(f"::ffff:{A4}", B6), (A6, f"::ffff:{B4}")])
def test_ipv6_packet_cannot_pose_as_ipv4(world: World, src: str, dst: str) -> None:
    assert world.outcome("from_pod", Flow(src, dst).tcp()) == "drop_malformed"


@pytest.mark.parametrize("ethertype", [0x88CC, 0x8847])
def test_other_protocols_are_unsupported(world: World, ethertype: int) -> None:
    assert world.outcome("from_pod", ethernet(ethertype, bytes(40))) == "drop_unsupported"


def test_icmp_of_the_other_family_is_unsupported(world: World) -> None:
    frame = ethernet(0x0800, ipv4(A4, B4, ICMPV6, icmp(128, 1)))
    assert world.outcome("from_pod", frame) == "drop_unsupported"


# 3. to 5. link, source and destination


def test_link_without_endpoint_sends_nothing(world: World) -> None:
    world.plane.delete_local_endpoints([LINK_A])
    assert world.outcome("from_pod", Flow(A4, B4).tcp()) == "drop_no_endpoint"


@pytest.mark.parametrize(
    "flow",
    [Flow(B4, R4), Flow(W4, R4), Flow("0.0.0.0", R4), Flow(B6, R6), Flow("::", R6)],
    ids=lambda flow: flow.src,
)
def test_forged_source_is_dropped(world: World, flow: Flow) -> None:
    assert world.outcome("from_pod", flow.udp()) == "drop_spoofed"


@pytest.mark.parametrize("src", ["::", A6])
def test_pod_without_a_family_has_no_source_in_it(world: World, src: str) -> None:
    world.endpoint(LINK_A, A_ID, A4, None)
    assert world.outcome("from_pod", Flow(src, R6).udp()) == "drop_spoofed"


@pytest.mark.parametrize(
    "flow",
    [
        Flow(A4, "224.0.0.251"),
        Flow(A4, "255.255.255.255"),
        Flow(A6, "ff02::fb"),
        Flow(A6, "fe80::1"),
    ],
    ids=lambda flow: flow.dst,
)
def test_destinations_of_the_link_reach_nobody(world: World, flow: Flow) -> None:
    assert world.outcome("from_pod", flow.udp()) == "drop_link_scope"


# 7. egress policy


@pytest.mark.parametrize("flow", [*LOCAL, *REMOTE, Flow(A4, W4), Flow(A6, W6)], ids=str)
def test_isolated_pod_sends_nothing(world: World, flow: Flow) -> None:
    world.subject(A_ID, egress=9)
    for frame in (flow.tcp(), flow.udp(), flow.sctp(), flow.echo()):
        assert world.outcome("from_pod", frame) == "drop_egress_policy"
    assert world.connections() == 0


def test_denials_say_who_what_and_how_often(world: World) -> None:
    world.subject(A_ID, egress=9)
    for _ in range(3):
        world.run("from_pod", Flow(A4, R4, dport=443).tcp())
    world.run("from_pod", Flow(A6, W6).echo())
    found = {
        (d.subject_identity, d.peer_identity, d.ingress, d.protocol, d.port): d.packets
        for d in world.plane.denials()
    }
    assert found == {(A_ID, R_ID, False, TCP, 443): 3, (A_ID, 2, False, ICMPV6, 128): 1}
    assert all(denial.last_boot_ns > 0 for denial in world.plane.denials())


@pytest.mark.parametrize("identity", [0, 999], ids=["no identity", "no policy yet"])
def test_closed_pod_sends_nothing(world: World, identity: int) -> None:
    world.endpoint(LINK_A, identity, A4, A6)
    assert world.outcome("from_pod", Flow(A4, R4).tcp()) == "drop_closed"
    assert world.outcome("from_pod", Flow(A6, W6).udp()) == "drop_closed"


# 8. local delivery


@pytest.mark.parametrize("flow", LOCAL, ids=["v4", "v6"])
def test_local_pod_gets_the_packet(world: World, flow: Flow) -> None:
    for frame in (flow.tcp(), flow.udp(), flow.sctp(), flow.echo()):
        assert world.outcome("from_pod", frame) == "pass_local"
        packet = world.run("from_pod", frame).packet
        assert packet[:12] == B_MACS
        assert ttl_of(packet) == 63
        assert header_is_sound(packet)


@pytest.mark.parametrize("flow", LOCAL, ids=["v4", "v6"])
def test_local_pods_ingress_policy_counts_too(world: World, flow: Flow) -> None:
    world.subject(B_ID, ingress=9)
    assert world.outcome("from_pod", flow.tcp()) == "drop_ingress_policy"
    world.policy(10, PolicyEntry(peer=A_ID, protocol=TCP, port=80, port_bits=16))
    world.subject(B_ID, ingress=10, epoch=2)
    assert world.outcome("from_pod", flow.tcp()) == "pass_local"
    assert world.outcome("from_pod", flow.udp()) == "drop_ingress_policy"


def test_closed_local_pod_gets_nothing(world: World) -> None:
    world.endpoint(LINK_B, 0, B4, B6)
    assert world.outcome("from_pod", Flow(A4, B4).tcp()) == "drop_closed"


@pytest.mark.parametrize("flow", [*LOCAL, *REMOTE], ids=str)
@pytest.mark.parametrize("ttl", [0, 1])
def test_used_up_hop_limit_is_answered_by_the_stack(world: World, flow: Flow, ttl: int) -> None:
    frame = flow.udp(ttl=ttl)
    assert world.outcome("from_pod", frame) == "pass_ttl_expired"
    assert world.run("from_pod", frame).packet == frame


# 9. remote delivery


@pytest.mark.parametrize("flow", [*REMOTE, Flow(A4, S4), Flow(A6, S6)], ids=str)
def test_remote_pod_is_reached_through_the_uplink(world: World, flow: Flow) -> None:
    assert world.outcome("from_pod", flow.tcp()) == "pass_remote"
    packet = world.run("from_pod", flow.tcp()).packet
    assert ttl_of(packet) == 63
    assert header_is_sound(packet)


def test_packet_with_ip_options_is_delivered(world: World) -> None:
    frame = ethernet(0x0800, ipv4(A4, R4, TCP, tcp(1, 2), options=bytes([1] * 8)))
    assert world.outcome("from_pod", frame) == "pass_remote"
    assert header_is_sound(world.run("from_pod", frame).packet)


def test_a_checksum_that_runs_over_stays_right(world: World) -> None:
    # The identification takes from the checksum what it is.
    highest = int.from_bytes(ipv4(A4, R4, UDP, udp(1, 2), identification=0)[10:12])
    for wanted in [*range(0xFEF0, 0xFFFF), *range(0x10)]:
        identification = (highest - wanted) % 0xFFFF
        given, expected = (
            ipv4(A4, R4, UDP, udp(1, 2), identification=identification, ttl=ttl) for ttl in (64, 63)
        )
        assert int.from_bytes(given[10:12]) == wanted
        assert world.run("from_pod", ethernet(0x0800, given)).packet[14:] == expected


def test_without_next_hop_the_stack_decides(world: World) -> None:
    world.plane.delete_next_hops([OTHER_NODE])
    assert world.outcome("from_pod", Flow(A4, R4).tcp()) == "pass_no_next_hop"


@pytest.mark.parametrize("flow", REMOTE, ids=["v4", "v6"])
def test_too_big_for_the_uplink_is_answered_by_the_stack(world: World, flow: Flow) -> None:
    header = 28 if flow.is_ipv4 else 48
    fits = flow.udp(payload=bytes(UPLINK_MTU - header))
    assert world.outcome("from_pod", fits) == "pass_remote"
    larger = flow.udp(payload=bytes(UPLINK_MTU - header + 1))
    assert world.outcome("from_pod", larger) == "pass_too_big"


@pytest.mark.parametrize("flow", REMOTE, ids=["v4", "v6"])
def test_segments_count_not_the_train(world: World, flow: Flow) -> None:
    train = flow.tcp(payload=bytes(3000))
    fitting = UPLINK_MTU - (40 if flow.is_ipv4 else 60)
    assert world.outcome("from_pod", train, gso_size=fitting) == "pass_remote"
    assert world.outcome("from_pod", train, gso_size=fitting + 1) == "pass_too_big"


# 10. the stack


def test_own_block_is_not_behind_another_node(world: World) -> None:
    own = NextHop(node_index=NODE, ipv4=address(NODE4), ipv6=address(NODE6))
    world.plane.upsert_next_hops([own])
    assert world.outcome("from_pod", Flow(A4, "10.244.0.60").tcp()) == "pass_stack"
    world.plane.set_node_index(NODE + 7)
    assert world.outcome("from_pod", Flow(A4, "10.244.0.60").tcp()) == "pass_remote"


@pytest.mark.parametrize("dst", [W4, W6, NODE4, NODE6, OTHER4, OTHER6])
def test_world_and_nodes_are_the_stacks_business(world: World, dst: str) -> None:
    flow = Flow(A6 if ":" in dst else A4, dst)
    assert world.outcome("from_pod", flow.tcp()) == "pass_stack"
    assert ttl_of(world.run("from_pod", flow.tcp()).packet) == 64


@pytest.mark.parametrize(
    ("dst", "peer"), [(NODE4, 7), (OTHER6, 7), (W4, 2), (S4, 3), (R6, R_ID), (B4, B_ID)]
)
def test_egress_peer_is_whom_the_map_names(world: World, dst: str, peer: int) -> None:
    world.policy(9, PolicyEntry(peer=peer))
    world.subject(A_ID, egress=9)
    flow = Flow(A6 if ":" in dst else A4, dst)
    assert world.outcome("from_pod", flow.tcp()).startswith("pass_")
    world.policy(10, PolicyEntry(peer=peer + 1))
    world.subject(A_ID, egress=10, epoch=2)
    assert world.outcome("from_pod", flow.tcp()) == "drop_egress_policy"


@pytest.mark.parametrize("node", [NODE4, NODE6])
def test_own_node_is_host_before_it_is_registered(world: World, node: str) -> None:
    world.plane.delete_mappings([bytes(10) + b"\xff\xff" + bytes([198, 19, 0, 1])])
    world.policy(9, PolicyEntry(peer=1 if node == NODE4 else 7))
    world.subject(A_ID, egress=9)
    assert world.outcome("from_pod", Flow(A4 if node == NODE4 else A6, node).tcp()) == "pass_stack"


@FAMILIES
def test_established_segments_pass_without_a_syn_only_by_policy(
    world: World, a: str, b: str, r: str
) -> None:
    world.subject(B_ID, ingress=9)
    assert world.outcome("from_pod", Flow(a, b).tcp(ACK)) == "drop_ingress_policy"
    assert world.outcome("from_pod", Flow(a, r).tcp(ACK)) == "pass_remote"
    assert world.connections() == 0
    assert world.outcome("from_pod", Flow(a, r).tcp(SYN)) == "pass_remote"
    assert world.connections() == 1

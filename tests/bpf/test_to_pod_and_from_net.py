"""to_pod and from_net: the rules of their decision lists that other stories do not tell."""

import pytest

from nodeagent.dataplane.port import PolicyEntry
from tests.bpf.conftest import (
    A4,
    A6,
    A_ID,
    B4,
    B6,
    B_MACS,
    LINK_A,
    NODE4,
    NODE6,
    OTHER4,
    OTHER6,
    R4,
    R6,
    R_ID,
    S4,
    S6,
    W4,
    W6,
    World,
)  # fmt: skip
from tests.bpf.packets import (
    ICMPV6,
    TCP,
    Flow,
    ethernet,
    header_is_sound,
    icmp,
    ipv4,
    ipv6,
    mapped,
    tcp,
    ttl_of,
)  # fmt: skip

IN = [Flow(R4, A4), Flow(R6, A6)]
FAMILIES = pytest.mark.parametrize("flow", IN, ids=["v4", "v6"])
FORWARDED = {"ingress_ifindex": 1}
PEERS = pytest.mark.parametrize(
    ("src", "peer"), [(R4, R_ID), (S4, 3), (W6, 2), (OTHER4, 7), (OTHER6, 7), (S6, 3), (W4, 2)]
)


# to_pod


def test_neighbours_reach_a_closed_pod(world: World) -> None:
    world.plane.delete_local_endpoints([LINK_A])
    assert world.outcome("to_pod", ethernet(0x0806, bytes(28)), **FORWARDED) == "pass_neighbour"
    advertisement = ipv6("fe80::1", "ff02::1", ICMPV6, icmp(136, 0, bytes(16)), ttl=255)
    assert world.outcome("to_pod", ethernet(0x86DD, advertisement)) == "pass_neighbour"


def test_to_pod_drops_what_it_cannot_judge(world: World) -> None:
    torn = ethernet(0x0800, ipv4(W4, A4, TCP, tcp(1, 2)[:8]))
    assert world.outcome("to_pod", torn) == "drop_malformed"
    assert world.outcome("to_pod", ethernet(0x88CC, bytes(40))) == "drop_unsupported"
    world.plane.delete_local_endpoints([LINK_A])
    assert world.outcome("to_pod", Flow(W4, A4).tcp()) == "drop_no_endpoint"


@FAMILIES
def test_what_the_stack_forwards_is_judged(world: World, flow: Flow) -> None:
    assert world.outcome("to_pod", flow.tcp(), **FORWARDED) == "pass_to_pod"
    assert ttl_of(world.run("to_pod", flow.tcp(), **FORWARDED).packet) == 64
    world.subject(A_ID, ingress=9, epoch=2)
    assert world.outcome("to_pod", flow.tcp(), **FORWARDED) == "drop_ingress_policy"
    world.endpoint(LINK_A, 0, A4, A6)
    assert world.outcome("to_pod", flow.tcp(), **FORWARDED) == "drop_closed"


@PEERS
def test_ingress_peer_is_whom_the_map_names(world: World, src: str, peer: int) -> None:
    flow = Flow(src, A6 if ":" in src else A4)
    world.policy(9, PolicyEntry(peer=peer))
    world.policy(10, PolicyEntry(peer=peer + 1))
    for program, passed in (("from_net", "pass_local"), ("to_pod", "pass_to_pod")):
        world.subject(A_ID, ingress=9)
        assert world.outcome(program, flow.tcp(), **FORWARDED) == passed
        world.subject(A_ID, ingress=10, epoch=2)
        assert world.outcome(program, flow.tcp(), **FORWARDED) == "drop_ingress_policy"


# from_net


@pytest.mark.parametrize(
    "flow",
    [Flow(R4, NODE4), Flow(R6, NODE6), Flow(W4, "10.244.0.60"), Flow(W6, "ff02::1")],
    ids=lambda flow: flow.dst,
)
def test_what_is_for_no_pod_goes_to_the_stack(world: World, flow: Flow) -> None:
    assert world.outcome("from_net", flow.tcp()) == "pass_not_for_pod"
    assert world.run("from_net", flow.tcp()).packet == flow.tcp()


def test_uplinks_neighbours_are_the_stacks_business(world: World) -> None:
    assert world.outcome("from_net", ethernet(0x0806, bytes(28))) == "pass_neighbour"
    solicitation = ipv6(OTHER6, "ff02::1:ff00:1", ICMPV6, icmp(135, 0, bytes(16)), ttl=255)
    assert world.outcome("from_net", ethernet(0x86DD, solicitation)) == "pass_neighbour"
    assert world.outcome("from_net", ethernet(0x88CC, bytes(40))) == "pass_not_for_pod"


@FAMILIES
def test_pod_gets_what_the_net_sends(world: World, flow: Flow) -> None:
    for frame in (flow.tcp(), flow.udp(), flow.sctp(), flow.echo()):
        assert world.outcome("from_net", frame) == "pass_local"
        packet = world.run("from_net", frame).packet
        assert (packet[:12], ttl_of(packet)) == (B_MACS, 63)
        assert header_is_sound(packet)
    assert world.outcome("from_net", flow.udp(ttl=1)) == "pass_ttl_expired"


def test_torn_packet_for_a_pod_is_malformed(world: World) -> None:
    assert (
        world.outcome("from_net", ethernet(0x0800, ipv4(R4, A4, TCP, b"\0" * 8)))
        == "drop_malformed"
    )
    assert (
        world.outcome("from_net", ethernet(0x0800, ipv4(R4, A4, ICMPV6, icmp(128))))
        == "drop_unsupported"
    )


@pytest.mark.parametrize("src", [B4, B6, NODE4, NODE6, "10.244.0.44", "fd00:10:244::44"])
def test_nobody_outside_has_an_address_of_this_node(world: World, src: str) -> None:
    flow = Flow(src, A6 if ":" in src else A4)
    assert world.outcome("from_net", flow.udp()) == "drop_spoofed"


def test_own_address_is_known_before_registration(world: World) -> None:
    world.plane.set_node_index(0)
    world.plane.delete_mappings([mapped(NODE4)])
    assert world.outcome("from_net", Flow(NODE4, A4).udp()) == "drop_spoofed"
    # Which blocks are this node's is not known yet.
    assert world.outcome("from_net", Flow("10.244.0.44", A4).udp()) == "pass_local"


@FAMILIES
def test_pod_that_is_closed_or_isolated_gets_nothing(world: World, flow: Flow) -> None:
    world.subject(A_ID, ingress=9)
    assert world.outcome("from_net", flow.tcp()) == "drop_ingress_policy"
    world.endpoint(LINK_A, 0, A4, A6)
    assert world.outcome("from_net", flow.tcp()) == "drop_closed"
    (denial,) = [d for d in world.plane.denials() if d.subject_identity == 0]
    assert (denial.peer_identity, denial.ingress, denial.port) == (R_ID, True, 80)

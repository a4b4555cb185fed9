"""What is not a whole packet with plain headers: ICMP errors, fragments, extension headers."""

import pytest

from nodeagent.dataplane.port import PolicyEntry
from tests.bpf.conftest import (
    A4,
    A6,
    A_ID,
    B4,
    B6,
    B_ID,
    NODE4,
    R4,
    R6,
    R_ID,
    W4,
    W6,
    World,
)  # fmt: skip
from tests.bpf.packets import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    NO_NEXT,
    ROUTING,
    TCP,
    UDP,
    Flow,
    ethernet,
    extension,
    fragment_header,
    icmp,
    ipv4,
    ipv6,
    tcp,
    udp,
)  # fmt: skip

OUT = [Flow(A4, R4), Flow(A6, R6)]
FAMILIES = pytest.mark.parametrize("out", OUT, ids=["v4", "v6"])
EMPTY = 9


# ICMP errors


@FAMILIES
def test_icmp_error_about_a_connection_shares_its_fate(world: World, out: Flow) -> None:
    world.subject(A_ID, ingress=EMPTY)
    router = Flow(W4 if out.is_ipv4 else W6, out.src)
    error = router.icmp_error(out.tcp()[14:])
    assert world.outcome("from_net", error) == "drop_ingress_policy"
    world.run("from_pod", out.tcp())
    assert world.outcome("from_net", error) == "pass_local"
    assert world.connections() == 1
    about_another = router.icmp_error(Flow(out.src, out.dst, 40001).tcp()[14:])
    assert world.outcome("from_net", about_another) == "drop_ingress_policy"
    world.subject(A_ID, ingress=EMPTY, egress=EMPTY, epoch=2)
    assert world.outcome("from_net", error) == "drop_ingress_policy"


@FAMILIES
def test_router_that_sends_an_icmp_error_is_not_the_peer(world: World, out: Flow) -> None:
    """The policy allows the pod at the other end, not the router between."""
    world.policy(10, PolicyEntry(peer=R_ID))
    world.subject(A_ID, ingress=EMPTY, egress=10)
    world.run("from_pod", out.tcp())
    router = Flow(W4 if out.is_ipv4 else W6, out.src)
    assert world.outcome("from_net", router.icmp_error(out.tcp()[14:])) == "pass_local"
    assert world.entry()[1].peer == R_ID


@FAMILIES
def test_pods_icmp_error_about_what_it_received(world: World, out: Flow) -> None:
    world.subject(A_ID, egress=EMPTY)
    incoming = out.reversed()
    error = out.icmp_error(incoming.udp()[14:])
    assert world.outcome("from_pod", error) == "drop_egress_policy"
    world.run("from_net", incoming.udp())
    assert world.outcome("from_pod", error) == "pass_remote"


@FAMILIES
def test_icmp_error_about_an_echo(world: World, out: Flow) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.echo(7))
    back = out.reversed()
    assert world.outcome("from_net", back.icmp_error(out.echo(7)[14:])) == "pass_local"
    assert world.outcome("from_net", back.icmp_error(out.echo(8)[14:])) == "drop_ingress_policy"


@FAMILIES
def test_icmp_error_must_go_to_whom_it_quotes(world: World, out: Flow) -> None:
    """Else pod A's connection would let through errors for pod B."""
    world.subject(B_ID, ingress=EMPTY)
    world.run("from_pod", out.tcp())
    stranger = Flow(out.dst, B4 if out.is_ipv4 else B6)
    assert world.outcome("from_net", stranger.icmp_error(out.tcp()[14:])) == "drop_ingress_policy"


@FAMILIES
def test_icmp_error_without_connection_is_judged_as_icmp(world: World, out: Flow) -> None:
    error = out.reversed().icmp_error(out.tcp()[14:])
    world.policy(10, PolicyEntry(peer=R_ID, protocol=TCP))
    world.subject(A_ID, ingress=10)
    assert world.outcome("from_net", error) == "drop_ingress_policy"
    world.policy(11, PolicyEntry(peer=R_ID))
    world.subject(A_ID, ingress=11, epoch=2)
    assert world.outcome("from_net", error) == "pass_local"
    assert world.connections() == 0


def test_torn_quote_is_an_ordinary_icmp_packet(world: World) -> None:
    world.subject(A_ID, ingress=EMPTY)
    out = OUT[0]
    world.run("from_pod", out.tcp())
    short = ethernet(0x0800, ipv4(R4, A4, ICMP, icmp(3, 0, out.tcp()[14:38])))
    assert world.outcome("from_net", short) == "drop_ingress_policy"


# fragments


def v4_pieces(src: str, dst: str, protocol: int = UDP, identification: int = 7) -> list[bytes]:
    whole = udp(40000, 80, bytes(40))
    return [
        ethernet(
            0x0800,
            ipv4(src, dst, protocol, part, identification=identification, fragment=flags),
        )
        for part, flags in ((whole[:24], 0x2000), (whole[24:], 3))
    ]


def v6_pieces(src: str, dst: str, identification: int = 7) -> list[bytes]:
    whole = udp(40000, 80, bytes(40))
    pieces = [(whole[:24], 0, True), (whole[24:], 3, False)]
    return [
        ethernet(
            0x86DD,
            ipv6(src, dst, FRAGMENT,
                 fragment_header(UDP, offset, identification, more=more) + part),
        )
        for part, offset, more in pieces
    ]  # fmt: skip


@pytest.mark.parametrize("pieces", [v4_pieces(A4, R4), v6_pieces(A6, R6)], ids=["v4", "v6"])
def test_fragments_share_the_ports_of_the_first(world: World, pieces: list[bytes]) -> None:
    first, second = pieces
    world.policy(10, PolicyEntry(peer=R_ID, protocol=UDP, port=80, port_bits=16))
    world.subject(A_ID, egress=10)
    assert world.outcome("from_pod", second) == "drop_fragment"
    assert world.outcome("from_pod", first) == "pass_remote"
    assert world.outcome("from_pod", second) == "pass_remote"
    world.subject(A_ID, egress=EMPTY, epoch=2)
    assert world.outcome("from_pod", second) == "drop_egress_policy"


def test_fragments_of_another_datagram_do_not_help(world: World) -> None:
    world.run("from_pod", v4_pieces(A4, R4)[0])
    assert world.outcome("from_pod", v4_pieces(A4, R4, identification=8)[1]) == "drop_fragment"
    assert world.outcome("from_pod", v4_pieces(A4, R4, protocol=TCP)[1]) == "drop_fragment"
    assert world.outcome("from_pod", v4_pieces(A4, B4)[1]) == "drop_fragment"


def test_forged_fragment_leaves_no_ports(world: World) -> None:
    assert world.outcome("from_pod", v4_pieces(B4, R4)[0]) == "drop_spoofed"
    assert list(world.plane._maps["fragments"].entries()) == []


@pytest.mark.parametrize("pieces", [v4_pieces(R4, A4), v6_pieces(R6, A6)], ids=["v4", "v6"])
def test_fragments_arrive(world: World, pieces: list[bytes]) -> None:
    assert world.outcome("from_net", pieces[1]) == "drop_fragment"
    assert [world.outcome("from_net", piece) for piece in pieces] == ["pass_local"] * 2
    assert world.outcome("to_pod", pieces[1], ingress_ifindex=1) == "pass_to_pod"


def test_hosts_own_fragments_pass(world: World) -> None:
    assert world.outcome("to_pod", v4_pieces(NODE4, A4)[1]) == "pass_from_host"
    assert world.outcome("to_pod", v4_pieces(W4, A4)[1], ingress_ifindex=1) == "drop_fragment"


def test_atomic_fragment_is_a_whole_packet(world: World) -> None:
    whole = fragment_header(TCP, 0, 1, more=False) + tcp(40000, 80)
    assert (
        world.outcome("from_pod", ethernet(0x86DD, ipv6(A6, R6, FRAGMENT, whole))) == "pass_remote"
    )
    assert list(world.plane._maps["fragments"].entries()) == []


# extension headers


@pytest.mark.parametrize("kind", [HOP_BY_HOP, DESTINATION])
@pytest.mark.parametrize("size", [6, 22])
def test_ports_are_found_behind_extension_headers(world: World, kind: int, size: int) -> None:
    world.policy(10, PolicyEntry(peer=R_ID, protocol=TCP, port=80, port_bits=16))
    world.subject(A_ID, egress=10)
    for port, expected in ((80, "pass_remote"), (81, "drop_egress_policy")):
        body = extension(DESTINATION, b"\x01" * size) + extension(TCP) + tcp(40000, port)
        frame = ethernet(0x86DD, ipv6(A6, R6, kind, body))
        assert world.outcome("from_pod", frame) == expected


def test_authentication_header_counts_in_words(world: World) -> None:
    world.policy(10, PolicyEntry(peer=R_ID, protocol=TCP, port=80, port_bits=16))
    world.subject(A_ID, egress=10)
    header = bytes([TCP, 4]) + b"\x01" * 22
    frame = ethernet(0x86DD, ipv6(A6, R6, AUTHENTICATION, header + tcp(40000, 80)))
    assert world.outcome("from_pod", frame) == "pass_remote"


@pytest.mark.parametrize(("count", "expected"), [(6, "pass_remote"), (7, "drop_malformed")])
def test_endless_extension_headers_are_malformed(world: World, count: int, expected: str) -> None:
    body = extension(DESTINATION) * (count - 1) + extension(TCP) + tcp(1, 2)
    assert world.outcome("from_pod", ethernet(0x86DD, ipv6(A6, R6, DESTINATION, body))) == expected


def test_torn_extension_header_is_malformed(world: World) -> None:
    frame = ethernet(0x86DD, ipv6(A6, R6, DESTINATION, extension(TCP)[:4]))
    assert world.outcome("from_pod", frame) == "drop_malformed"


@pytest.mark.parametrize(("left", "expected"), [(0, "pass_remote"), (1, "drop_unsupported")])
def test_routing_header_may_name_no_other_destination(
    world: World, left: int, expected: str
) -> None:
    body = extension(TCP, bytes([0, left]) + bytes(20)) + tcp(1, 2)
    assert world.outcome("from_pod", ethernet(0x86DD, ipv6(A6, R6, ROUTING, body))) == expected


def test_packet_without_payload_is_judged_by_its_protocol(world: World) -> None:
    frame = ethernet(0x86DD, ipv6(A6, R6, NO_NEXT, b""))
    world.policy(10, PolicyEntry(peer=R_ID))
    world.subject(A_ID, egress=10)
    assert world.outcome("from_pod", frame) == "pass_remote"
    world.policy(11, PolicyEntry(peer=R_ID, protocol=TCP))
    world.subject(A_ID, egress=11, epoch=2)
    assert world.outcome("from_pod", frame) == "drop_egress_policy"

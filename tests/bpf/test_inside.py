"""Services that pods ask for, packet by packet: from_pod there, from_net and to_pod back.

Every checksum of what comes out is compared with one computed from scratch.
"""

import struct

import pytest

from nodeagent.dataplane import abi
from nodeagent.dataplane.port import PolicyEntry
from tests.bpf.conftest import A_ID, R_ID, World
from tests.bpf.packets import (
    ACK,
    FIN,
    FRAGMENT,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    Flow,
    ethernet,
    fragment_header,
    header_is_sound,
    icmp,
    ipv4,
    ipv6,
    sctp,
    tcp,
    udp,
)
from tests.bpf.services import (
    ANYBODY,
    CLIENT_PORT,
    INSIDE,
    NODE_PORT,
    PORT,
    TARGET,
    V4,
    V6,
    Family,
    Services,
    backend,
    flow,
)
from tests.bpf.sums import is_right, read, read_packet, summed, summed_packet

FAMILIES = pytest.mark.parametrize("f", [V4, V6], ids=["v4", "v6"])
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture
def services(world: World) -> Services:
    return Services(world.plane)


def packet(way: Flow, protocol: int, payload: bytes = b"data!", flags: int = SYN) -> bytes:
    l4 = tcp(way.sport, way.dport, flags, payload)
    if protocol == UDP:
        l4 = udp(way.sport, way.dport, payload)
    return summed(way.frame(protocol, l4))


def reply(way: Flow, protocol: int, flags: int = SYN | ACK) -> bytes:
    return packet(way.reversed(), protocol, b"answer", flags)


@PROTOCOLS
@FAMILIES
def test_a_service_leads_to_a_backend_and_the_reply_comes_from_the_service(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    services.put(f.cluster, protocol, backend(f.r))
    outcome, there = world.sent("from_pod", packet(flow(f.a, f.cluster), protocol))
    assert outcome == "pass_remote"
    assert is_right(there)
    seen = read(there)
    assert (seen.src, seen.dst, seen.sport, seen.dport) == (f.a, f.r, CLIENT_PORT, TARGET)
    way = flow(f.a, f.r, dport=TARGET)
    for program, outcome in (("from_net", "pass_local"), ("to_pod", "pass_to_pod")):
        context = {"ingress_ifindex": 1} if program == "to_pod" else {}
        got, back = world.sent(program, reply(way, protocol), **context)
        assert got == outcome
        assert is_right(back)
        seen = read(back)
        assert (seen.src, seen.dst, seen.sport, seen.dport) == (f.cluster, f.a, PORT, CLIENT_PORT)


@FAMILIES
def test_what_a_pod_says_to_a_backend_itself_is_left_alone(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, TCP, backend(f.r))
    way = flow(f.a, f.r, dport=TARGET)
    _, there = world.sent("from_pod", packet(way, TCP))
    assert read(there).dport == TARGET
    _, back = world.sent("from_net", reply(way, TCP))
    assert read(back).src == f.r
    assert services.legs() == 0


@FAMILIES
def test_a_service_for_some_sources_only(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, TCP, backend(f.r), check_source=True)
    frame = packet(flow(f.a, f.cluster), TCP)
    assert world.outcome("from_pod", frame) == "drop_source_range"
    services.allow_source(f.a, 128)
    assert world.sent("from_pod", frame)[0] == "pass_remote"


@FAMILIES
def test_udp_without_a_checksum_stays_without(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, UDP, backend(f.r))
    _, there = world.sent("from_pod", flow(f.a, f.cluster).udp(payload=b"data"))
    assert read(there).l4[6:8] == bytes(2)
    assert read(there).dst == f.r
    assert header_is_sound(there)


@FAMILIES
def test_a_checksum_that_comes_out_as_zero_is_written_as_ones(
    world: World, services: Services, f: Family
) -> None:
    """Ports and payload are chosen so that the new sum is zero; for UDP that would mean none."""
    services.put(f.cluster, UDP, backend(f.r))
    target = flow(f.a, f.r, dport=TARGET)
    (value,) = struct.unpack(">H", read(packet(target, UDP, bytes(2))).l4[6:8])
    _, there = world.sent("from_pod", packet(flow(f.a, f.cluster), UDP, struct.pack(">H", value)))
    assert read(there).l4[6:8] == b"\xff\xff"
    assert is_right(there)


@FAMILIES
def test_a_connection_stays_and_the_next_one_may_go_elsewhere(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, TCP, backend(f.r))
    way = flow(f.a, f.cluster)
    world.outcome("from_pod", packet(way, TCP))
    services.put(f.cluster, TCP, backend(f.s))
    for flags in (SYN, ACK, ACK | FIN):
        _, there = world.sent("from_pod", packet(way, TCP, flags=flags))
        assert read(there).dst == f.r
    world.outcome("from_net", reply(flow(f.a, f.r, dport=TARGET), TCP, ACK | FIN))
    _, there = world.sent("from_pod", packet(way, TCP, flags=ACK))
    assert read(there).dst == f.r, "the last ACK"
    _, there = world.sent("from_pod", packet(way, TCP))
    assert read(there).dst == f.s


@FAMILIES
def test_a_connection_without_entry_finds_a_backend(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, TCP, backend(f.r))
    _, there = world.sent("from_pod", packet(flow(f.a, f.cluster), TCP, flags=ACK))
    assert read(there).dst == f.r


@FAMILIES
def test_udp_leaves_a_backend_that_is_none_any_more(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, UDP, backend(f.r))
    way = flow(f.a, f.cluster)
    assert read(world.sent("from_pod", packet(way, UDP))[1]).dst == f.r
    services.put(f.cluster, UDP, backend(f.s))
    assert read(world.sent("from_pod", packet(way, UDP))[1]).dst == f.r, "still a member"
    services.forget_member(INSIDE, backend(f.r))
    assert read(world.sent("from_pod", packet(way, UDP))[1]).dst == f.s
    assert services.legs() == 2


@FAMILIES
def test_affinity_brings_a_client_back(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, TCP, *(backend(f.r, 1000 + i) for i in range(16)), affinity=60)
    ports = {
        read(world.sent("from_pod", packet(flow(f.a, f.cluster, sport=sport), TCP))[1]).dport
        for sport in range(40000, 40016)
    }
    assert len(ports) == 1


@FAMILIES
def test_nobody_answers(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, TCP)
    assert world.told("from_pod", packet(flow(f.a, f.cluster), TCP))[0] == "drop_no_backend"


@FAMILIES
@pytest.mark.parametrize("whose", ["node", "other"])
def test_the_port_of_every_node(world: World, services: Services, f: Family, whose: str) -> None:
    services.put(f.every_node, TCP, backend(f.r), port=NODE_PORT)
    asked = getattr(f, whose)
    outcome, there = world.sent("from_pod", packet(flow(f.a, asked, dport=NODE_PORT), TCP))
    assert (outcome, read(there).dst) == ("pass_remote", f.r)
    _, back = world.sent("from_net", reply(flow(f.a, f.r, dport=TARGET), TCP))
    assert (read(back).src, read(back).sport) == (asked, NODE_PORT)
    _, there = world.sent("from_pod", packet(flow(f.a, f.world, dport=NODE_PORT), TCP))
    assert read(there).dst == f.world, "no node"


@FAMILIES
def test_policy_judges_the_backend(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, TCP, backend(f.r))
    world.subject(A_ID, egress=9)
    world.policy(9, PolicyEntry(peer=R_ID, protocol=TCP, port=PORT, port_bits=16))
    assert world.outcome("from_pod", packet(flow(f.a, f.cluster), TCP)) == "drop_egress_policy"
    world.policy(9, PolicyEntry(peer=R_ID, protocol=TCP, port=TARGET, port_bits=16))
    assert world.outcome("from_pod", packet(flow(f.a, f.cluster), TCP)) == "pass_remote"


@FAMILIES
def test_a_pod_reaches_itself_and_sees_the_service(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, TCP, backend(f.a))
    world.subject(A_ID, egress=9, ingress=9)
    outcome, there = world.sent("from_pod", packet(flow(f.a, f.cluster), TCP))
    seen = read(there)
    assert (outcome, is_right(there)) == ("pass_local", True)
    assert (seen.src, seen.dst, seen.sport, seen.dport) == (f.cluster, f.a, CLIENT_PORT, TARGET)
    answer = flow(f.a, f.cluster, sport=TARGET, dport=CLIENT_PORT)
    outcome, back = world.sent("from_pod", packet(answer, TCP, flags=SYN | ACK))
    seen = read(back)
    assert (outcome, is_right(back)) == ("pass_local", True)
    assert (seen.src, seen.dst, seen.sport, seen.dport) == (f.cluster, f.a, PORT, CLIENT_PORT)


@FAMILIES
def test_two_services_with_one_backend_cannot_share_a_port(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, TCP, backend(f.r))
    services.put(f.cluster, TCP, backend(f.r), port=81, list_id=INSIDE + 1)
    assert world.outcome("from_pod", packet(flow(f.a, f.cluster), TCP)) == "pass_remote"
    second = packet(flow(f.a, f.cluster, dport=81), TCP)
    assert world.outcome("from_pod", second) == "drop_no_port"
    other = packet(flow(f.a, f.cluster, sport=40001, dport=81), TCP)
    assert world.outcome("from_pod", other) == "pass_remote"
    world.outcome("from_net", reply(flow(f.a, f.r, dport=TARGET), TCP, RST))
    assert world.outcome("from_pod", second) == "pass_remote", "the first one has ended"


@FAMILIES
@pytest.mark.parametrize("protocol", [UDP, SCTP])
def test_a_flow_leaves_a_backend_that_is_forgotten(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    asked = packet(flow(f.a, f.cluster), protocol)
    services.put(f.cluster, protocol, backend(f.r))
    world.sent("from_pod", asked)
    services.put(f.cluster, protocol, backend(f.s))
    assert read(world.sent("from_pod", asked)[1]).dst == f.r, "it may still be kept"
    assert services.plane.forget_backends([(TCP, backend(f.r)), (protocol, backend(f.s))]) == 0
    assert services.plane.forget_backends([(protocol, backend(f.r))]) == 1
    assert read(world.sent("from_pod", asked)[1]).dst == f.s


@FAMILIES
@pytest.mark.parametrize("size", [0, 1, 3, 240, 1400])
def test_sctp_gets_a_new_checksum(world: World, services: Services, f: Family, size: int) -> None:
    services.put(f.cluster, SCTP, backend(f.r))
    asked = flow(f.a, f.cluster)
    content = (bytes(range(256)) * 8)[:size]
    # What fills up a short frame is no part of the packet.
    message = sctp(asked.sport, asked.dport) + content
    frame = summed(asked.frame(SCTP, message)) + b"filling up"
    outcome, there = world.sent("from_pod", frame)
    there = there[: -len(b"filling up")]
    assert (outcome, read(there).dst, read(there).dport) == ("pass_remote", f.r, TARGET)
    assert is_right(there)
    message = sctp(TARGET, asked.sport) + content
    _, back = world.sent("from_net", summed(flow(f.r, f.a).frame(SCTP, message)))
    assert (read(back).src, read(back).sport, is_right(back)) == (f.cluster, PORT, True)


@FAMILIES
def test_a_fragment_of_sctp_gets_no_new_checksum(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, SCTP, backend(f.r))
    first, _ = fragments(f, f.a, f.cluster, SCTP)
    assert world.outcome("from_pod", first) == "drop_rewrite_failed"


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("by_router", [False, True])
def test_an_error_is_about_what_the_pod_has_sent(
    world: World, services: Services, f: Family, protocol: int, by_router: bool
) -> None:
    services.put(f.cluster, protocol, backend(f.r))
    _, there = world.sent("from_pod", packet(flow(f.a, f.cluster), protocol))
    source = f.router if by_router else f.r
    error = icmp(3 if f is V4 else 1, 0, there[14:][:60], code=1)
    frame = summed(flow(source, f.a).frame(f.icmp, error))
    outcome, back = world.sent("from_net", frame)
    assert (outcome, is_right(back)) == ("pass_local", True)
    assert read(back).src == (source if by_router else f.cluster)
    quoted = read_packet(read(back).l4[8:])
    assert (quoted.src, quoted.dst, quoted.sport, quoted.dport) == (
        f.a, f.cluster, CLIENT_PORT, PORT,
    )  # fmt: skip


@FAMILIES
def test_the_pods_own_error_reaches_the_backend(
    world: World, services: Services, f: Family
) -> None:
    services.put(f.cluster, UDP, backend(f.r))
    world.outcome("from_pod", packet(flow(f.a, f.cluster), UDP))
    _, back = world.sent("from_net", reply(flow(f.a, f.r, dport=TARGET), UDP))
    error = icmp(3 if f is V4 else 1, 0, back[14:][:60], code=3)
    outcome, there = world.sent("from_pod", summed(flow(f.a, f.cluster).frame(f.icmp, error)))
    assert (outcome, is_right(there), read(there).dst) == ("pass_remote", True, f.r)
    quoted = read_packet(read(there).l4[8:])
    assert (quoted.src, quoted.dst, quoted.sport, quoted.dport) == (
        f.r, f.a, TARGET, CLIENT_PORT,
    )  # fmt: skip


def fragments(f: Family, src: str, dst: str, protocol: int = UDP) -> list[bytes]:
    """A datagram, 48 bytes if of UDP, in two pieces, with the checksum of the whole."""
    way, kind = flow(src, dst), protocol
    content = bytes(range(40))
    if protocol == SCTP:
        message = sctp(way.sport, way.dport) + content
    else:
        message = udp(way.sport, way.dport, content)
    l4 = summed_packet(way.ip(kind, message))[20 if f is V4 else 40 :]
    if f is V4:
        return [
            ethernet(0x0800, ipv4(src, dst, kind, l4[:24], identification=7, fragment=0x2000)),
            ethernet(0x0800, ipv4(src, dst, kind, l4[24:], identification=7, fragment=3)),
        ]
    heads = fragment_header(kind, 0, 7, more=True), fragment_header(kind, 3, 7, more=False)
    return [
        ethernet(0x86DD, ipv6(src, dst, FRAGMENT, heads[0] + l4[:24])),
        ethernet(0x86DD, ipv6(src, dst, FRAGMENT, heads[1] + l4[24:])),
    ]


@FAMILIES
def test_fragments_arrive_as_one_datagram(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, UDP, backend(f.r))
    pieces = []
    for frame in fragments(f, f.a, f.cluster):
        outcome, there = world.sent("from_pod", frame)
        assert (outcome, header_is_sound(there)) == ("pass_remote", True)
        pieces.append(there[34:] if f is V4 else there[62:])
    whole = ethernet(0x0800 if f is V4 else 0x86DD, flow(f.a, f.r).ip(UDP, b"".join(pieces)))
    assert is_right(whole)
    assert read(whole).dport == TARGET


def test_the_number_of_the_service_is_remembered(world: World, services: Services) -> None:
    """Both legs name it: `deltaplane service trace` shows it."""
    services.put(V4.cluster, TCP, backend(V4.r))
    world.outcome("from_pod", packet(flow(V4.a, V4.cluster), TCP))
    values = [abi.Translation.unpack(v) for _, v in world.plane._maps["translations"].entries()]
    assert [value.service for value in values] == [ANYBODY, ANYBODY]

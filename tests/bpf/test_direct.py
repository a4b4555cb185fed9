"""What an entry node hands over to the node of the backend, and to whom it does not."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from nodeagent.dataplane import abi
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from tests.bpf.conftest import NODE4, NODE6, SMALL, UPLINK, UPLINK_MTU, World
from tests.bpf.packets import ACK, DESTINATION, FIN, SCTP, TCP, UDP, address, icmp, ttl_of
from tests.bpf.services import OUTSIDE, PORT, TARGET, V4, Family, Services, backend, flow
from tests.bpf.sums import is_right, read, summed
from tests.bpf.test_inside import FAMILIES, PROTOCOLS, fragments, packet, reply
from tests.bpf.test_outside import asks, put

DIRECT = 9
"""Index of the link."""


@pytest.fixture(scope="module")
def direct_plane(private_bpffs: Path) -> Iterator[KernelDataPlane]:
    config = DataPlaneConfig(
        uplink_ifindex=UPLINK,
        uplink_mtu=UPLINK_MTU,
        node_ipv4=address(NODE4),
        node_ipv6=address(NODE6),
        direct_ifindex=DIRECT,
        hands_over=True,
    )
    plane = KernelDataPlane(private_bpffs / "direct", config=config, capacities=SMALL)
    yield plane
    plane.close()


@pytest.fixture
def world(direct_plane: KernelDataPlane) -> World:
    world = World(direct_plane)
    world.reset()
    world.populate()
    return world


@pytest.fixture
def services(world: World) -> Services:
    return Services(world.plane)


def named(frame: bytes) -> tuple[str, int, bytes]:
    """The backend that a frame names, and the frame without the name."""
    if frame[12:14] == b"\x08\x00":
        to, raw, source, port = struct.unpack(">2s4s4sH", frame[:12])
        assert (to, source) == (b"\x02\0", b"\x02\0\0\0")
        return str(ip_address(raw)), port, frame
    following, length, option, size, port, raw = struct.unpack(">BBBB2xH16s", frame[54:78])
    assert (frame[20], length, option, size) == (DESTINATION, 2, 0x1E, 20)
    behind = struct.unpack(">H", frame[18:20])[0] - 24
    bare = frame[:18] + struct.pack(">HB", behind, following) + frame[21:54] + frame[78:]
    return str(ip_address(raw)), port, bare


@PROTOCOLS
@FAMILIES
def test_what_is_handed_over_is_what_came(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    put(services, f, protocol, f.r)
    frame = packet(asks(f), protocol)
    outcome, there = world.sent("from_net", frame)
    to, port, bare = named(there)
    assert (outcome, to, port, ttl_of(bare)) == ("pass_remote", f.r, TARGET, 63)
    assert is_right(bare)
    seen = read(bare)
    assert (seen.src, seen.dst, seen.l4) == (f.world, f.node, read(frame).l4)
    assert services.legs() == 1


@FAMILIES
def test_sctp_is_handed_over(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, SCTP, backend(f.r, PORT), outside=True)
    outcome, there = world.sent("from_net", summed(flow(f.world, f.cluster).sctp()))
    to, port, bare = named(there)
    assert (outcome, to, port, is_right(bare)) == ("pass_remote", f.r, PORT, True)


@FAMILIES
def test_each_fragment_names_the_backend(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, UDP, backend(f.r), outside=True)
    for frame in fragments(f, f.world, f.cluster):
        outcome, there = world.sent("from_net", frame)
        assert (outcome, named(there)[:2]) == ("pass_remote", (f.r, TARGET))


@FAMILIES
def test_a_connection_keeps_its_backend_and_a_new_one_does_not(
    world: World, services: Services, f: Family
) -> None:
    put(services, f, TCP, f.r)
    world.sent("from_net", packet(asks(f), TCP))
    put(services, f, TCP, f.s)
    for flags in (ACK, ACK | FIN, ACK):
        there = world.sent("from_net", packet(asks(f), TCP, flags=flags))[1]
        assert named(there)[0] == f.r
    there = world.sent("from_net", packet(asks(f), TCP))[1]
    assert named(there)[0] == f.s, "after the client's FIN"


@FAMILIES
def test_an_entry_outlives_a_silent_client(world: World, services: Services, f: Family) -> None:
    """Answers do not come by: that the client goes on stands for them."""
    put(services, f, TCP, f.r)
    world.sent("from_net", packet(asks(f), TCP))
    ((_, raw),) = world.plane._maps["translations"].entries()
    assert abi.Translation.unpack(raw).answered == 0
    world.sent("from_net", packet(asks(f), TCP, flags=ACK))
    ((_, raw),) = world.plane._maps["translations"].entries()
    assert abi.Translation.unpack(raw).answered == 1


@FAMILIES
def test_udp_leaves_a_backend_that_is_none(world: World, services: Services, f: Family) -> None:
    put(services, f, UDP, f.r)
    world.sent("from_net", packet(asks(f), UDP))
    put(services, f, UDP, f.s)
    assert named(world.sent("from_net", packet(asks(f), UDP))[1])[0] == f.r
    services.forget_member(10 + OUTSIDE, backend(f.r))
    assert named(world.sent("from_net", packet(asks(f), UDP))[1])[0] == f.s


@FAMILIES
def test_a_pod_of_this_node_answers_as_ever(world: World, services: Services, f: Family) -> None:
    put(services, f, TCP, f.a)
    outcome, there = world.sent("from_net", packet(asks(f), TCP))
    assert (outcome, read(there).src, read(there).dst) == ("pass_local", f.world, f.a)
    outcome, back = world.sent("from_pod", reply(flow(f.world, f.a, dport=TARGET), TCP))
    assert (outcome, read(back).src) == ("pass_outside", f.node)


@FAMILIES
def test_who_cannot_be_handed_over_sees_this_node(
    world: World, services: Services, f: Family
) -> None:
    """A node has no program on its way out, and another node is no client outside."""
    for place in (f.other, f.router):
        put(services, f, TCP, place)
        there = world.sent("from_net", packet(asks(f), TCP))[1]
        assert (read(there).src, read(there).dst) == (f.node, place)
        world.plane._maps["translations"].delete(
            [key for key, _ in world.plane._maps["translations"].entries()]
        )
    put(services, f, TCP, f.r)
    node = flow(f.other, f.node, dport=asks(f).dport)
    assert read(world.sent("from_net", packet(node, TCP))[1]).dst == f.r


@FAMILIES
def test_ranges_are_looked_at_here(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, TCP, backend(f.r), outside=True, check_source=True)
    frame = packet(flow(f.world, f.cluster), TCP)
    assert world.outcome("from_net", frame) == "drop_source_range"
    services.allow_source(f.world, 128)
    assert named(world.sent("from_net", frame)[1])[0] == f.r


@FAMILIES
def test_an_error_follows_the_flow(world: World, services: Services, f: Family) -> None:
    """The client's router tells of an answer that this node has never seen."""
    put(services, f, UDP, f.r)
    world.sent("from_net", packet(asks(f), UDP))
    answer = packet(asks(f).reversed(), UDP)
    error = icmp(3 if f is V4 else 1, 0, answer[14:][:60], code=1)
    frame = summed(flow(f.router, f.node).frame(f.icmp, error))
    outcome, there = world.sent("from_net", frame)
    to, port, bare = named(there)
    assert (outcome, to, port) == ("pass_remote", f.r, TARGET)
    assert read(bare).l4 == read(frame).l4

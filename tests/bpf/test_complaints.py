"""ICMP errors that the programs write: nobody answers, or the packet does not fit."""

import os
import struct
import time

import pytest

from nodeagent.dataplane.testrun import Action
from tests.bpf.conftest import UPLINK_MTU, World
from tests.bpf.packets import ACK, TCP, UDP, checksum
from tests.bpf.services import CLIENT_PORT, NODE_PORT, PORT, V4, Family, Services, backend, flow
from tests.bpf.sums import Seen, is_right, read, read_packet
from tests.bpf.test_inside import FAMILIES, PROTOCOLS, fragments, packet
from tests.bpf.test_outside import asks, put


@pytest.fixture
def services(world: World) -> Services:
    return Services(world.plane)


def error_of(frame: bytes, f: Family) -> tuple[int, int, int, Seen]:
    """Type, code and MTU of an ICMP error, and what it quotes."""
    seen = read(frame)
    assert seen.protocol == f.icmp
    kind, code, mtu = struct.unpack(">BBxxI", seen.l4[:8])
    return kind, code, mtu, read_packet(seen.l4[8:])


def unreachable(f: Family) -> tuple[int, int, int]:
    return (3, 3, 0) if f is V4 else (1, 4, 0)


def too_big(f: Family, mtu: int) -> tuple[int, int, int]:
    return (3, 4, mtu) if f is V4 else (2, 0, mtu)


@PROTOCOLS
@FAMILIES
def test_a_client_outside_is_told_that_nobody_answers(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    put(services, f, protocol)
    outcome, there = world.told("from_net", packet(asks(f), protocol))
    assert (outcome, is_right(there)) == ("drop_no_backend", True)
    assert (read(there).src, read(there).dst) == (f.node, f.world)
    *error, quoted = error_of(there, f)
    assert tuple(error) == unreachable(f)
    assert (quoted.src, quoted.dst, quoted.protocol) == (f.world, f.node, protocol)
    assert (quoted.sport, quoted.dport) == (CLIENT_PORT, NODE_PORT)


@PROTOCOLS
@FAMILIES
def test_a_pod_is_told_that_nobody_answers(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    services.put(f.cluster, protocol)
    outcome, there = world.told("from_pod", packet(flow(f.a, f.cluster), protocol))
    assert (outcome, is_right(there)) == ("drop_no_backend", True)
    assert (read(there).src, read(there).dst) == (f.cluster, f.a)
    *error, quoted = error_of(there, f)
    assert tuple(error) == unreachable(f)
    assert (quoted.src, quoted.dst) == (f.a, f.cluster)
    assert (quoted.sport, quoted.dport) == (CLIENT_PORT, PORT)


@FAMILIES
def test_a_node_without_backends_is_silent_while_others_have_some(
    world: World, services: Services, f: Family
) -> None:
    put(services, f, TCP, f.r, local=True)
    assert world.outcome("from_net", packet(asks(f), TCP)) == "drop_no_backend"
    put(services, f, TCP, local=True)
    assert world.told("from_net", packet(asks(f), TCP))[0] == "drop_no_backend"


@FAMILIES
def test_nothing_is_said_of_later_fragments(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, UDP, outside=True)
    first, later = fragments(f, f.world, f.cluster)
    outcome, there = world.told("from_net", first)
    if f is V4:
        assert (outcome, is_right(there)) == ("drop_no_backend", True)
    assert world.outcome("from_net", later) == "drop_no_backend"


@FAMILIES
def test_what_is_too_large_for_the_way_on(world: World, services: Services, f: Family) -> None:
    """The quoted packet is the client's own, not what it has become on this node."""
    put(services, f, UDP, f.r)
    outcome, there = world.told("from_net", packet(asks(f), UDP, bytes(UPLINK_MTU)))
    assert (outcome, is_right(there)) == ("drop_too_big", True)
    *error, quoted = error_of(there, f)
    assert tuple(error) == too_big(f, UPLINK_MTU)
    assert (quoted.src, quoted.dst, quoted.dport) == (f.world, f.node, NODE_PORT)


@FAMILIES
def test_segments_that_are_too_large(world: World, services: Services, f: Family) -> None:
    """Their checksum is finished on the way out, where it then lies: in the quoted header."""
    services.put(f.every_node, TCP, backend(f.r), port=NODE_PORT, outside=True)
    frame = packet(asks(f), TCP, bytes(3000), flags=ACK)
    outcome, there = world.told("from_net", frame, gso_size=UPLINK_MTU)
    assert outcome == "drop_too_big"
    start = 14 + 28 + 20 if f is V4 else 14 + 48 + 40
    finished = checksum(there[start:])
    there = there[: start + 16] + struct.pack(">H", finished) + there[start + 18 :]
    assert is_right(there)
    assert tuple(error_of(there, f)[:3]) == too_big(f, UPLINK_MTU)


def test_errors_are_limited(world: World, services: Services) -> None:
    put(services, V4, UDP)
    frame = packet(asks(V4), UDP)
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    deadline = time.monotonic() + 60
    try:
        while world.run("from_net", frame).action == Action.REDIRECT:
            assert time.monotonic() < deadline, "more than 1000 a second and processor"
        while world.run("from_net", frame).action != Action.REDIRECT:
            assert time.monotonic() < deadline, "none any more"
    finally:
        os.sched_setaffinity(0, processors)

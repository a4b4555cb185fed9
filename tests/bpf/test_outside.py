"""Services that clients outside ask for: from_net there; from_pod and from_net back."""

import pytest

from nodeagent.dataplane import abi
from nodeagent.dataplane.port import PolicyEntry
from tests.bpf.conftest import A_ID, World
from tests.bpf.packets import ACK, SCTP, SYN, TCP, UDP, Flow, icmp, ttl_of
from tests.bpf.services import (
    CLIENT_PORT,
    NODE_PORT,
    PORT,
    TARGET,
    V4,
    Family,
    Services,
    backend,
    flow,
)
from tests.bpf.sums import is_right, read, read_packet, summed
from tests.bpf.test_inside import FAMILIES, PROTOCOLS, fragments, packet, reply

OWN_PORTS = range(abi.FORWARD_PORT_FIRST, abi.FORWARD_PORT_LAST + 1)


@pytest.fixture
def services(world: World) -> Services:
    return Services(world.plane)


def asks(f: Family, sport: int = 40000) -> Flow:
    """From the world for the port of this node."""
    return flow(f.world, f.node, sport=sport, dport=NODE_PORT)


def put(services: Services, f: Family, protocol: int, *places: str, local: bool = False) -> None:
    """A service behind the port of every node."""
    backends = [backend(place) for place in places]
    services.put(f.every_node, protocol, *backends, port=NODE_PORT, outside=True, local=local)


@PROTOCOLS
@FAMILIES
def test_a_pod_of_this_node_sees_the_client(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    put(services, f, protocol, f.a, local=True)
    outcome, there = world.sent("from_net", packet(asks(f), protocol))
    seen = read(there)
    assert (outcome, is_right(there)) == ("pass_local", True)
    assert (seen.src, seen.dst, seen.sport, seen.dport) == (f.world, f.a, 40000, TARGET)
    answer = packet(flow(f.a, f.world, sport=TARGET, dport=40000), protocol, flags=SYN | ACK)
    outcome, back = world.sent("from_pod", answer)
    seen = read(back)
    assert (outcome, is_right(back), ttl_of(back)) == ("pass_outside", True, 63)
    assert (seen.src, seen.dst, seen.sport, seen.dport) == (f.node, f.world, NODE_PORT, 40000)


@PROTOCOLS
@FAMILIES
def test_a_backend_elsewhere_sees_this_node(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    put(services, f, protocol, f.r)
    outcome, there = world.sent("from_net", packet(asks(f), protocol))
    seen = read(there)
    assert (outcome, is_right(there), ttl_of(there)) == ("pass_remote", True, 63)
    assert (seen.src, seen.dst, seen.dport) == (f.node, f.r, TARGET)
    assert seen.sport in OWN_PORTS
    outcome, back = world.sent(
        "from_net", reply(flow(f.node, f.r, sport=seen.sport, dport=TARGET), protocol)
    )
    seen = read(back)
    assert (outcome, is_right(back), ttl_of(back)) == ("pass_outside", True, 63)
    assert (seen.src, seen.dst, seen.sport, seen.dport) == (f.node, f.world, NODE_PORT, 40000)


@FAMILIES
def test_flows_are_told_apart_by_ports_and_keep_them(
    world: World, services: Services, f: Family
) -> None:
    put(services, f, TCP, f.r)
    ports = {}
    for sport in range(40000, 40200):
        ports[sport] = read(world.sent("from_net", packet(asks(f, sport), TCP))[1]).sport
    assert len(set(ports.values())) == len(ports)
    for sport, port in ports.items():
        there = world.sent("from_net", packet(asks(f, sport), TCP, flags=ACK))[1]
        assert read(there).sport == port
        back = world.sent("from_net", reply(flow(f.node, f.r, sport=port, dport=TARGET), TCP))[1]
        assert read(back).dport == sport


@FAMILIES
def test_an_address_of_a_load_balancer(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, TCP, backend(f.r), outside=True, check_source=True)
    frame = packet(flow(f.world, f.cluster), TCP)
    assert world.outcome("from_net", frame) == "drop_source_range"
    services.allow_source(f.world, 128)
    outcome, there = world.sent("from_net", frame)
    assert (outcome, read(there).src, read(there).dst) == ("pass_remote", f.node, f.r)


@FAMILIES
def test_what_outside_gets_no_backend(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, TCP, backend(f.r))
    frame = packet(flow(f.world, f.cluster), TCP)
    assert world.outcome("from_net", frame) == "pass_not_for_pod", "a cluster's own address"
    put(services, f, TCP)
    assert world.told("from_net", packet(asks(f), TCP))[0] == "drop_no_backend"
    put(services, f, TCP, f.r, local=True)
    assert world.outcome("from_net", packet(asks(f), TCP)) == "drop_no_backend", "not here"
    elsewhere = flow(f.world, f.other, dport=NODE_PORT)
    assert world.outcome("from_net", packet(elsewhere, TCP)) == "pass_not_for_pod"
    unknown = flow(f.world, f.node, dport=NODE_PORT + 1)
    assert world.outcome("from_net", packet(unknown, TCP)) == "pass_not_for_pod"
    forged = flow(f.a, f.node, dport=NODE_PORT)
    assert world.outcome("from_net", packet(forged, TCP)) == "pass_not_for_pod"
    assert services.legs() == 0


@PROTOCOLS
@FAMILIES
def test_a_port_of_this_node_alone(
    world: World, services: Services, f: Family, protocol: int
) -> None:
    """A pod's host port: a frontend of the node's own address, with that pod as its backend."""
    services.put(f.node, protocol, backend(f.a), port=NODE_PORT, outside=True)
    outcome, there = world.sent("from_net", packet(asks(f), protocol))
    seen = read(there)
    assert (outcome, seen.src, seen.dst, seen.dport) == ("pass_local", f.world, f.a, TARGET)
    answer = packet(flow(f.a, f.world, sport=TARGET, dport=40000), protocol, flags=SYN | ACK)
    outcome, back = world.sent("from_pod", answer)
    assert (outcome, read(back).src, read(back).sport) == ("pass_outside", f.node, NODE_PORT)
    itself = packet(flow(f.a, f.node, dport=NODE_PORT), protocol)
    assert world.sent("from_pod", itself)[0] == "pass_local", "a pod may ask, too"
    other = packet(flow(f.world, f.other, dport=NODE_PORT), protocol)
    assert world.outcome("from_net", other) == "pass_not_for_pod"


@FAMILIES
def test_policy_sees_the_client(world: World, services: Services, f: Family) -> None:
    put(services, f, TCP, f.a)
    world.subject(A_ID, ingress=9)
    world.policy(9, PolicyEntry(peer=2, protocol=TCP, port=NODE_PORT, port_bits=16))
    assert world.outcome("from_net", packet(asks(f), TCP)) == "drop_ingress_policy"
    world.policy(9, PolicyEntry(peer=2, protocol=TCP, port=TARGET, port_bits=16))
    assert world.outcome("from_net", packet(asks(f), TCP)) == "pass_local"


@FAMILIES
def test_every_node_gives_a_flow_to_the_same_backend(
    world: World, services: Services, f: Family
) -> None:
    """Nothing but the flow decides: after all entries are gone it gets the same one."""
    services.put(
        f.every_node,
        TCP,
        *(backend(f.r, 1000 + i) for i in range(16)),
        port=NODE_PORT,
        outside=True,
    )
    flows = range(40000, 40064)
    first = [read(world.sent("from_net", packet(asks(f, n), TCP))[1]).dport for n in flows]
    legs = world.plane._maps["translations"]
    legs.delete([key for key, _ in legs.entries()])
    again = [read(world.sent("from_net", packet(asks(f, n), TCP))[1]).dport for n in flows]
    assert again == first
    assert len(set(first)) > 8


@FAMILIES
def test_affinity_outside_is_of_the_address(world: World, services: Services, f: Family) -> None:
    services.put(
        f.every_node,
        TCP,
        *(backend(f.r, 1000 + i) for i in range(16)),
        port=NODE_PORT,
        outside=True,
        affinity=60,
    )
    seen = {
        read(world.sent("from_net", packet(asks(f, n), TCP))[1]).dport for n in range(40000, 40016)
    }
    assert len(seen) == 1


@FAMILIES
def test_an_error_from_behind_reaches_the_client(
    world: World, services: Services, f: Family
) -> None:
    put(services, f, UDP, f.r)
    there = world.sent("from_net", packet(asks(f), UDP))[1]
    error = icmp(3 if f is V4 else 1, 0, there[14:][:60], code=3)
    outcome, back = world.sent("from_net", summed(flow(f.r, f.node).frame(f.icmp, error)))
    assert (outcome, is_right(back)) == ("pass_outside", True)
    assert (read(back).src, read(back).dst) == (f.node, f.world)
    quoted = read_packet(read(back).l4[8:])
    assert (quoted.src, quoted.dst, quoted.sport, quoted.dport) == (
        f.world, f.node, 40000, NODE_PORT,
    )  # fmt: skip


@FAMILIES
def test_an_error_from_the_clients_side_reaches_the_backend(
    world: World, services: Services, f: Family
) -> None:
    put(services, f, UDP, f.r)
    there = world.sent("from_net", packet(asks(f), UDP))[1]
    port = read(there).sport
    way = flow(f.node, f.r, sport=port, dport=TARGET)
    back = world.sent("from_net", reply(way, UDP))[1]
    error = icmp(3 if f is V4 else 1, 0, back[14:][:60], code=1)
    outcome, there = world.sent("from_net", summed(flow(f.router, f.node).frame(f.icmp, error)))
    assert (outcome, is_right(there)) == ("pass_remote", True)
    assert (read(there).src, read(there).dst) == (f.node, f.r)
    quoted = read_packet(read(there).l4[8:])
    assert (quoted.src, quoted.dst, quoted.sport, quoted.dport) == (f.r, f.node, TARGET, port)


@FAMILIES
def test_fragments_go_one_way(world: World, services: Services, f: Family) -> None:
    services.put(f.cluster, UDP, backend(f.r), outside=True)
    for frame in fragments(f, f.world, f.cluster):
        assert world.outcome("from_net", frame) == "pass_remote"


@FAMILIES
@pytest.mark.parametrize("target", [PORT, TARGET])
def test_sctp_is_forwarded_as_others_are(
    world: World, services: Services, f: Family, target: int
) -> None:
    services.put(f.cluster, SCTP, backend(f.r, target), outside=True)
    outcome, there = world.sent("from_net", summed(flow(f.world, f.cluster).sctp()))
    assert (outcome, is_right(there)) == ("pass_remote", True)
    assert (read(there).src, read(there).dst, read(there).dport) == (f.node, f.r, target)
    assert read(there).sport >= 61000
    other = summed(flow(f.world, f.cluster, sport=CLIENT_PORT + 1).sctp())
    services.put(f.cluster, SCTP, backend(f.a, target), outside=True)
    outcome, there = world.sent("from_net", other)
    assert (outcome, is_right(there)) == ("pass_local", True)
    assert (read(there).src, read(there).dport) == (f.world, target)


@FAMILIES
def test_nothing_is_forwarded_on_its_last_hop(world: World, services: Services, f: Family) -> None:
    put(services, f, TCP, f.r)
    assert world.outcome("from_net", asks(f).tcp(ttl=1)) == "pass_not_for_pod"


@FAMILIES
def test_a_backend_outside_the_cluster(world: World, services: Services, f: Family) -> None:
    put(services, f, TCP, f.router)
    outcome, there = world.sent("from_net", packet(asks(f), TCP))
    assert (outcome, read(there).src, read(there).dst) == ("pass_remote", f.node, f.router)

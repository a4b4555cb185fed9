"""Direct return, real packets: a client at a switch asks one node, a pod of the other answers."""

import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.dataplane import abi
from nodeagent.dataplane.port import PolicyEntry, PolicySet
from tests.bpf.network import CLIENT, DIRECT_PORT, Network, Node, bound_socket, ip, network
from tests.bpf.packets import RST, SYN, TCP, UDP, Flow, address, tcp
from tests.bpf.services import NODE_PORT, TARGET
from tests.bpf.test_network import FAMILIES, count, plane_of, restrict
from tests.bpf.test_services_network import (
    address_of,
    answering,
    carry,
    complete_checksums,
    target_of,
)
from tests.bpf.test_tunnel import wait_for

pytestmark = pytest.mark.timeout(120)

CLOSED = 9
"""A policy set without entries."""


@pytest.fixture(scope="module", params=[False, True], ids=["native", "tunnel"])
def cluster(request: pytest.FixtureRequest, private_bpffs: Path) -> Iterator[Network]:
    mode = "t" if request.param else "n"
    name = f"dpd{mode}{os.getpid()}"
    pins = private_bpffs / f"direct-{mode}"
    with network(name, pins, wrapped=request.param, direct=True) as built:
        for pod in built.pods():
            ip("link", "set", "eth0", "mtu", "1450" if request.param else "1500",
               namespace=pod.namespace)  # fmt: skip
        for namespace in (*(node.namespace for node in built.nodes), built.client):
            complete_checksums(namespace)
        yield built


def client_socket(
    world: Network, family: socket.AddressFamily, kind: socket.SocketKind
) -> socket.socket:
    return bound_socket(world.client, family, kind, CLIENT[family])


@FAMILIES
def test_the_backends_node_answers(cluster: Network, family: socket.AddressFamily) -> None:
    """3 MB both ways; what the client sends fits into the tunnel, for its segments are limited."""
    entry, other = cluster.nodes
    before = count(entry, "pass_outside"), count(other, "pass_outside")
    with other.pods[0].socket(family, socket.SOCK_STREAM) as listener:
        target_of(cluster, other.pods[0], listener, family, TCP)
        seen: list[str] = []
        with (
            answering(listener, seen),
            client_socket(cluster, family, socket.SOCK_STREAM) as client,
        ):
            carry(client, (address_of(entry, family), NODE_PORT))
            segment = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    assert seen == [CLIENT[family]]
    assert count(entry, "pass_outside") == before[0]
    assert count(other, "pass_outside") > before[1]
    assert count(entry, "drop_too_big") == 0
    # Behind what wraps it: both headers of IP, the name, TCP with its times.
    assert segment == 1500 - 50 - (20 if family == socket.AF_INET else 40 + 24) - 20 - 12


@FAMILIES
def test_a_pod_of_the_node_that_is_asked(cluster: Network, family: socket.AddressFamily) -> None:
    entry = cluster.nodes[0]
    with entry.pods[0].socket(family, socket.SOCK_STREAM) as listener:
        target_of(cluster, entry.pods[0], listener, family, TCP)
        with answering(listener), client_socket(cluster, family, socket.SOCK_STREAM) as client:
            carry(client, (address_of(entry, family), NODE_PORT))


@FAMILIES
def test_a_datagram_in_pieces(cluster: Network, family: socket.AddressFamily) -> None:
    """The client hears that its pieces are too large for the tunnel, and makes smaller ones."""
    entry, other = cluster.nodes
    data, target = os.urandom(4000), (address_of(entry, family), NODE_PORT)
    before = count(entry, "drop_too_big")
    with (
        other.pods[0].socket(family, socket.SOCK_DGRAM) as listener,
        client_socket(cluster, family, socket.SOCK_DGRAM) as client,
    ):
        target_of(cluster, other.pods[0], listener, family, UDP)
        seen: list[str] = []
        with answering(listener, seen):
            client.sendto(data, target)
            wait_for(lambda: grown(entry, "drop_too_big", before))
            client.settimeout(0.5)
            answer, who = asked_again(client, data, target)
    assert (answer, who[:2], seen) == (data, target, [CLIENT[family]])


def asked_again(
    client: socket.socket, data: bytes, target: tuple[str, int]
) -> tuple[bytes, tuple[str, int]]:
    """The error may still be on its way to the client."""
    for _ in range(20):
        client.sendto(data, target)
        with contextlib.suppress(TimeoutError):
            return client.recvfrom(5000)
    raise AssertionError(f"no answer from {target}")


@FAMILIES
def test_a_client_hears_that_nobody_listens(cluster: Network, family: socket.AddressFamily) -> None:
    entry, other = cluster.nodes
    with other.pods[0].socket(family, socket.SOCK_DGRAM) as closed:
        target_of(cluster, other.pods[0], closed, family, UDP)
    with client_socket(cluster, family, socket.SOCK_DGRAM) as client:
        client.connect((address_of(entry, family), NODE_PORT))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


@FAMILIES
def test_policy_sees_the_client(cluster: Network, family: socket.AddressFamily) -> None:
    entry, other = cluster.nodes
    pod = other.pods[0]
    plane_of(other).write_policy_set(PolicySet(set_id=CLOSED, entries=(), prefixes=()))
    with pod.socket(family, socket.SOCK_DGRAM) as listener:
        port = listener.getsockname()[1]
        target_of(cluster, pod, listener, family, UDP)
        restrict(other, {pod.identity: (CLOSED, 0)})
        try:
            denied = count(other, "drop_ingress_policy")
            with client_socket(cluster, family, socket.SOCK_DGRAM) as client:
                client.sendto(b"anybody?", (address_of(entry, family), NODE_PORT))
                wait_for(lambda: grown(other, "drop_ingress_policy", denied))
                world = PolicyEntry(peer=2, protocol=UDP, port=port, port_bits=16)
                plane_of(other).write_policy_set(
                    PolicySet(set_id=CLOSED, entries=(world,), prefixes=())
                )
                with answering(listener):
                    client.sendto(b"anybody?", (address_of(entry, family), NODE_PORT))
                    assert client.recv(100) == b"anybody?"
        finally:
            restrict(other, {})


def grown(node: Node, outcome: str, before: int) -> str | None:
    return outcome if count(node, outcome) > before else None


class Stranger:
    """Hands frames over by hand, to the second node; what that node counts."""

    def __init__(self, world: Network) -> None:
        self.world = world
        self.node = world.nodes[1]

    def outcome(self, frame: bytes, *, source: str = "", vni: int = abi.DIRECT_VNI) -> str:
        header = struct.pack(">II", 1 << 27, vni << 8)
        entry = self.world.nodes[0]
        namespace = self.world.client if source else entry.namespace
        before = self._counts()
        with bound_socket(
            namespace, socket.AF_INET, socket.SOCK_DGRAM, source or entry.ipv4
        ) as sender:
            sender.sendto(header + frame, (self.node.ipv4, DIRECT_PORT))
        return wait_for(lambda: self._moved(before))

    def _moved(self, before: Counter[str]) -> str | None:
        new = self._counts() - before
        # The outer packet, neighbours, and what pods and links say of themselves.
        for other in ("pass_not_for_pod", "pass_neighbour", "pass_outside", "drop_link_scope"):
            del new[other]
        return next(iter(new), None)

    def _counts(self) -> Counter[str]:
        return Counter({c.outcome: c.packets for c in plane_of(self.node).counters()})


def named(way: Flow, backend: str, flags: int = SYN) -> bytes:
    """As an entry node writes it."""
    packet = way.ip(TCP, tcp(way.sport, way.dport, flags))
    if way.is_ipv4:
        macs = b"\2\0" + address(backend) + b"\2\0\0\0" + struct.pack(">H", TARGET)
        return macs + b"\x08\0" + packet
    option = struct.pack(">BBBBHH", packet[6], 2, 0x1E, 20, 0, TARGET) + address(backend)
    length = struct.unpack(">H", packet[4:6])[0] + len(option)
    head = packet[:4] + struct.pack(">HB", length, 60) + packet[7:40]
    return bytes(12) + b"\x86\xdd" + head + option + packet[40:]


@FAMILIES
def test_who_may_hand_over_what(cluster: Network, family: socket.AddressFamily) -> None:
    stranger = Stranger(cluster)
    entry, other = cluster.nodes
    backend, asked = other.pods[0].address(family), address_of(entry, family)
    way = Flow(CLIENT[family], asked, 4711, NODE_PORT)
    good = named(way, backend, RST)
    assert stranger.outcome(good) == "pass_local"
    assert stranger.outcome(good, source=CLIENT[socket.AF_INET]) == "drop_tunnel_sender"
    assert stranger.outcome(good, vni=abi.TUNNEL_VNI) == "drop_tunnel_sender"
    elsewhere = entry.pods[0].address(family)
    assert stranger.outcome(named(way, elsewhere)) == "drop_not_here"
    for forged in (elsewhere, other.pods[1].address(family), asked, address_of(other, family)):
        assert stranger.outcome(named(Flow(forged, asked), backend)) == "drop_spoofed", forged
    if family == socket.AF_INET6:
        bare = bytes(12) + way.tcp()[12:]
        assert stranger.outcome(bare) == "drop_unsupported", "it names nobody"

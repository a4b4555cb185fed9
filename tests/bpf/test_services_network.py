"""Services with real connections: clients outside, pods without socket hooks, and a pod itself.

The client outside is an address in the second node's namespace that nobody knows.
"""

import array
import contextlib
import fcntl
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.dataplane.balancing import Backend
from tests.bpf.network import Network, Node, Pod, bound_socket, inside, ip, network
from tests.bpf.packets import TCP, UDP, mapped
from tests.bpf.services import ANY4, ANY6, NODE_PORT, PORT, Services
from tests.bpf.test_network import FAMILIES, count, plane_of
from tests.bpf.test_tunnel import wait_for

pytestmark = pytest.mark.timeout(120)

CLIENT = {socket.AF_INET: "198.19.0.77", socket.AF_INET6: "fd99::77"}
CLUSTER = {socket.AF_INET: "10.96.0.1", socket.AF_INET6: "fd00:96::1"}
EVERY_NODE = {socket.AF_INET: ANY4, socket.AF_INET6: ANY6}
SEED = 20261127
SIZE = 3_000_000
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
PLACES = pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])


@pytest.fixture(scope="module", params=[False, True], ids=["native", "tunnel"])
def cluster(request: pytest.FixtureRequest, private_bpffs: Path) -> Iterator[Network]:
    mode = "t" if request.param else "n"
    name = f"dps{mode}{os.getpid()}"
    with network(name, private_bpffs / f"services-{mode}", wrapped=request.param) as built:
        other = built.nodes[1].namespace
        ip("address", "add", "198.19.0.77/24", "dev", "uplink", namespace=other)
        ip("address", "add", "fd99::77/64", "dev", "uplink", "nodad", namespace=other)
        for pod in built.pods():
            # As ADD does it: segments of TCP fit through the tunnel from the first one on.
            ip("link", "set", "eth0", "mtu", "1450", namespace=pod.namespace)
        for node in built.nodes:
            complete_checksums(node.namespace)
        yield built


def complete_checksums(namespace: str) -> None:
    """The uplink leaves none to the card: what a program did to an unfinished one is sent."""
    command = array.array("B", struct.pack("=II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("=16sQ16x", b"uplink", command.buffer_info()[0])
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)


def address_of(node: Node, family: socket.AddressFamily) -> str:
    return node.ipv4 if family == socket.AF_INET else node.ipv6


def expose(world: Network, family: socket.AddressFamily, protocol: int, backend: Backend) -> None:
    """The backend behind an address of the cluster and behind a port of every node."""
    for node in world.nodes:
        services = Services(plane_of(node))
        services.put(EVERY_NODE[family], protocol, backend, port=NODE_PORT, outside=True)
        services.put(CLUSTER[family], protocol, backend, list_id=11)


def backend_pod(world: Network, *, here: bool) -> Pod:
    return world.nodes[0 if here else 1].pods[0]


@contextlib.contextmanager
def answering(listener: socket.socket, seen: list[str] | None = None) -> Iterator[None]:
    """Gives back all that a connection has brought, once it has ended; or a datagram.

    seen: gets the address of the client.
    """
    clients = [] if seen is None else seen

    def serve() -> None:
        if listener.type == socket.SOCK_DGRAM:
            data, who = listener.recvfrom(65535)
            clients.append(who[0])
            listener.sendto(data, who)
            return
        connection, who = listener.accept()
        clients.append(who[0])
        with connection:
            connection.settimeout(20)
            parts = []
            while part := connection.recv(1 << 20):
                parts.append(part)
            connection.sendall(b"".join(parts))

    if listener.type == socket.SOCK_STREAM:
        listener.listen()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
        assert not thread.is_alive()


def carry(client: socket.socket, target: tuple[str, int]) -> None:
    """Sends it through a connection and compares what comes back."""
    data = random.Random(SEED).randbytes(SIZE)
    client.settimeout(20)
    client.connect(target)
    assert client.getpeername()[:2] == target
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    parts = []
    while part := client.recv(1 << 20):
        parts.append(part)
    assert b"".join(parts) == data


def target_of(
    world: Network, pod: Pod, listener: socket.socket, family: socket.AddressFamily, protocol: int
) -> None:
    raw, port = mapped(pod.address(family)), listener.getsockname()[1]
    expose(world, family, protocol, Backend(address=raw, port=port))


@PLACES
@FAMILIES
def test_a_client_outside_is_served(
    cluster: Network, family: socket.AddressFamily, *, here: bool
) -> None:
    pod, node = backend_pod(cluster, here=here), cluster.nodes[0]
    before = count(node, "pass_outside")
    with pod.socket(family, socket.SOCK_STREAM) as listener:
        target_of(cluster, pod, listener, family, TCP)
        client = bound_socket(
            cluster.nodes[1].namespace, family, socket.SOCK_STREAM, CLIENT[family]
        )
        with answering(listener), client:
            carry(client, (address_of(node, family), NODE_PORT))
    assert count(node, "pass_outside") > before


@FAMILIES
def test_a_backend_in_the_network_of_another_node(
    cluster: Network, family: socket.AddressFamily
) -> None:
    """A pod with hostNetwork: its node is reached as it is, also with a tunnel."""
    entry, other = cluster.nodes
    own = address_of(other, family)
    with bound_socket(other.namespace, family, socket.SOCK_STREAM, own) as listener:
        port = listener.getsockname()[1]
        expose(cluster, family, TCP, Backend(address=mapped(own), port=port))
        client = bound_socket(other.namespace, family, socket.SOCK_STREAM, CLIENT[family])
        seen: list[str] = []
        with answering(listener, seen), client:
            carry(client, (address_of(entry, family), NODE_PORT))
    assert seen == [address_of(entry, family)]


@PLACES
@FAMILIES
def test_a_datagram_from_outside_is_answered(
    cluster: Network, family: socket.AddressFamily, *, here: bool
) -> None:
    pod, target = backend_pod(cluster, here=here), (address_of(cluster.nodes[0], family), NODE_PORT)
    with (
        pod.socket(family, socket.SOCK_DGRAM) as listener,
        bound_socket(
            cluster.nodes[1].namespace, family, socket.SOCK_DGRAM, CLIENT[family]
        ) as client,
    ):
        target_of(cluster, pod, listener, family, UDP)
        with answering(listener):
            client.sendto(b"anybody?", target)
            answer, who = client.recvfrom(100)
    assert (answer, who[:2]) == (b"anybody?", target)


@FAMILIES
def test_a_client_outside_hears_what_fits(cluster: Network, family: socket.AddressFamily) -> None:
    """It shares its namespace with the other node, whose wrapped packets must not believe that."""
    entry, pod = cluster.nodes[0], backend_pod(cluster, here=False)
    outside = cluster.nodes[1].namespace
    with (
        pod.socket(family, socket.SOCK_DGRAM) as listener,
        bound_socket(outside, family, socket.SOCK_DGRAM, CLIENT[family]) as client,
    ):
        target_of(cluster, pod, listener, family, UDP)
        client.connect((address_of(entry, family), NODE_PORT))
        client.send(bytes(1430))
        try:
            if cluster.wrapped:
                wait_for(lambda: "told" if path_mtu(client) == 1450 else None)
            else:
                assert listener.recv(2000) == bytes(1430)
        finally:
            ip("-4", "route", "flush", "cache", namespace=outside)
            ip("-6", "route", "flush", "cache", namespace=outside)


def path_mtu(connected: socket.socket) -> int:
    """IP_MTU, IPV6_MTU of linux/in.h and in6.h."""
    if connected.family == socket.AF_INET:
        return connected.getsockopt(socket.IPPROTO_IP, 14)
    return connected.getsockopt(socket.IPPROTO_IPV6, 24)


@PLACES
@FAMILIES
def test_a_client_outside_hears_that_nobody_listens(
    cluster: Network, family: socket.AddressFamily, *, here: bool
) -> None:
    """The backend's kernel answers with an ICMP error about what it has seen."""
    pod = backend_pod(cluster, here=here)
    with pod.socket(family, socket.SOCK_DGRAM) as closed:
        target_of(cluster, pod, closed, family, UDP)
    with bound_socket(
        cluster.nodes[1].namespace, family, socket.SOCK_DGRAM, CLIENT[family]
    ) as client:
        client.connect((address_of(cluster.nodes[0], family), NODE_PORT))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


@FAMILIES
def test_who_asks_for_what_nobody_answers_is_refused(
    cluster: Network, family: socket.AddressFamily
) -> None:
    for node in cluster.nodes:
        services = Services(plane_of(node))
        services.put(EVERY_NODE[family], TCP, port=NODE_PORT, outside=True)
        services.put(CLUSTER[family], TCP, list_id=11)
    outside = cluster.nodes[1].namespace
    with (
        bound_socket(outside, family, socket.SOCK_STREAM, CLIENT[family]) as client,
        cluster.nodes[0].pods[0].socket(family, socket.SOCK_STREAM) as pod,
    ):
        with pytest.raises(ConnectionRefusedError):
            client.connect((address_of(cluster.nodes[0], family), NODE_PORT))
        with pytest.raises(ConnectionRefusedError):
            pod.connect((CLUSTER[family], PORT))


@PLACES
@FAMILIES
def test_a_pod_is_served_packet_by_packet(
    cluster: Network, family: socket.AddressFamily, *, here: bool
) -> None:
    pod, source = backend_pod(cluster, here=here), cluster.nodes[0].pods[1]
    with (
        pod.socket(family, socket.SOCK_STREAM) as listener,
        source.socket(family, socket.SOCK_STREAM) as client,
    ):
        target_of(cluster, pod, listener, family, TCP)
        with answering(listener):
            carry(client, (CLUSTER[family], PORT))
        with pod.socket(family, socket.SOCK_DGRAM) as closed:
            target_of(cluster, pod, closed, family, UDP)
        with source.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((CLUSTER[family], PORT))
            asking.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                asking.recv(100)


@FAMILIES
def test_a_pod_is_served_by_itself(cluster: Network, family: socket.AddressFamily) -> None:
    pod = cluster.nodes[0].pods[0]
    with (
        pod.socket(family, socket.SOCK_STREAM) as listener,
        pod.socket(family, socket.SOCK_STREAM) as client,
    ):
        target_of(cluster, pod, listener, family, TCP)
        with answering(listener):
            carry(client, (CLUSTER[family], PORT))

"""Sockets that ask for a service: where they end up, and what they are told."""

import collections
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.dataplane import abi, cgroups
from nodeagent.dataplane.balancing import Backend, Member, ServiceCount, Slot, SourceRange
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.netlink.namespace import cookie
from tests.bpf.conftest import SMALL
from tests.bpf.network import inside
from tests.bpf.packets import address
from tests.bpf.sockets import (
    BACKEND_PORT,
    KINDS,
    NODE_PORT,
    PORT,
    TCP,
    UDP,
    Kind,
    Services,
    cgroup,
    member_of,
    namespace,
    reached,
)

OWN = {socket.AF_INET: "198.19.0.9", socket.AF_INET6: "fd99::9"}
"""Addresses of the node that the programs think they run on."""

POD, NODE = (f"dpt{os.getpid()}-sock-{name}" for name in ("pod", "node"))


@pytest.fixture(scope="module")
def plane(private_bpffs: Path) -> Iterator[KernelDataPlane]:
    """Attached to a cgroup that this process is in as long as this module runs."""
    with namespace(POD), namespace(NODE), cgroup(f"dpt{os.getpid()}-sock") as folder:
        with inside(NODE):
            config = DataPlaneConfig(
                netns_cookie=cookie(),
                refusal=errno.ECONNREFUSED,
                node_ipv4=address(OWN[socket.AF_INET]),
                node_ipv6=address(OWN[socket.AF_INET6]),
            )
        plane = KernelDataPlane(private_bpffs / "sockets", config=config, capacities=SMALL)
        plane.attach_sockets(folder)
        with member_of(folder):
            yield plane
        plane.close()


@pytest.fixture
def pod(plane: KernelDataPlane) -> Iterator[Services]:
    services = Services(plane, POD)
    services.reset()
    yield services
    services.reset()


@pytest.fixture
def node(pod: Services) -> Services:
    return pod.elsewhere(NODE)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def test_connection_goes_to_a_backend_and_names_the_service(pod: Services, kind: Kind) -> None:
    servers = pod.servers(kind, TCP)
    pod.publish(kind, TCP, (2,))
    before = pod.counts()["pass_socket_service"]
    client = pod.connected(kind, TCP, (kind.service, PORT))
    accepted, _ = servers[2].accept()
    assert client.getpeername()[:2] == (kind.service, PORT)
    client.sendall(b"question")
    assert accepted.recv(64) == b"question"
    accepted.sendall(b"answer")
    assert client.recv(64) == b"answer"
    assert pod.counts()["pass_socket_service"] == before + 1
    accepted.close()


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_what_is_no_service_is_left_alone(pod: Services, kind: Kind, protocol: int) -> None:
    pod.servers(kind, protocol)
    pod.publish(kind, protocol, (2,))
    other = UDP if protocol == TCP else TCP
    before = pod.counts()
    backend = kind.prefix + kind.backend(1)
    client = pod.connected(kind, protocol, (backend, BACKEND_PORT))
    assert client.getpeername()[:2] == (backend, BACKEND_PORT)
    # The other protocol on the service's port: nobody has the address.
    stray = pod.open(kind.family, other)
    stray.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        stray.connect((kind.service, PORT))
    assert pod.counts() == before


def test_datagrams_come_back_from_the_service(pod: Services, kind: Kind) -> None:
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (3,))
    client = pod.open(kind.family, UDP)
    client.sendto(b"question", (kind.service, PORT))
    number, data, who = reached(servers)
    assert (number, data) == (3, b"question")
    servers[3].sendto(b"answer", who)
    assert client.recvfrom(64)[1][:2] == (kind.service, PORT)
    assert pod.counts()["pass_socket_reply"] > 0
    servers[1].sendto(b"from somebody else", who)
    assert client.recvfrom(64)[1][:2] == (kind.prefix + kind.backend(1), BACKEND_PORT)


def test_socket_keeps_its_backend_while_it_is_a_member(pod: Services, kind: Kind) -> None:
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (0, 1, 2, 3))
    client = pod.open(kind.family, UDP)

    def ask() -> int:
        client.sendto(b"?", (kind.service, PORT))
        return reached(servers)[0]

    first = ask()
    assert {ask() for _ in range(40)} == {first}
    # No longer given to anybody, but still a member: a terminating backend.
    others = tuple(number for number in range(4) if number != first)
    pod.publish(kind, UDP, others)
    assert {ask() for _ in range(20)} == {first}
    pod.plane.delete_members([Member(list_id=1, backend=pod.place(kind, first))])
    second = ask()
    assert second in others
    assert {ask() for _ in range(40)} == {second}


def test_sockets_are_spread_over_the_backends(pod: Services, kind: Kind) -> None:
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (0, 1, 2, 3))
    hits: collections.Counter[int] = collections.Counter()
    for _ in range(100):
        pod.open(kind.family, UDP).sendto(b"?", (kind.service, PORT))
        hits[reached(servers)[0]] += 1
    # 100 tosses of a fair die with four sides: below 5 once in two million times.
    assert min(hits[number] for number in range(4)) >= 5


def test_two_services_of_one_backend_are_told_apart_by_the_last_one(
    pod: Services, kind: Kind
) -> None:
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (0,))
    pod.know_node(kind)
    client = pod.open(kind.family, UDP)
    for where in ((kind.service, PORT), (kind.node, NODE_PORT), (kind.service, PORT)):
        client.sendto(b"?", where)
        servers[0].sendto(b"!", reached(servers)[2])
        assert client.recvfrom(64)[1][:2] == where


def test_connected_datagrams_of_a_pod_are_left_to_its_link(pod: Services, kind: Kind) -> None:
    pod.publish(kind, UDP, (0,))
    before = pod.counts()
    pod.connected(kind, UDP, (kind.service, PORT)).send(b"?")
    assert pod.counts() == before


def test_connected_datagrams_of_the_node_go_to_a_backend(node: Services, kind: Kind) -> None:
    servers = node.servers(kind, UDP)
    node.publish(kind, UDP, (1,))
    client = node.connected(kind, UDP, (kind.service, PORT))
    assert client.getpeername()[:2] == (kind.service, PORT)
    client.send(b"?")
    number, _, who = reached(servers)
    assert number == 1
    servers[1].sendto(b"!", who)
    assert client.recvfrom(64)[1][:2] == (kind.service, PORT)


def test_connected_datagrams_of_the_node_end_with_their_backend(node: Services, kind: Kind) -> None:
    servers = node.servers(kind, UDP)
    node.publish(kind, UDP, (1,))
    client, reconnected = (node.connected(kind, UDP, (kind.service, PORT)) for _ in range(2))
    node.publish(kind, UDP, (2,))
    other = node.connected(kind, UDP, (kind.service, PORT))
    reconnected.connect((kind.service, PORT))
    straight = node.connected(kind, UDP, (kind.prefix + kind.backend(1), BACKEND_PORT))

    def forget(number: int) -> int:
        with inside(node.namespace):
            return node.plane.forget_backends([(UDP, node.place(kind, number))])

    assert forget(0) == 0
    assert forget(1) == 1
    with pytest.raises(ConnectionAbortedError):
        client.recv(64)
    with pytest.raises(OSError, match="Destination address required"):
        client.send(b"?")
    for one, number in ((other, 2), (reconnected, 2), (straight, 1)):
        one.send(b"?")
        assert reached(servers)[0] == number
    client.connect((kind.service, PORT))
    client.send(b"?")
    assert reached(servers)[0] == 2
    assert forget(1) == 0


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("where", ["pod", "node"])
def test_port_of_any_node(
    pod: Services, node: Services, kind: Kind, where: str, protocol: int
) -> None:
    services = {"pod": pod, "node": node}[where]
    servers = services.servers(kind, protocol)
    services.publish(kind, protocol, (2,))
    services.know_node(kind)
    if protocol == TCP:
        client = services.connected(kind, TCP, (kind.node, NODE_PORT))
        servers[2].accept()[0].close()
        assert client.getpeername()[:2] == (kind.node, NODE_PORT)
    else:
        services.open(kind.family, UDP).sendto(b"?", (kind.node, NODE_PORT))
        assert reached(servers)[0] == 2


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_port_of_nodes_on_the_loopback_is_for_the_node_itself(
    pod: Services, node: Services, kind: Kind, protocol: int
) -> None:
    servers = node.servers(kind, protocol)
    node.publish(kind, protocol, (2,))
    where = (kind.loopback, NODE_PORT)
    if protocol == TCP:
        client = node.connected(kind, TCP, where)
        servers[2].accept()[0].close()
        assert client.getpeername()[:2] == where
        with pytest.raises(ConnectionRefusedError):
            pod.connected(kind, TCP, where)
        with pytest.raises(ConnectionRefusedError):
            node.connected(kind, TCP, (kind.loopback, PORT))
    else:
        client = node.open(kind.family, UDP)
        client.sendto(b"?", where)
        number, _, who = reached(servers)
        servers[2].sendto(b"!", who)
        assert (number, client.recvfrom(64)[1][:2]) == (2, where)
        before = pod.counts()
        pod.open(kind.family, UDP).sendto(b"?", where)
        assert pod.counts() == before


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_for_some_sources_only(pod: Services, node: Services, kind: Kind, protocol: int) -> None:
    """A pod is left to its link, where its address is seen; the node has one."""
    servers = node.servers(kind, protocol)
    node.publish(kind, protocol, (2,), check_source=True)
    before = pod.counts()
    stray = pod.open(kind.family, protocol)
    stray.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        stray.sendto(b"?", (kind.service, PORT)) if protocol == UDP else stray.connect(
            (kind.service, PORT)
        )
    assert pod.counts() == before
    client = node.open(kind.family, protocol)
    with pytest.raises(ConnectionRefusedError):
        client.connect((kind.service, PORT))
    assert pod.counts()["drop_source_range"] == before["drop_source_range"] + 1
    node.plane.upsert_sources(
        [SourceRange(service=5, address=kind.key(OWN[kind.servers]), length=128)]
    )
    again = node.connected(kind, protocol, (kind.service, PORT))
    if protocol == TCP:
        servers[2].accept()[0].close()
    assert again.getpeername()[:2] == (kind.service, PORT)


def test_port_of_nodes_is_none_of_other_addresses(pod: Services, kind: Kind) -> None:
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (2,))
    before = pod.counts()
    client = pod.open(kind.family, UDP)
    # Nobody's, the service's own, a pod's, and the one that means "myself".
    myself = "::" if kind.servers == socket.AF_INET6 else kind.prefix + "0.0.0.0"
    for text in (kind.node, kind.service, kind.prefix + kind.backend(0), myself):
        client.sendto(b"?", (text, NODE_PORT))
    assert pod.counts() == before
    with pytest.raises(AssertionError, match="nobody"):
        reached(servers, patience=0.05)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_service_without_backends_refuses_at_once(
    pod: Services, node: Services, kind: Kind, protocol: int
) -> None:
    pod.publish(kind, protocol, ())
    before = pod.counts()["drop_socket_no_backend"]
    with pytest.raises(ConnectionRefusedError):
        node.connected(kind, protocol, (kind.service, PORT))
    if protocol == UDP:
        with pytest.raises(ConnectionRefusedError):
            pod.open(kind.family, UDP).sendto(b"?", (kind.service, PORT))
    else:
        with pytest.raises(ConnectionRefusedError):
            pod.connected(kind, TCP, (kind.service, PORT))
    assert pod.counts()["drop_socket_no_backend"] == before + 2


def test_socket_that_had_a_backend_is_refused_when_there_is_none(pod: Services, kind: Kind) -> None:
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (1,))
    client = pod.open(kind.family, UDP)
    client.sendto(b"?", (kind.service, PORT))
    assert reached(servers)[0] == 1
    pod.publish(kind, UDP, ())
    with pytest.raises(ConnectionRefusedError):
        client.sendto(b"?", (kind.service, PORT))


def test_client_keeps_its_backend_until_the_time_is_over(pod: Services, kind: Kind) -> None:
    """By the namespace: all sockets of a pod are one client."""
    servers = pod.servers(kind, UDP)

    def ask() -> int:
        pod.open(kind.family, UDP).sendto(b"?", (kind.service, PORT))
        return reached(servers)[0]

    pod.publish(kind, UDP, (1,), affinity=60)
    assert ask() == 1
    # New clients go elsewhere; this one has been here before.
    pod.plane.upsert_slots([Slot(list_id=1, slot=0, backend=pod.place(kind, 2))])
    pod.plane.upsert_members([Member(list_id=1, backend=pod.place(kind, 2))])
    pod.age_affinities(50)
    assert ask() == 1
    pod.age_affinities(50)
    assert ask() == 1, "each use begins anew"
    pod.age_affinities(60)
    assert ask() == 2
    pod.plane.upsert_slots([Slot(list_id=1, slot=0, backend=pod.place(kind, 3))])
    assert ask() == 2
    pod.plane.delete_members([Member(list_id=1, backend=pod.place(kind, 2))])
    assert ask() == 3


def test_affinity_is_of_one_namespace_and_one_list(pod: Services, node: Services) -> None:
    kind = KINDS["ipv4"]
    for services in (pod, node):
        services.servers(kind, TCP)
        services.publish(kind, TCP, (1,), affinity=60)
        services.connected(kind, TCP, (kind.service, PORT))
    table = pod.plane._maps["affinities"]
    keys = [abi.AffinityKey.unpack(key) for key, _ in table.entries()]
    with inside(NODE):
        own = cookie()
    with inside(POD):
        other = cookie()
    assert {key.netns for key in keys} == {own, other}
    assert {(key.client, key.list) for key in keys} == {(bytes(16), 1)}
    pod.publish(kind, TCP, (2,), list_id=2, affinity=60)
    pod.connected(kind, TCP, (kind.service, PORT))
    assert len(list(table.entries())) == 3


@pytest.fixture
def blind(plane: KernelDataPlane, private_bpffs: Path) -> Iterator[None]:
    """Sockets are translated, and told the truth about it: the only program is that of connect."""
    pins = private_bpffs / "blind"
    only = {"sock_connect4": plane._loaded.programs["sock_connect4"]}
    with cgroup(f"dpt{os.getpid()}-blind") as folder:
        cgroups.attach(folder, pins, only)
        with member_of(folder):
            yield
        assert cgroups.detach(pins)
    pins.rmdir()


@pytest.mark.usefixtures("blind")
def test_every_slot_is_as_likely(node: Services) -> None:
    """4000 backends, 20,000 choices: a UDP socket that connects again is given any again."""
    kind, slots, rounds, bins = KINDS["ipv4"], 4000, 20_000, 40
    node.publish(kind, UDP, (0,))
    address = node.place(kind, 0).address
    node.plane.upsert_slots(
        [
            Slot(list_id=1, slot=n, backend=Backend(address=address, port=10_000 + n))
            for n in range(slots)
        ]
    )
    (frontend,) = [f for f in node.plane.balancing().frontends if f.key.port == PORT]
    node.plane.upsert_frontends([replace(frontend, count=slots)])
    client = node.open(kind.family, UDP)
    seen: collections.Counter[int] = collections.Counter()
    for _ in range(rounds):
        client.connect((kind.service, PORT))
        seen[client.getpeername()[1] - 10_000] += 1
    assert seen.keys() <= set(range(slots))
    # 27 are missed on average, with a standard deviation of 5.
    assert slots - len(seen) < 80
    per_bin = collections.Counter(slot * bins // slots for slot in seen.elements())
    expected = rounds / bins
    chi_square = sum((per_bin[n] - expected) ** 2 / expected for n in range(bins))
    # 39 degrees of freedom: outside of this once in some ten million runs.
    assert 8 < chi_square < 115


def test_a_service_counts_what_it_gives_and_refuses(pod: Services, node: Services) -> None:
    kind = KINDS["ipv4"]
    pod.servers(kind, UDP)
    pod.publish(kind, UDP, (0, 1))
    client = pod.open(kind.family, UDP)
    for _ in range(5):
        client.sendto(b"?", (kind.service, PORT))
    for _ in range(3):
        node.connected(kind, UDP, (kind.service, PORT))
    pod.publish(kind, UDP, ())
    with pytest.raises(ConnectionRefusedError):
        client.sendto(b"?", (kind.service, PORT))
    # Datagrams of one socket belong together: four backends were given.
    assert pod.plane.service_counts() == (ServiceCount(service=5, given=4, refused=1),)
    pod.plane.delete_service_counts([4, 5])
    assert pod.plane.service_counts() == ()


def test_more_sockets_than_are_remembered_still_connect(pod: Services) -> None:
    kind = KINDS["ipv6"]
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (0,))
    capacity = pod.plane._maps["sockets"].shape.capacity
    first = pod.open(kind.family, UDP)
    first.sendto(b"first", (kind.service, PORT))
    who = reached(servers)[2]
    for _ in range(capacity):
        with inside(POD), socket.socket(kind.family, socket.SOCK_DGRAM) as client:
            client.sendto(b"?", (kind.service, PORT))
    servers[0].sendto(b"late", who)
    assert first.recvfrom(64)[1][:2] == (kind.prefix + kind.backend(0), BACKEND_PORT)
    # What was forgotten is known again with the next datagram.
    first.sendto(b"again", (kind.service, PORT))
    servers[0].sendto(b"answer", who)
    assert first.recvfrom(64)[1][:2] == (kind.service, PORT)


def test_what_a_socket_was_given_is_forgotten_with_the_backend(pod: Services) -> None:
    kind = KINDS["ipv4"]
    servers = pod.servers(kind, UDP)
    pod.publish(kind, UDP, (0,))
    client = pod.open(kind.family, UDP)
    client.sendto(b"?", (kind.service, PORT))
    who = reached(servers)[2]
    gone = [(UDP, pod.place(kind, 0))]
    assert pod.plane.forget_backends([(TCP, gone[0][1]), (UDP, pod.place(kind, 1))]) == 0
    assert pod.plane.forget_backends(gone) == 1
    assert pod.plane.forget_backends(gone) == 0
    # It still answers what it was asked before.
    servers[0].sendto(b"!", who)
    assert client.recvfrom(64)[1] == (kind.service, PORT)

"""Real packets between real links: delivery, policy, programs that are replaced under traffic."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.port import PolicyEntry, PolicySet, Subject
from tests.bpf.network import Network, Node, Pod, bound_socket, inside, network
from tests.bpf.packets import Flow

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
PATHS = pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=[False, True], ids=["native", "vxlan"])
def cluster(request: pytest.FixtureRequest, private_bpffs: Path) -> Iterator[Network]:
    name = f"dpt{os.getpid()}"
    with network(name, private_bpffs / "network", wrapped=request.param) as built:
        yield built


@pytest.fixture
def world(cluster: Network) -> Iterator[Network]:
    yield cluster
    for node in cluster.nodes:
        restrict(node, {})


def restrict(node: Node, policies: dict[int, tuple[int, int]]) -> None:
    """identity → (ingress set, egress set); those of the node that are left out are open."""
    plane = plane_of(node)
    epoch = max(subject.epoch for subject in plane.dump().subjects) + 1
    subjects = [
        Subject(identity=pod.identity, ingress_set=ingress, egress_set=egress, epoch=epoch)
        for pod in node.pods
        for ingress, egress in [policies.get(pod.identity, (0, 0))]
    ]
    plane.upsert_subjects(subjects)


def plane_of(node: Node) -> KernelDataPlane:
    assert node.plane is not None
    return node.plane


def ends(world: Network, *, local: bool) -> tuple[Pod, Pod]:
    first, second = world.nodes
    return first.pods[0], first.pods[1] if local else second.pods[0]


def count(node: Node, outcome: str) -> int:
    return {c.outcome: c.packets for c in plane_of(node).counters()}[outcome]


def connects(
    namespace: str, source: str, pod: Pod, family: socket.AddressFamily, *, patience: float = 0.3
) -> bool:
    """Whether a TCP connection carries a word there and back."""
    with (
        pod.socket(family, socket.SOCK_STREAM) as listener,
        bound_socket(namespace, family, socket.SOCK_STREAM, source) as client,
    ):
        listener.listen()
        client.settimeout(patience)
        try:
            client.connect(listener.getsockname()[:2])
        except TimeoutError:
            return False
        server, _ = listener.accept()
        with server:
            server.settimeout(2)
            client.sendall(b"there")
            assert server.recv(16) == b"there"
            server.sendall(b"and back")
            assert client.recv(16) == b"and back"
        return True


def pings(source: Pod, target: str, *extra: str) -> subprocess.CompletedProcess[str]:
    with inside(source.namespace):
        return subprocess.run(
            ("ping", "-n", "-c", "1", "-W", "1", *extra, target),
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )


@FAMILIES
@PATHS
def test_pods_reach_each_other(
    world: Network, family: socket.AddressFamily, *, local: bool
) -> None:
    source, target = ends(world, local=local)
    outcome = "pass_local" if local else "pass_remote"
    before = count(world.nodes[0], outcome)
    answer = pings(source, target.address(family))
    assert answer.returncode == 0, answer.stdout
    hops = 1 if local else 2
    assert f"ttl={64 - hops} " in answer.stdout
    assert connects(source.namespace, source.address(family), target, family)
    assert count(world.nodes[0], outcome) >= before + 5


@FAMILIES
def test_stack_tells_of_a_used_up_hop_limit(world: Network, family: socket.AddressFamily) -> None:
    source, target = ends(world, local=False)
    answer = pings(source, target.address(family), "-t", "1")
    assert "exceeded" in answer.stdout
    # The answer of the other node's stack is about a connection of an isolated pod: it enters.
    restrict(world.nodes[0], {source.identity: (90, 0)})
    assert "exceeded" in pings(source, target.address(family), "-t", "2").stdout


@FAMILIES
@PATHS
def test_policy_stops_and_lets_through(
    world: Network, family: socket.AddressFamily, *, local: bool
) -> None:
    source, target = ends(world, local=local)
    node = world.nodes[0 if local else 1]
    plane = plane_of(node)
    # Ingress only: that connections work at all shows that answers leave an isolated pod.
    restrict(node, {target.identity: (91, 92)})
    assert not connects(source.namespace, source.address(family), target, family)
    assert pings(source, target.address(family)).returncode == 1
    plane.write_policy_set(
        PolicySet(set_id=93, entries=(PolicyEntry(peer=source.identity, protocol=6),), prefixes=())
    )
    restrict(node, {target.identity: (93, 92)})
    assert connects(source.namespace, source.address(family), target, family, patience=2)
    assert pings(source, target.address(family)).returncode == 1


@FAMILIES
def test_host_reaches_its_isolated_pod_and_no_other_node_does(
    world: Network, family: socket.AddressFamily
) -> None:
    own, other = world.nodes
    pod = own.pods[0]
    restrict(own, {pod.identity: (90, 90)})
    for node, reaches in ((own, True), (other, False)):
        source = node.ipv4 if family == socket.AF_INET else node.ipv6
        assert connects(node.namespace, source, pod, family) is reaches


@FAMILIES
def test_open_connection_ends_with_its_permission(
    world: Network, family: socket.AddressFamily
) -> None:
    source, target = ends(world, local=False)
    with (
        target.socket(family, socket.SOCK_STREAM) as listener,
        source.socket(family, socket.SOCK_STREAM) as client,
    ):
        listener.listen()
        client.connect(listener.getsockname()[:2])
        server, _ = listener.accept()
        with server:
            server.settimeout(0.3)
            client.sendall(b"before")
            assert server.recv(16) == b"before"
            restrict(world.nodes[0], {source.identity: (0, 90)})
            client.sendall(b"after")
            with pytest.raises(TimeoutError):
                server.recv(16)
            restrict(world.nodes[0], {})


def test_vlan_tag_is_no_way_round(world: Network) -> None:
    """The kernel carries the tag beside the frame, so that it looks like one without."""
    source, target = ends(world, local=True)
    frame = Flow(source.ipv4, target.ipv4).udp()
    tagged = source.host_mac + source.pod_mac + bytes.fromhex("81000005") + frame[12:]
    before = count(world.nodes[0], "drop_unsupported")
    with inside(source.namespace):
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with link:
        link.bind(("eth0", 0))
        link.send(tagged)
    assert count(world.nodes[0], "drop_unsupported") == before + 1


class Stream(threading.Thread):
    """UDP there and back without a pause. lost: answers that did not come within two seconds."""

    def __init__(self, source: Pod, target: Pod, family: socket.AddressFamily) -> None:
        super().__init__()
        self.there = source.socket(family, socket.SOCK_DGRAM)
        self.back = target.socket(family, socket.SOCK_DGRAM)
        self.there.connect(self.back.getsockname()[:2])
        self.stop = threading.Event()
        self.answered = self.lost = 0

    def run(self) -> None:
        with self.there, self.back:
            while not self.stop.is_set():
                word = self.answered.to_bytes(8)
                try:
                    self.there.send(word)
                    self.back.sendto(*self.back.recvfrom(16))
                    assert self.there.recv(16) == word
                except TimeoutError:
                    self.lost += 1
                    return
                self.answered += 1


class Knocking(threading.Thread):
    """UDP to a pod that nobody may reach. A link without its program would let it through."""

    def __init__(self, source: Pod, target: Pod) -> None:
        super().__init__()
        self.there = source.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back = target.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.stop = threading.Event()
        self.knocks = 0

    def run(self) -> None:
        door = self.back.getsockname()[:2]
        while not self.stop.wait(0.0002):
            self.there.sendto(b"knock", door)
            self.knocks += 1

    def came_in(self) -> bool:
        with self.there, self.back:
            self.back.setblocking(False)
            try:
                self.back.recv(16)
            except BlockingIOError:
                return False
            return True


def test_agents_restart_without_losing_or_leaking_a_packet(world: Network) -> None:
    closed = world.nodes[1].pods[1]
    restrict(world.nodes[1], {closed.identity: (90, 90)})
    knocking = Knocking(world.nodes[1].pods[0], closed)
    streams = [
        Stream(*ends(world, local=local), family)
        for local in (True, False)
        for family in (socket.AF_INET, socket.AF_INET6)
    ]
    traffic: list[Stream | Knocking] = [*streams, knocking]
    for each in traffic:
        each.start()
    try:
        for _ in range(2):
            for node in world.nodes:
                answered = [stream.answered for stream in streams]
                node.start()
                assert all(
                    stream.lost or stream.answered > before
                    for stream, before in zip(streams, answered, strict=True)
                )
    finally:
        for each in traffic:
            each.stop.set()
        for each in traffic:
            each.join()
    assert not knocking.came_in()
    assert knocking.knocks > 1000
    assert [stream.lost for stream in streams] == [0, 0, 0, 0]
    assert sum(stream.answered for stream in streams) > 1000


def test_packets_pass_without_any_agent(world: Network) -> None:
    node = world.nodes[0]
    plane_of(node).close()
    node.plane = None
    source, target = ends(world, local=True)
    try:
        assert pings(source, target.ipv4).returncode == 0
    finally:
        node.start()

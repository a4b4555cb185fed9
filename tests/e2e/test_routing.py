"""Full-size packets between pods, nodes and the world, in every way that nodes may be joined."""

import contextlib
import errno
import socket
import time
from collections.abc import Iterator

import pytest

from deltaplane import manifest
from deltaplane.cli import enforcement, services
from deltaplane.model.addresses import format_address
from deltaplane.v1 import service_pb2
from lab import Lab, manifests, netns
from lab.services import Services
from nodeagent.nftables.library import Nftables
from tests.e2e.modes import MODES, Mode, lab_of
from tests.e2e.outside import WORLD, make_world
from tests.e2e.traffic import (
    MEBIBYTE,
    PATIENCE_SECONDS,
    Sink,
    counters,
    fragments,
    opened,
    transfer,
)

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
OCTETS = 64 * MEBIBYTE
SEGMENTS = 32 << 10
"""Some full-size ones, which fit into any buffer."""

HEADERS = {socket.AF_INET: 20, socket.AF_INET6: 40}
TCP_BYTES, UDP_BYTES = 20 + 12, 8
"""With timestamps, which Linux always asks for."""

# linux/in.h and in6.h; Python has no names for them.
MTU_DISCOVER = {socket.AF_INET: (0, 10), socket.AF_INET6: (41, 23)}
MTU_KNOWN = {socket.AF_INET: (0, 14), socket.AF_INET6: (41, 24)}
DO = 2

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: default, labels: {app: near}}
spec: {nodeName: node-1, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: default}
spec: {nodeName: node-2, containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody-comes-in, namespace: default}
spec:
  podSelector: {matchLabels: {app: near}}
  policyTypes: [Ingress]
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@pytest.fixture(scope="module")
def lab(mode: Mode) -> Iterator[Lab]:
    for lab in lab_of(mode, nodes=2):
        wanted = manifests.sort(manifest.parse(PODS, source="pods"))
        lab.wait_enforced(lab.apply(wanted))
        make_world(lab)
        yield lab


def namespace(lab: Lab, name: str) -> str:
    """Of a pod, a node, or the world."""
    if name.startswith("node-"):
        return lab.topology.node(name).namespace
    return f"dp-{lab.layout.lab}-world" if name == "world" else lab.pod_namespace(lab.pod(name))


def address(lab: Lab, name: str, family: socket.AddressFamily) -> str:
    if name == "world":
        return WORLD[family]
    if name.startswith("node-"):
        node = lab.topology.node(name)
        return node.uplink_ipv4 if family == socket.AF_INET else node.uplink_ipv6
    return lab.pod(name).addresses[family == socket.AF_INET6]


def everywhere(lab: Lab) -> list[str]:
    pods = [namespace(lab, pod.reference) for pod in lab.pods]
    return [*lab.topology.namespaces, *pods]


@FAMILIES
@pytest.mark.parametrize(
    ("source", "target"),
    [("near", "far"), ("near", "node-2"), ("node-1", "far"), ("near", "node-1"), ("near", "world")],
)
def test_full_size_segments_arrive_whole_and_without_a_stall(
    lab: Lab, mode: Mode, family: socket.AddressFamily, source: str, target: str
) -> None:
    before = counters(everywhere(lab))

    sink = Sink(namespace(lab, target), family, address(lab, target, family))
    segment = transfer(namespace(lab, source), sink, family, OCTETS)

    after = counters(everywhere(lab))
    assert segment == mode.pod_mtu - HEADERS[family] - TCP_BYTES
    assert fragments(before, after) == {}
    # Less what the receiver says it had already: another processor had it, and it came late.
    lost = (after - before)["Tcp.RetransSegs"] - (after - before)["TcpExt.TCPDSACKRecvSegs"]
    sent = OCTETS // segment
    # A path that drops full-size segments repeats nearly all of them; a busy machine some.
    assert lost < sent / 100


@FAMILIES
def test_a_datagram_that_is_too_big_is_refused_by_the_pods_own_link(
    lab: Lab, mode: Mode, family: socket.AddressFamily
) -> None:
    fits = mode.pod_mtu - HEADERS[family] - UDP_BYTES
    target = address(lab, "far", family)
    with receiver(lab, "far", family) as far, unfragmented(lab, "near", family) as near:
        near.sendto(bytes(fits), (target, far.getsockname()[1]))
        assert len(far.recv(1 << 16)) == fits
        with pytest.raises(OSError, match="too long") as refused:
            near.sendto(bytes(fits + 1), (target, far.getsockname()[1]))
    assert refused.value.errno == errno.EMSGSIZE


@FAMILIES
def test_a_pod_with_too_large_a_link_is_told_what_fits(
    lab: Lab, mode: Mode, family: socket.AddressFamily
) -> None:
    before = counters(everywhere(lab))
    target = "far"
    number = address(lab, target, family)
    with (
        larger_link(lab, mode),
        receiver(lab, target, family) as far,
        unfragmented(lab, "near", family) as near,
    ):
        near.connect((number, far.getsockname()[1]))
        # An earlier test may have told it already; else the answer comes to the first ones.
        while near.getsockopt(*MTU_KNOWN[family]) > mode.pod_mtu:
            with contextlib.suppress(OSError):
                near.send(bytes(mode.pod_mtu))
        assert near.getsockopt(*MTU_KNOWN[family]) == mode.pod_mtu
        fits = bytes(mode.pod_mtu - HEADERS[family] - UDP_BYTES)
        # What came back about earlier ones is told by the next call.
        while near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            pass
        near.send(fits)
        assert far.recv(1 << 16) == fits
    moved = fragments(before, counters(everywhere(lab)))
    assert not moved.keys() - {"Ip.FragFails", "Ip6FragFails"}, moved


@contextlib.contextmanager
def larger_link(lab: Lab, mode: Mode) -> Iterator[None]:
    """Both ends of a pod's link take more than the way to the other node."""
    pod, node = namespace(lab, "near"), namespace(lab, "node-1")
    link = host_link(lab)

    def set_mtu(size: int) -> None:
        netns.ip_batch(pod, [f"link set eth0 mtu {size}"])
        netns.ip_batch(node, [f"link set {link} mtu {size}"])

    set_mtu(mode.mtu + 500)
    try:
        yield
    finally:
        set_mtu(mode.pod_mtu)


def host_link(lab: Lab) -> str:
    """The node's end of the only pod on node-1."""
    with netns.entered(namespace(lab, "node-1")):
        names = [name for _, name in socket.if_nameindex()]
    (link,) = [name for name in names if name.startswith("dp") and name != "dpvxlan"]
    return link


@contextlib.contextmanager
def receiver(lab: Lab, name: str, family: socket.AddressFamily) -> Iterator[socket.socket]:
    with opened(
        namespace(lab, name), family, socket.SOCK_DGRAM, address(lab, name, family)
    ) as made:
        yield made


@contextlib.contextmanager
def unfragmented(lab: Lab, name: str, family: socket.AddressFamily) -> Iterator[socket.socket]:
    with receiver(lab, name, family) as made:
        made.setsockopt(*MTU_DISCOVER[family], DO)
        yield made


# Masquerading


def nft(name: str, command: str) -> None:
    with netns.entered(name):
        nftables = Nftables()
    try:
        nftables.run(command)
    finally:
        nftables.close()


def seen(lab: Lab, source: str, target: str, family: socket.AddressFamily) -> str:
    """From which address the target sees a connection come; something travels both ways."""
    sink = Sink(namespace(lab, target), family, address(lab, target, family))
    transfer(namespace(lab, source), sink, family, MEBIBYTE)
    return sink.peer


@FAMILIES
def test_the_world_sees_the_node_and_the_cluster_the_pod(
    lab: Lab, family: socket.AddressFamily
) -> None:
    assert seen(lab, "near", "world", family) == address(lab, "node-1", family)
    for target in ("far", "node-1", "node-2"):
        assert seen(lab, "near", target, family) == address(lab, "near", family), target


@FAMILIES
def test_an_answer_of_the_world_passes_as_an_answer_and_nothing_else_does(
    lab: Lab, family: socket.AddressFamily
) -> None:
    """Nobody may come in to pod near."""
    with (
        receiver(lab, "world", family) as there,
        receiver(lab, "near", family) as near,
    ):
        near.sendto(b"question", there.getsockname()[:2])
        question, sender = there.recvfrom(100)
        there.sendto(b"answer", sender)
        assert (question, near.recv(100)) == (b"question", b"answer")
    sink = Sink(namespace(lab, "near"), family, address(lab, "near", family))
    with opened(namespace(lab, "far"), family, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(0.5)
        with pytest.raises(TimeoutError):
            stranger.connect(sink.where)
    # The node's own stack may: so the thread ends.
    transfer(namespace(lab, "node-1"), sink, family, 0)


@FAMILIES
def test_a_spared_range_sees_the_pod(lab: Lab, family: socket.AddressFamily) -> None:
    """The set that --masquerade-exclude fills, filled by hand."""
    own = address(lab, "near", family)
    version = 4 if family == socket.AF_INET else 6
    node = lab.topology.node("node-1")
    element = f"element inet deltaplane spared{version} {{ {WORLD[family]} }}"
    hop = node.uplink_ipv4 if version == 4 else node.uplink_ipv6
    netns.ip_batch(namespace(lab, "world"), [f"route add {own} via {hop}"])
    nft(node.namespace, f"add {element}")
    try:
        assert seen(lab, "near", "world", family) == own
    finally:
        nft(node.namespace, f"delete {element}")
        netns.ip_batch(namespace(lab, "world"), [f"route del {own}"])
    assert seen(lab, "near", "world", family) == address(lab, "node-1", family)


@FAMILIES
def test_connections_to_the_world_outlive_the_agent(lab: Lab, family: socket.AddressFamily) -> None:
    with opened(
        namespace(lab, "world"), family, socket.SOCK_STREAM, address(lab, "world", family)
    ) as listener:
        listener.listen()
        with opened(namespace(lab, "near"), family, socket.SOCK_STREAM) as client:
            client.connect(listener.getsockname()[:2])
            server, _ = listener.accept()
            with server:
                server.settimeout(60)
                lab.await_restart("agent-node-1", lab.kill("agent-node-1"))
                client.sendall(b"there")
                assert server.recv(100) == b"there"
                server.sendall(b"and back")
                assert client.recv(100) == b"and back"
    assert seen(lab, "near", "world", family) == address(lab, "node-1", family)


# Services


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: across}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80, nodePort: 30080}]
"""
SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: across-%s, labels: {kubernetes.io/service-name: across}}
addressType: %s
ports: [{port: 8080}]
endpoints: [{addresses: ["%s"], nodeName: node-2}]
"""


@pytest.fixture(scope="module")
def across(lab: Lab) -> service_pb2.Service:
    """A service whose only backend is pod far: written past the lab, which would add DNS."""
    four, six = lab.pod("far").addresses
    text = SERVICE + SLICE % ("v4", "IPv4", four) + SLICE % ("v6", "IPv6", six)
    wanted = manifests.sort(manifest.parse(text, source="across"))
    made = Services(lab.layout, lab.topology, lab.client)
    revision = made.apply(wanted.services, wanted.slices)
    enforcement.await_enforced(
        lab.client, enforcement.Subject(revision=revision), started=time.monotonic(), seconds=30.0
    )
    return services.find(lab.client, "default/across")


@FAMILIES
@pytest.mark.parametrize(
    ("source", "through"), [("near", ""), ("world", "node-1"), ("world", "node-2")]
)
def test_a_service_leads_to_a_pod_of_another_node(
    lab: Lab,
    across: service_pb2.Service,
    source: str,
    through: str,
    family: socket.AddressFamily,
) -> None:
    """Translated packet by packet, and full-size: with all that is added they must fit."""
    where = (format_address(across.cluster_ips[family == socket.AF_INET6]), 80)
    if through:
        where = (address(lab, through, family), 30080)
    with (
        opened(namespace(lab, "far"), family, socket.SOCK_STREAM) as listener,
        opened(namespace(lab, source), family, socket.SOCK_STREAM) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", 8080))
        listener.listen()
        client.connect(where)
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE_SECONDS)
            for sender, taker in ((client, server), (server, client)):
                sender.sendall(bytes(SEGMENTS))
                assert taker.recv(SEGMENTS, socket.MSG_WAITALL) == bytes(SEGMENTS)

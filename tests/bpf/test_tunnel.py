"""What the tunnel takes from whom: packets that another node, or a stranger, wraps by hand."""

import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nodeagent.dataplane import abi
from nodeagent.netlink.channel import Channel
from tests.bpf.network import PORT, Network, Node, bound_socket, inside, ip, network
from tests.bpf.packets import RST, Flow, ethernet, icmp, ipv6
from tests.bpf.test_network import FAMILIES, count

pytestmark = pytest.mark.timeout(120)

OVER = pytest.mark.parametrize("over", [socket.AF_INET, socket.AF_INET6], ids=["over4", "over6"])
INSIDE = pytest.mark.parametrize("inside4", [True, False], ids=["in4", "in6"])
STRANGER = {socket.AF_INET: "198.19.0.77", socket.AF_INET6: "fd99::77"}


@pytest.fixture(scope="module")
def cluster(private_bpffs: Path) -> Iterator[Network]:
    with network(f"dpt{os.getpid()}", private_bpffs / "tunnel", wrapped=True) as built:
        other = built.nodes[1].namespace
        for text in (f"{STRANGER[socket.AF_INET]}/24", f"{STRANGER[socket.AF_INET6]}/64"):
            nodad = ["nodad"] if ":" in text else []
            ip("address", "add", text, "dev", "uplink", *nodad, namespace=other)
        yield built


def address_of(node: Node, family: socket.AddressFamily) -> str:
    return node.ipv4 if family == socket.AF_INET else node.ipv6


class Wrapper:
    """Node b wraps frames by hand; what node a counts."""

    def __init__(self, world: Network, over: socket.AddressFamily) -> None:
        self.node, self.other = world.nodes
        self.over = over

    def outcome(self, frame: bytes, *, source: str = "", vni: int = abi.TUNNEL_VNI) -> str:
        """Sends one frame; the one counter that it moves when it is unwrapped."""
        before = self._counts()
        header = struct.pack(">II", 1 << 27, vni << 8)
        own = source or address_of(self.other, self.over)
        with bound_socket(self.other.namespace, self.over, socket.SOCK_DGRAM, own) as sender:
            sender.sendto(header + frame, (address_of(self.node, self.over), PORT))
        return wait_for(lambda: self._moved(before))

    def _moved(self, before: Counter[str]) -> str | None:
        """None until something was unwrapped."""
        grown = self._counts() - before
        # The outer packet itself, neighbours of the uplink, and what the node's stack says to pods.
        others = {name: grown[name] for name in ("pass_neighbour", "pass_from_host")}
        grown -= Counter({"pass_not_for_pod": 1, **others})
        if len(grown) > 1:
            # Besides, something came by the uplink, or a link has sent its own through the tunnel.
            for other in ("pass_not_for_pod", "drop_link_scope"):
                del grown[other]
        assert len(grown) <= 1, grown
        return next(iter(grown), None)

    def _counts(self) -> Counter[str]:
        assert self.node.plane is not None
        return Counter({c.outcome: c.packets for c in self.node.plane.counters()})


def wait_for(found: Callable[[], str | None]) -> str:
    deadline = time.monotonic() + 10
    while (answer := found()) is None:
        assert time.monotonic() < deadline
    return answer


@OVER
@INSIDE
def test_a_node_may_wrap_what_it_and_its_pods_send(
    cluster: Network, over: socket.AddressFamily, *, inside4: bool
) -> None:
    wrapper = Wrapper(cluster, over)
    own, other = cluster.nodes
    to, peer = own.pods[0], other.pods[0]
    sources = [peer.ipv4, other.ipv4] if inside4 else [peer.ipv6, other.ipv6]
    for source in sources:
        flow = Flow(source, to.ipv4 if inside4 else to.ipv6)
        assert wrapper.outcome(flow.tcp(RST)) == "pass_local"
        flow = Flow(source, own.ipv4 if inside4 else own.ipv6)
        assert wrapper.outcome(flow.tcp(RST)) == "pass_not_for_pod"


@OVER
@INSIDE
def test_nobody_else_has_its_addresses(
    cluster: Network, over: socket.AddressFamily, *, inside4: bool
) -> None:
    wrapper = Wrapper(cluster, over)
    own, other = cluster.nodes
    to, mine, peer = own.pods[0], own.pods[1], other.pods[0]
    target = to.ipv4 if inside4 else to.ipv6
    forged = (
        [mine.ipv4, own.ipv4, "203.0.113.9", "10.244.1.60", "198.19.0.3"]
        if inside4
        else [mine.ipv6, own.ipv6, "2001:db8::9", "fd00:10:244::1:60", "fd99::3"]
    )
    for source in forged:
        assert wrapper.outcome(Flow(source, target).tcp(RST)) == "drop_spoofed", source
    good = Flow(peer.ipv4 if inside4 else peer.ipv6, target).tcp(RST)
    assert wrapper.outcome(good, vni=2) == "drop_tunnel_sender"
    assert wrapper.outcome(good, source=STRANGER[over]) == "drop_tunnel_sender"


def test_a_tunnel_leads_to_its_end_and_no_further(cluster: Network) -> None:
    wrapper = Wrapper(cluster, socket.AF_INET)
    peer = cluster.nodes[1].pods[0]
    for target in ("203.0.113.9", cluster.nodes[1].pods[1].ipv4, "10.99.0.1"):
        assert wrapper.outcome(Flow(peer.ipv4, target).udp()) == "drop_not_here", target
    assert wrapper.outcome(ethernet(0x0806, bytes(28))) == "drop_link_scope"
    advertisement = ipv6(peer.ipv6, "ff02::1", 58, icmp(136, 0, bytes(16)), ttl=255)
    assert wrapper.outcome(ethernet(0x86DD, advertisement)) == "drop_link_scope"
    assert wrapper.outcome(ethernet(0x88CC, bytes(40))) == "drop_unsupported"


@FAMILIES
def test_what_should_be_wrapped_does_not_come_as_it_is(
    cluster: Network, family: socket.AddressFamily
) -> None:
    own, other = cluster.nodes
    to, peer = own.pods[0], other.pods[0]
    for source, target in (
        (peer.address(family), to.address(family)),
        (peer.address(family), address_of(own, family)),
        (address_of(other, family), to.address(family)),
    ):
        before = count(own, "drop_spoofed")
        with inside(other.namespace):
            link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with link:
            link.bind(("uplink", 0))
            link.send(mac(own) + bytes(6) + Flow(source, target).udp()[12:])
        wait_for(partial(one_more, own, "drop_spoofed", before))


def one_more(node: Node, outcome: str, before: int) -> str | None:
    return outcome if count(node, outcome) == before + 1 else None


def mac(node: Node) -> bytes:
    with inside(node.namespace), Channel() as channel:
        return channel.link("uplink").mac


@FAMILIES
def test_the_network_between_sees_nodes_only(
    cluster: Network, family: socket.AddressFamily
) -> None:
    own, other = cluster.nodes
    pod = own.pods[0]
    for source, target in (
        (pod.namespace, other.pods[0].address(family)),
        (pod.namespace, address_of(other, family)),
        (other.namespace, pod.address(family)),
    ):
        with inside(other.namespace):
            sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with inside(source):
            client = socket.socket(family, socket.SOCK_DGRAM)
        with sniffer, client:
            sniffer.settimeout(10)
            sniffer.bind(("uplink", 3))
            client.sendto(b"x" * 700, (target, 9))
            while len(frame := sniffer.recv(2000)) < 700:
                pass
        assert frame[12:14] == b"\x08\x00"
        assert {socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])} == {
            own.ipv4,
            other.ipv4,
        }
        assert (frame[23], frame[36:38]) == (17, PORT.to_bytes(2))
        assert frame[20] & 0x40, "don't fragment"

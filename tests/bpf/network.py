"""Two nodes with two pods each, in namespaces of their own; nothing outside them is touched.

pod-a0  pod-a1          pod-b0  pod-b1
   \\     /                 \\     /
   node-a ─── uplink ─── node-b

With direct return there is a switch between the nodes, and a client at it that neither knows.
"""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deltaplane.model.addresses import AddressPair, Prefix
from nodeagent import routes
from nodeagent.dataplane import bpffs
from nodeagent.dataplane.config import Capacities, DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.port import LocalEndpoint, Mapping, NextHop, Range, Subject
from nodeagent.netlink import routes as routing
from nodeagent.netlink import tunnel
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.tunnel import DIRECT, NAME
from tests.bpf.packets import address, mapped

CLONE_NEWNET = 0x40000000
CLIENT = {socket.AF_INET: "198.19.0.77", socket.AF_INET6: "fd99::77"}
PORT, DIRECT_PORT = 8472, 8473
SMALL = Capacities(
    connections=4096,
    fragments=256,
    denials=256,
    affinities=256,
    sockets=1024,
    translations=4096,
)
"""Of maps that take their memory in advance."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str, namespace: str | None = None) -> None:
    where = ("-n", namespace) if namespace else ()
    subprocess.run(("ip", *where, *arguments), check=True, capture_output=True, timeout=10)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in the namespace; sockets made meanwhile stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _LIBC.setns(there, CLONE_NEWNET) == 0
        yield
    finally:
        assert _LIBC.setns(home, CLONE_NEWNET) == 0
        os.close(there)
        os.close(home)


@dataclass(frozen=True)
class Pod:
    namespace: str
    ifindex: int
    identity: int
    ipv4: str
    ipv6: str
    pod_mac: bytes
    host_mac: bytes

    def address(self, family: socket.AddressFamily) -> str:
        return self.ipv4 if family == socket.AF_INET else self.ipv6

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket in the pod, bound to any port of its address."""
        return bound_socket(self.namespace, family, kind, self.address(family))


def bound_socket(
    namespace: str, family: socket.AddressFamily, kind: socket.SocketKind, text: str
) -> socket.socket:
    with inside(namespace):
        made = socket.socket(family, kind)
    made.settimeout(2)
    made.bind((text, 0))
    return made


@dataclass
class Node:
    namespace: str
    index: int
    pins: Path
    wrapped: bool = False
    direct: bool = False
    pods: list[Pod] = field(default_factory=list)
    plane: KernelDataPlane | None = None

    @property
    def ipv4(self) -> str:
        return f"198.19.0.{self.index}"

    @property
    def ipv6(self) -> str:
        return f"fd99::{self.index}"

    def start(self) -> KernelDataPlane:
        """What an agent does that starts or starts again: adopt, and replace all programs."""
        with inside(self.namespace):
            uplink = socket.if_nametoindex("uplink")
            tunnel = socket.if_nametoindex(NAME) if self.wrapped else 0
            direct = socket.if_nametoindex(DIRECT) if self.direct else 0
            plane = KernelDataPlane(
                self.pins,
                config=DataPlaneConfig(
                    uplink_ifindex=uplink,
                    uplink_mtu=1500,
                    tunnel_ifindex=tunnel,
                    node_index=self.index,
                    node_ipv4=address(self.ipv4),
                    node_ipv6=address(self.ipv6),
                    direct_ifindex=direct,
                    hands_over=self.direct,
                ),
                capacities=SMALL,
            )
            for pod in self.pods:
                plane.attach_pod(pod.ifindex)
            plane.attach_uplink(uplink)
            if tunnel:
                plane.attach_tunnel(tunnel)
            if direct:
                plane.attach_direct(direct)
        if self.plane is not None:
            self.plane.close()
        self.plane = plane
        return plane


@dataclass
class Network:
    """client: namespace of a client outside, with direct return only; its addresses are CLIENT."""

    nodes: list[Node]
    wrapped: bool
    client: str = ""

    def pods(self) -> list[Pod]:
        return [pod for node in self.nodes for pod in node.pods]


@contextlib.contextmanager
def network(name: str, pins: Path, *, wrapped: bool, direct: bool = False) -> Iterator[Network]:
    """Builds it, with everybody's policy open; removes all of it.

    Args:
        wrapped: with a tunnel.
        direct: the node of the backend answers clients outside.
    """
    nodes = [
        Node(f"{name}-node{index}", index, pins / str(index), wrapped, direct) for index in (1, 2)
    ]
    made: list[str] = []
    try:
        for node in nodes:
            _namespace(node.namespace, made)
        client = f"{name}-client" if direct else ""
        if direct:
            _namespace(client, made)
            _namespace(f"{name}-switch", made)
            _switch(f"{name}-switch", [*(node.namespace for node in nodes), client])
            _configure_client(client)
        else:
            a, b = nodes
            ip("link", "add", "uplink", "netns", a.namespace, "type", "veth",
               "peer", "name", "uplink", "netns", b.namespace)  # fmt: skip
        for node, other in (nodes, nodes[::-1]):
            _connect(node, other)
        for node in nodes:
            for ordinal in (0, 1):
                node.pods.append(_pod(node, ordinal, made))
        world = Network(nodes, wrapped, client)
        for node in nodes:
            _wait_for_uplink(node)
            _populate(node.start(), node, world)
        yield world
    finally:
        for node in nodes:
            if node.plane is not None:
                node.plane.close()
        for namespace in made:
            ip("netns", "delete", namespace)
        bpffs.remove_pins(pins)


def _namespace(name: str, made: list[str]) -> None:
    ip("netns", "add", name)
    made.append(name)
    ip("link", "set", "lo", "up", namespace=name)


def _switch(switch: str, namespaces: list[str]) -> None:
    """A bridge with a port for the uplink of each."""
    ip("link", "add", "switch", "type", "bridge", namespace=switch)
    for number, namespace in enumerate(namespaces):
        port = f"port{number}"
        ip("link", "add", "uplink", "netns", namespace, "type", "veth",
           "peer", "name", port, "netns", switch)  # fmt: skip
        ip("link", "set", port, "master", "switch", "up", namespace=switch)
    ip("link", "set", "switch", "up", namespace=switch)


def _configure_client(namespace: str) -> None:
    for text in (f"{CLIENT[socket.AF_INET]}/24", f"{CLIENT[socket.AF_INET6]}/64"):
        nodad = ["nodad"] if ":" in text else []
        ip("address", "add", text, "dev", "uplink", *nodad, namespace=namespace)
    ip("link", "set", "uplink", "up", namespace=namespace)


def _connect(node: Node, other: Node) -> None:
    with inside(node.namespace):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        # Neighbours of redirected packets are asked for from the link-local address: at once.
        Path("/proc/sys/net/ipv6/conf/uplink/accept_dad").write_text("0")
    for text in (f"{node.ipv4}/24", f"{node.ipv6}/64"):
        nodad = ["nodad"] if ":" in text else []
        ip("address", "add", text, "dev", "uplink", *nodad, namespace=node.namespace)
    ip("link", "set", "uplink", "up", namespace=node.namespace)
    with inside(node.namespace):
        _route(node, other)


def _route(node: Node, other: Node) -> None:
    own, far = (AddressPair(ipv4=address(n.ipv4), ipv6=address(n.ipv6)) for n in (node, other))
    blocks = (f"10.244.{other.index}.0/26", f"fd00:10:244::{other.index}:0/112")
    with Channel() as channel:
        if node.direct:
            tunnel.ensure(channel, port=DIRECT_PORT, uplink_mtu=1500, own=own, name=DIRECT)
        end = tunnel.ensure(channel, port=PORT, uplink_mtu=1500, own=own) if node.wrapped else None
        through = own if end else None
        wanted = [routes.route(Prefix.parse(b), far, own=False, tunnel=through) for b in blocks]
        uplink = socket.if_nametoindex("uplink")
        channel.run(routing.add([found for found in wanted if found is not None], uplink, end))


def _wait_for_uplink(node: Node) -> None:
    """Linkwatch takes up to a second to notice the carrier; until then packets are dropped."""
    deadline = time.monotonic() + 10
    while True:
        answer = subprocess.run(
            ("ip", "-n", node.namespace, "-j", "address", "show", "uplink"),
            check=True, capture_output=True, timeout=10,
        )  # fmt: skip
        (link,) = json.loads(answer.stdout)
        scopes = [a["scope"] for a in link["addr_info"] if not a.get("tentative")]
        if link["operstate"] == "UP" and "link" in scopes:
            return
        assert time.monotonic() < deadline, link


def _pod(node: Node, ordinal: int, made: list[str]) -> Pod:
    namespace = f"{node.namespace}-pod{ordinal}"
    _namespace(namespace, made)
    link = f"pod{ordinal}"
    ipv4 = f"10.244.{node.index}.{10 + ordinal}"
    ipv6 = f"fd00:10:244::{node.index}:{10 + ordinal}"
    pod_mac, host_mac = (
        f"02:00:00:{node.index:02}:{ordinal:02}:01",
        f"02:00:00:{node.index:02}:{ordinal:02}:02",
    )
    ip("link", "add", link, "netns", node.namespace, "address", host_mac, "type", "veth",
       "peer", "name", "eth0", "netns", namespace, "address", pod_mac)  # fmt: skip
    ip("link", "set", link, "up", namespace=node.namespace)
    ip("address", "add", f"{ipv4}/32", "dev", "eth0", namespace=namespace)
    ip("address", "add", f"{ipv6}/128", "dev", "eth0", "nodad", namespace=namespace)
    ip("link", "set", "eth0", "up", namespace=namespace)
    for gateway, family in (("169.254.1.1", "-4"), ("fe80::1", "-6")):
        ip("neigh", "add", gateway, "lladdr", host_mac, "dev", "eth0", "nud", "permanent",
           namespace=namespace)  # fmt: skip
        ip(family, "route", "add", "default", "via", gateway, "dev", "eth0", "onlink",
           namespace=namespace)  # fmt: skip
    for text in (ipv4, ipv6):
        ip("route", "add", text, "dev", link, namespace=node.namespace)
        ip("neigh", "add", text, "lladdr", pod_mac, "dev", link, "nud", "permanent",
           namespace=node.namespace)  # fmt: skip
    with inside(node.namespace):
        ifindex = socket.if_nametoindex(link)
    return Pod(
        namespace,
        ifindex,
        256 + node.index * 10 + ordinal,
        ipv4,
        ipv6,
        bytes.fromhex(pod_mac.replace(":", "")),
        bytes.fromhex(host_mac.replace(":", "")),
    )


def _populate(plane: KernelDataPlane, node: Node, world: Network) -> None:
    for other in world.nodes:
        who = [(pod.ipv4, pod.ipv6, pod.identity) for pod in other.pods]
        for ipv4, ipv6, identity in [*who, (other.ipv4, other.ipv6, 7)]:
            plane.upsert_mappings(
                [
                    Mapping(address=mapped(text), identity=identity, node_index=other.index)
                    for text in (ipv4, ipv6)
                ]
            )
        plane.upsert_next_hops(
            [NextHop(node_index=other.index, ipv4=address(other.ipv4), ipv6=address(other.ipv6))]
        )
        plane.upsert_ranges(
            [
                Range(address=mapped(text), length=length, identity=3, node_index=other.index)
                for text, length in (
                    (f"10.244.{other.index}.0", 122),
                    (f"fd00:10:244::{other.index}:0", 112),
                )
            ]
        )
    plane.upsert_subjects(
        [Subject(identity=pod.identity, ingress_set=0, egress_set=0, epoch=1) for pod in node.pods]
    )
    plane.upsert_local_endpoints(
        [
            LocalEndpoint(
                ifindex=pod.ifindex,
                endpoint_id=pod.ifindex,
                identity=pod.identity,
                ipv4=address(pod.ipv4),
                ipv6=address(pod.ipv6),
                pod_mac=pod.pod_mac,
                host_mac=pod.host_mac,
            )
            for pod in node.pods
        ]
    )

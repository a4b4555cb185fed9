"""Two nodes with a pod each, in namespaces that go when the block ends.

    client ─── node-1 ─── uplink ─── node-2 ─── server

Links, routes and neighbours are those that an agent makes, with programs and without.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.datapath import world
from deltaplane.errors import Unavailable
from deltaplane.model.addresses import AddressPair, format_address
from lab import netns
from lab.topology import DEFAULT_MTU, NAMESPACE_SYSCTLS
from nodeagent import routes
from nodeagent.dataplane import bpffs
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.port import LocalEndpoint
from nodeagent.netlink import routes as routing
from nodeagent.netlink import sysctl
from nodeagent.netlink.links import Links, PodLink

CLIENT_NODE, SERVER_NODE = 1, 2
NODES = (CLIENT_NODE, SERVER_NODE)
NO_LINK = 1 << 16
"""Above every link that there is."""

REACHABLE_SECONDS = 10.0
"""The kernel takes up to a second to notice that a link has a carrier."""


@dataclass(frozen=True, slots=True)
class Network:
    """Two nodes.

    Attributes:
        name: what the names of its namespaces begin with.
    """

    name: str

    def node(self, number: int) -> str:
        """Namespace of a node."""
        return f"{self.name}-node-{number}"

    def pod(self, number: int) -> str:
        """Namespace of the pod of a node."""
        return f"{self.name}-pod-{number}"


@contextmanager
def plain(name: str) -> Iterator[Network]:
    """Nodes whose kernel routes.

    Raises:
        OSError: no privilege.
        Internal: a link cannot be made.
        Unavailable: nothing passes.
    """
    with _built(name) as (network, _):
        _wait_until_reachable(network)
        yield network


@contextmanager
def judged(name: str, mount: Path, entries: int) -> Iterator[Network]:
    """Nodes with our programs, maps of a large cluster, and a policy in force at both pods.

    Args:
        name: what the names of its namespaces begin with.
        mount: a bpffs, for pins that no other process sees.
        entries: of each policy set of the two pods.

    Raises:
        OSError: no privilege, or the kernel refuses the programs.
        Internal: a link cannot be made.
        Unavailable: nothing passes.
    """
    with ExitStack() as stack:
        network, links = stack.enter_context(_built(name))
        for node, link in links.items():
            pins = mount / network.node(node)
            stack.callback(bpffs.remove_pins, pins)
            with netns.entered(network.node(node)):
                plane = _plane(node, pins)
                stack.callback(plane.close)
                _fill(plane, node, link, entries)
        _wait_until_reachable(network)
        yield network


def _plane(node: int, pins: Path) -> KernelDataPlane:
    """Runs in the node's namespace."""
    own = world.uplink(node)
    return KernelDataPlane(
        pins,
        config=DataPlaneConfig(
            uplink_ifindex=socket.if_nametoindex("uplink"),
            uplink_mtu=DEFAULT_MTU,
            node_index=node,
            node_ipv4=own.ipv4,
            node_ipv6=own.ipv6,
        ),
    )


def _fill(plane: KernelDataPlane, node: int, link: PodLink, entries: int) -> None:
    """Tells a node of the cluster and attaches its programs; in the node's namespace."""
    index = socket.if_nametoindex(link.host_name)
    plane.upsert_next_hops(list(world.next_hops()))
    plane.upsert_ranges(list(world.ranges()))
    plane.upsert_mappings(list(world.mappings()))
    own_policy = world.policy(world.identity(node), world.identity(_other(node)), entries, 1)
    for policy in (own_policy, *world.neighbour_policies(node, first_set=1)):
        for policy_set in policy.sets:
            plane.write_policy_set(policy_set)
        plane.upsert_subjects([policy.subject])
    own = LocalEndpoint(
        ifindex=index,
        endpoint_id=index,
        identity=world.identity(node),
        ipv4=link.addresses.ipv4,
        ipv6=link.addresses.ipv6,
        pod_mac=link.pod_mac,
        host_mac=link.host_mac,
    )
    plane.upsert_local_endpoints([own, *world.neighbours(node, NO_LINK)])
    plane.attach_pod(index)
    plane.attach_uplink(socket.if_nametoindex("uplink"))


@contextmanager
def _built(name: str) -> Iterator[tuple[Network, dict[int, PodLink]]]:
    """Namespaces, links and routes; also the pods' links by node."""
    network = Network(name)
    with ExitStack() as stack:
        for node in NODES:
            for namespace in (network.node(node), network.pod(node)):
                stack.callback(netns.delete, namespace)
                netns.create(namespace)
                netns.write_sysctls(namespace, NAMESPACE_SYSCTLS)
        _connect(network)
        yield network, {node: _join(network, node) for node in NODES}


def _connect(network: Network) -> None:
    ends = {node: network.node(node) for node in NODES}
    pair = f"type veth peer name uplink netns {ends[SERVER_NODE]}"
    netns.ip_batch(ends[CLIENT_NODE], [f"link add uplink mtu {DEFAULT_MTU} {pair}"])
    for node, namespace in ends.items():
        own = world.uplink(node)
        commands = [f"addr add {_text(own.ipv4)}/16 dev uplink"]
        commands += [f"addr add {_text(own.ipv6)}/64 dev uplink nodad", "link set uplink up"]
        netns.ip_batch(namespace, ["link set lo up", *commands])


def _join(network: Network, node: int) -> PodLink:
    """Gives a node its pod, and the routes to the other one."""
    link = PodLink(
        number=1,
        node_uid=f"{network.name}-{node}",
        ifname="eth0",
        addresses=world.pod(node),
        mtu=DEFAULT_MTU,
    )
    other = _other(node)
    far = [routes.route(block, world.uplink(other), own=False) for block in world.blocks(other)]
    pod = os.open(netns.path(network.pod(node)), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netns.entered(network.node(node)):
            for setting, value in sysctl.NODE.items():
                sysctl.write(setting, value)
            with closing(Links()) as links:
                links.create(link, pod)
                uplink = socket.if_nametoindex("uplink")
                links.run(routing.add([route for route in far if route is not None], uplink))
    finally:
        os.close(pod)
    return link


def _other(node: int) -> int:
    return SERVER_NODE if node == CLIENT_NODE else CLIENT_NODE


def _text(address: bytes | None) -> str:
    assert address is not None, "all of this world have both families"
    return format_address(address)


def addresses(node: int) -> dict[str, str]:
    """Of a node's pod, by family."""
    pair: AddressPair = world.pod(node)
    return {"ipv4": _text(pair.ipv4), "ipv6": _text(pair.ipv6)}


def _wait_until_reachable(network: Network) -> None:
    """Sends until something arrives, in both families."""
    deadline = time.monotonic() + REACHABLE_SECONDS
    for name, family in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6)):
        with ExitStack() as stack:
            with netns.entered(network.pod(SERVER_NODE)):
                server = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            with netns.entered(network.pod(CLIENT_NODE)):
                client = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            server.bind((addresses(SERVER_NODE)[name], 0))
            server.settimeout(0.05)
            while not _arrives(client, server):
                if time.monotonic() > deadline:
                    raise Unavailable(f"nothing passes between the pods of {network.name}, {name}")


def _arrives(client: socket.socket, server: socket.socket) -> bool:
    client.sendto(b"?", server.getsockname())
    try:
        server.recv(1)
    except TimeoutError:
        return False
    return True

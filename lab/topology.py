"""Names, addresses and links of a lab, computed before anything is made. Pure.

             dp-LAB-control                           dp-LAB-fabric
       etcd, ipam, endpoints, slicer                   bridge fabric
    bridge mgmt 198.18.0.1/16 fd98::1/64      198.19.0.0/16, fd99::/64 (no address of its own)
         │ node-1     │ node-2                     │ node-1     │ node-2
         │            │                            │            │
         │ mgmt       │ mgmt                       │ uplink     │ uplink
     dp-LAB-node-1  dp-LAB-node-2              dp-LAB-node-1  dp-LAB-node-2

The management link carries the control plane, the uplink the pods: either can be cut alone.
"""

import hashlib
import re
from dataclasses import dataclass

from deltaplane.errors import Invalid

LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,14}")
"""No dash: the namespaces of lab "a" are then never a prefix match of lab "a-b"."""

MAX_NODES = 200
"""Node numbers are the last byte of an address; 200 agents are more than one machine carries."""

ROUTINGS = ("native", "vxlan")
EXTERNAL_MODES = ("snat", "dsr")
DEFAULT_MTU = 1500
MTU_RANGE = (1400, 65535)
"""Bytes of a packet on the fabric; wrapped, IPv6 of 1280 still fits. The most that a veth takes."""

CONTROL_IPV4 = "198.18.0.1"
CONTROL_IPV6 = "fd98::1"

SERVICE_RANGES = ("10.96.0.0/16", "fd00:10:96::/112")
"""Where services get their addresses from."""

NAME_SERVERS = ("10.96.0.10", "fd00:10:96::a")
"""Addresses of the name server's own service."""

PORTS = {"etcd": 2379, "ipam": 4001, "endpoints": 4002, "slicer": 4003}
"""TCP ports in the control namespace, which is the lab's own: they cannot be taken."""

PORTS_APART = 100
"""Between the ports of one replica, or member of etcd, and those of the next."""

MAX_REPLICAS = 9

# Duplicate address detection would delay every address by a second, router advertisements never
# come.
NAMESPACE_SYSCTLS = (
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the lab.

    Attributes:
        number: 1..MAX_NODES, last byte of its addresses.
        name: node name, also the name of its ports in the two bridges.
        namespace: its network namespace.
    """

    number: int
    name: str
    namespace: str

    @property
    def management_ipv4(self) -> str:
        """Address of the management link."""
        return f"198.18.1.{self.number}"

    @property
    def management_ipv6(self) -> str:
        """Address of the management link."""
        return f"fd98::1:{self.number:x}"

    @property
    def uplink_ipv4(self) -> str:
        """Address of the uplink: next hop of the node's blocks."""
        return f"198.19.0.{self.number}"

    @property
    def uplink_ipv6(self) -> str:
        """Address of the uplink: next hop of the node's blocks."""
        return f"fd99::{self.number:x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Commands of `ip -batch` in one namespace, in order."""

    namespace: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The whole plan of a lab's network.

    Attributes:
        lab: lab name.
        nodes: ordered by number, from 1.
        routing: one of ROUTINGS.
        mtu: of the uplinks and what joins them, bytes.
        trace_ratio: part of the ADDs that is traced, 0..1.
        zones: how many zones the nodes are spread over; 0: nodes have none.
        external_mode: one of EXTERNAL_MODES.
        cgroup: folder of the nodes' control groups; empty: there are none.
        replicas: of each service.
        tls: processes show each other certificates of the lab's own CA.
        in_memory: no namespace is made, processes meet on unix sockets, and agents carry no packet.
    """

    lab: str
    nodes: tuple[Node, ...]
    routing: str = "native"
    mtu: int = DEFAULT_MTU
    trace_ratio: float = 1.0
    zones: int = 0
    external_mode: str = "snat"
    cgroup: str = ""
    replicas: int = 1
    tls: bool = False
    in_memory: bool = False

    @property
    def members(self) -> int:
        """How many members etcd has: where one service may be lost, one of them may be, too."""
        return 3 if self.replicas > 1 else 1

    @property
    def control(self) -> str:
        """Namespace of etcd and the services."""
        return f"dp-{self.lab}-control"

    @property
    def fabric(self) -> str:
        """Namespace of the bridge between the uplinks."""
        return f"dp-{self.lab}-fabric"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces but those of pods."""
        return (self.control, self.fabric, *(node.namespace for node in self.nodes))

    def zone(self, node: Node) -> str:
        """Zone of a node; empty: it has none. Neighbours by number are in different ones."""
        return f"zone-{(node.number - 1) % self.zones + 1}" if self.zones else ""

    def group(self, node: str) -> str:
        """Folder of a node's control group; empty: it has none."""
        return f"{self.cgroup}/{node}" if self.cgroup else ""

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            Invalid: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise Invalid("nodeName", f"lab {self.lab} has no node {name!r}; it has {known}")

    def batches(self) -> tuple[Batch, ...]:
        """What makes the links: bridges and veth pairs first, then each node's ends."""
        control = [
            "link set lo up",
            "link add mgmt type bridge mcast_snooping 0",
            f"addr add {CONTROL_IPV4}/16 dev mgmt",
            f"addr add {CONTROL_IPV6}/64 dev mgmt nodad",
            "link set mgmt up",
        ]
        fabric = [
            "link set lo up",
            f"link add fabric mtu {self.mtu} type bridge mcast_snooping 0",
            "link set fabric up",
        ]
        for node in self.nodes:
            control += _port(node, bridge="mgmt", far_end="mgmt", mtu=DEFAULT_MTU)
            fabric += _port(node, bridge="fabric", far_end="uplink", mtu=self.mtu)
        return (
            Batch(namespace=self.control, commands=tuple(control)),
            Batch(namespace=self.fabric, commands=tuple(fabric)),
            *(Batch(namespace=node.namespace, commands=_ends(node)) for node in self.nodes),
        )


def _port(node: Node, *, bridge: str, far_end: str, mtu: int) -> tuple[str, ...]:
    """A veth pair whose far end is born in the node's namespace: moving it costs 29 ms."""
    peer = f"peer name {far_end} mtu {mtu} netns {node.namespace}"
    return (
        f"link add {node.name} mtu {mtu} type veth {peer}",
        f"link set {node.name} master {bridge} up",
    )


def _ends(node: Node) -> tuple[str, ...]:
    return (
        "link set lo up",
        f"addr add {node.management_ipv4}/16 dev mgmt",
        f"addr add {node.management_ipv6}/64 dev mgmt nodad",
        "link set mgmt up",
        f"addr add {node.uplink_ipv4}/16 dev uplink",
        f"addr add {node.uplink_ipv6}/64 dev uplink nodad",
        "link set uplink up",
    )


def check_name(lab: str) -> str:
    """Gives the name back.

    Raises:
        Invalid: it is no lab name.
    """
    if not LAB_NAME.fullmatch(lab):
        raise Invalid("name", f"{lab!r} is not a lab name: 1 to 15 of a-z and 0-9, a letter first")
    return lab


def plan(
    lab: str,
    nodes: int,
    *,
    routing: str = "native",
    mtu: int = DEFAULT_MTU,
    trace_ratio: float = 1.0,
    zones: int = 0,
    external_mode: str = "snat",
    cgroup: str = "",
    replicas: int = 1,
    tls: bool = False,
    in_memory: bool = False,
) -> Topology:
    """Computes the network of a lab.

    Raises:
        Invalid: a name or a number that cannot be.
    """
    check_name(lab)
    if routing not in ROUTINGS:
        raise Invalid("routing", f"{routing!r} is none of {', '.join(ROUTINGS)}")
    if external_mode not in EXTERNAL_MODES:
        raise Invalid("external_mode", f"{external_mode!r} is none of {', '.join(EXTERNAL_MODES)}")
    if not MTU_RANGE[0] <= mtu <= MTU_RANGE[1]:
        raise Invalid("mtu", f"{mtu} is outside {MTU_RANGE[0]}..{MTU_RANGE[1]}")
    if not 0.0 <= trace_ratio <= 1.0:
        raise Invalid("trace_ratio", f"{trace_ratio} is outside 0..1")
    if not 0 <= zones <= MAX_NODES:
        raise Invalid("zones", f"{zones} is outside 0..{MAX_NODES}")
    if not 1 <= replicas <= MAX_REPLICAS:
        raise Invalid("replicas", f"{replicas} is outside 1..{MAX_REPLICAS}")
    if not 1 <= nodes <= MAX_NODES:
        raise Invalid("nodes", f"{nodes} is outside 1..{MAX_NODES}")
    return Topology(
        lab=lab,
        nodes=tuple(
            Node(number=number, name=f"node-{number}", namespace=f"dp-{lab}-node-{number}")
            for number in range(1, nodes + 1)
        ),
        routing=routing,
        mtu=mtu,
        trace_ratio=trace_ratio,
        zones=zones,
        external_mode=external_mode,
        cgroup=cgroup,
        replicas=replicas,
        tls=tls,
        in_memory=in_memory,
    )


def pod_namespace(lab: str, uid: str) -> str:
    """Network namespace of a pod; by UID: a namesake may come before the old pod is gone."""
    return f"dp-{lab}-pod-{hashlib.blake2b(uid.encode(), digest_size=6).hexdigest()}"


def pod_namespace_prefix(lab: str) -> str:
    """What the names of all pod namespaces of a lab begin with, and no other names do."""
    return f"dp-{lab}-pod-"

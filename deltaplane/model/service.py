"""Services and the addresses behind them, as they are stored and as the stream carries them.

    Service ──┬─ ports of addresses = frontends: what clients connect to
              └─ EndpointSlices (one address family, one list of ports each) ──► backends

What is judged here the way Kubernetes judges it: names, defaults and limits are those of the
Service and EndpointSlice kinds (v1 and discovery.k8s.io/v1).
"""

import enum
from dataclasses import dataclass

from deltaplane.model.addresses import Prefix
from deltaplane.model.ports import Protocol


class ServiceType(enum.IntEnum):
    """Numbers of deltaplane.v1.ServiceType."""

    CLUSTER_IP = 1
    NODE_PORT = 2
    LOAD_BALANCER = 3
    EXTERNAL_NAME = 4


class Distribution(enum.IntEnum):
    """Which backends clients inside the cluster are given, where the hints of slices allow it."""

    ANY = 0
    SAME_ZONE = 1
    SAME_NODE = 2


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ServicePort:
    """One port of a service.

    Attributes:
        name: names it among the ports of the service and in its slices; "" if it is the only one.
        protocol: TCP, UDP or SCTP.
        port: of every address but the nodes', 1..65535.
        node_port: of the nodes' addresses, 0: none.
        target: port of the pods, a number as text or a name; "": as `port`. Only who makes slices
            reads it.
    """

    name: str = ""
    protocol: Protocol = Protocol.TCP
    port: int
    node_port: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service as it is stored.

    Attributes:
        namespace, name: as in Kubernetes.
        number: cluster-wide, never given twice inside a lineage, 1 or more; 0: not stored yet.
        type: see ServiceType; nothing is programmed for EXTERNAL_NAME.
        cluster_ips: at most one of each family, the primary first; empty: headless, nothing is
            programmed for these either.
        ports: unique in name, and in (protocol, port).
        selector: pods behind it; None: somebody else makes its slices.
        external_ips: addresses that the world routes to nodes by itself, 4 or 16 bytes.
        load_balancer_ips: of a load balancer in front of the nodes.
        source_ranges: who may use the load balancer's addresses; empty: everybody.
        affinity_seconds: a client keeps its backend for as long; 0: no affinity.
        internal_local: clients inside the cluster are given backends of their own node only.
        external_local: what comes from outside stays on the node and keeps its source.
        health_check_node_port: where nodes say over HTTP whether they have backends; 0: nowhere.
        publish_not_ready: pods count as ready whatever they say.
        distribution: see Distribution.
        external_name: for EXTERNAL_NAME: another name.
    """

    namespace: str
    name: str
    number: int = 0
    type: ServiceType = ServiceType.CLUSTER_IP
    cluster_ips: tuple[bytes, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    selector: tuple[tuple[str, str], ...] | None = None
    external_ips: tuple[bytes, ...] = ()
    load_balancer_ips: tuple[bytes, ...] = ()
    source_ranges: tuple[Prefix, ...] = ()
    affinity_seconds: int = 0
    internal_local: bool = False
    external_local: bool = False
    health_check_node_port: int = 0
    publish_not_ready: bool = False
    distribution: Distribution = Distribution.ANY
    external_name: str = ""

    @property
    def reference(self) -> str:
        """Namespace and name, with '/' between them."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SlicePort:
    """A port of all endpoints of a slice.

    Attributes:
        name: of the service's port that it belongs to.
        protocol: TCP, UDP or SCTP.
        number: 1..65535.
    """

    name: str = ""
    protocol: Protocol = Protocol.TCP
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEndpoint:
    """One endpoint of a slice.

    Attributes:
        address: 4 or 16 bytes.
        ready: may be given new connections.
        serving: would be ready if it were not going.
        terminating: it goes.
        node: name of its node; "": unknown, or no node of the cluster.
        zones: clients of these zones should use it (hints); empty: no hint.
        nodes: clients on these nodes should use it (hints); empty: no hint.
        hostname: its own name below that of the service; "": none.
        target: "namespace/name" of the pod; "": something else.
    """

    address: bytes
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    hostname: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice:
    """Some of the endpoints of a service, as they are stored.

    Attributes:
        namespace, name: as in Kubernetes.
        service: name of the service, in the same namespace (kubernetes.io/service-name).
        ports: unique in name.
        endpoints: all of one family, at most 1000.
    """

    namespace: str
    name: str
    service: str
    ports: tuple[SlicePort, ...] = ()
    endpoints: tuple[SliceEndpoint, ...] = ()

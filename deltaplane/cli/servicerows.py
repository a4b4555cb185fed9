"""Services and endpoint slices as records to print, and what they mean in words. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from deltaplane.cli.output import Record
from deltaplane.model.addresses import format_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import (
    Distribution,
    EndpointSlice,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)

TYPE_WORDS = {
    ServiceType.CLUSTER_IP: "ClusterIP",
    ServiceType.NODE_PORT: "NodePort",
    ServiceType.LOAD_BALANCER: "LoadBalancer",
    ServiceType.EXTERNAL_NAME: "ExternalName",
}
NODES = "every node"
"""Stands for the nodes' own addresses."""


def family(address: bytes) -> str:
    """For people."""
    return "IPv4" if len(address) == 4 else "IPv6"


def socket_text(address: bytes, port: int) -> str:
    """For example 10.0.0.1:80 or [fd00::1]:80."""
    text = format_address(address)
    return f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"


def service(item: Service) -> Record:
    """One line of a table."""
    return {
        "namespace": item.namespace,
        "name": item.name,
        "type": TYPE_WORDS[item.type],
        "cluster_ips": [format_address(address) for address in item.cluster_ips]
        or ([] if item.type is ServiceType.EXTERNAL_NAME else ["None"]),
        "external": [*map(format_address, (*item.external_ips, *item.load_balancer_ips))]
        or ([item.external_name] if item.external_name else []),
        "ports": [_port(port) for port in item.ports],
        "selector": dict(item.selector or ()),
        "number": item.number,
    }


def _port(port: ServicePort) -> str:
    node_port = f":{port.node_port}" if port.node_port else ""
    return f"{port.port}{node_port}/{port.protocol.name}"


def slice_(item: EndpointSlice) -> Record:
    """One line of a table."""
    families = sorted({family(endpoint.address) for endpoint in item.endpoints})
    return {
        "namespace": item.namespace,
        "name": item.name,
        "service": item.service,
        "family": ", ".join(families),
        "ports": [_slice_port(port) for port in item.ports],
        "endpoints": len(item.endpoints),
        "ready": sum(endpoint.ready for endpoint in item.endpoints),
        "addresses": [format_address(endpoint.address) for endpoint in item.endpoints],
    }


def _slice_port(port: SlicePort) -> str:
    named = f"{port.name}:" if port.name else ""
    return f"{named}{port.number}/{port.protocol.name}"


# --- one service ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """An address behind a port of a service.

    Attributes:
        port: name of the service's port.
        protocol: of it.
        number: port of the backend.
        endpoint: address and state.
    """

    port: str
    protocol: Protocol
    number: int
    endpoint: SliceEndpoint

    @property
    def state(self) -> str:
        """One word or two."""
        endpoint = self.endpoint
        if endpoint.terminating:
            return "terminating, serving" if endpoint.serving else "terminating"
        return "ready" if endpoint.ready else "not ready"


def backends(slices: Iterable[EndpointSlice]) -> list[Backend]:
    """All backends, by port and address."""
    found = {
        Backend(port=port.name, protocol=port.protocol, number=port.number, endpoint=endpoint)
        for item in slices
        for port in item.ports
        for endpoint in item.endpoints
    }
    return sorted(
        found,
        key=lambda it: (it.port, len(it.endpoint.address), it.endpoint.address, it.number),
    )


def frontends(item: Service) -> Iterator[tuple[str, ServicePort]]:
    """Where clients connect to, as text, and the port that it is."""
    if item.type is ServiceType.EXTERNAL_NAME:
        return
    for port in item.ports:
        for address in (*item.cluster_ips, *item.external_ips, *item.load_balancer_ips):
            yield socket_text(address, port.port), port
        if port.node_port:
            yield f"{NODES}:{port.node_port}", port


def backend_record(item: Backend) -> Record:
    """One line."""
    endpoint = item.endpoint
    return {
        "port": item.port or "-",
        "backend": f"{socket_text(endpoint.address, item.number)}/{item.protocol.name}",
        "state": item.state,
        "node": endpoint.node or "-",
        "pod": endpoint.target or "-",
        "zones": list(endpoint.zones),
    }


def describe(item: Service, slices: Sequence[EndpointSlice]) -> Record:
    """Everything about one service."""
    behind = backends(slices)
    return {
        "service": item.reference,
        "type": TYPE_WORDS[item.type],
        "number": item.number,
        "selector": dict(item.selector or ()) or "none: somebody else makes its endpoint slices",
        "frontends": [
            {"at": where, "protocol": port.protocol.name, "port": port.name or "-"}
            for where, port in frontends(item)
        ]
        or "none",
        "rules": list(rules(item)) or "none: any client is given any ready backend",
        "endpoint slices": [one.name for one in slices] or "none",
        "backends": [backend_record(one) for one in behind] or "none",
        "meaning": meaning(item, behind),
    }


def rules(item: Service) -> Iterator[str]:
    """What is said about clients and backends beyond the default, each a sentence."""
    if item.internal_local:
        yield "internalTrafficPolicy Local: clients in the cluster get backends of their own node"
    if item.external_local:
        yield (
            "externalTrafficPolicy Local: who comes from outside stays on the node that it came "
            "to, and keeps its address"
        )
    if item.affinity_seconds:
        yield f"ClientIP: a client keeps its backend until {item.affinity_seconds} s without it"
    if item.source_ranges:
        ranges = ", ".join(map(str, item.source_ranges))
        yield f"only {ranges} may use the addresses of the load balancer"
    if item.publish_not_ready:
        yield "publishNotReadyAddresses: pods count as ready whatever they say"
    if item.distribution is Distribution.SAME_ZONE:
        yield "clients in the cluster get backends of their own zone, where it has some"
    if item.distribution is Distribution.SAME_NODE:
        yield "clients in the cluster get backends of their own node, else of their zone"
    if item.health_check_node_port:
        yield (
            f"every node says at http://NODE:{item.health_check_node_port}/ whether it has backends"
        )


def meaning(item: Service, behind: Sequence[Backend]) -> str:
    """What becomes of clients, in one sentence."""
    if item.type is ServiceType.EXTERNAL_NAME:
        return f"another name for {item.external_name}: DNS only, nothing is programmed"
    states = Counter(one.state for one in behind)
    if not (item.cluster_ips or item.external_ips or item.load_balancer_ips):
        ready = len({one.endpoint.address for one in behind if one.endpoint.ready})
        return (
            f"headless: its name stands for the addresses of {ready} ready endpoints, "
            "nothing is programmed"
        )
    if states["ready"]:
        return "new connections go to backends that are ready"
    if any(one.endpoint.ready for one in behind):
        return "new connections go to backends that are terminating and published as ready"
    if states["terminating, serving"]:
        return "no backend is ready: new connections go to those that are terminating and serve"
    if not behind:
        return "it has no backend: connections are refused"
    return "no backend is ready: connections are refused"

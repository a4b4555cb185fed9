"""Which service an address and port are, and what clients there are given. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.cli.output import Record
from deltaplane.cli.servicerows import Backend, backends, meaning, socket_text
from deltaplane.errors import Invalid
from deltaplane.model.addresses import format_address, parse_address
from deltaplane.model.ports import MAX_PORT, Protocol
from deltaplane.model.service import EndpointSlice, Service, ServicePort, ServiceType

Place = tuple[bytes, int]
"""Address of 4 or 16 bytes, and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a client connects to."""

    address: bytes
    port: int
    protocol: Protocol = Protocol.TCP

    def __str__(self) -> str:
        return f"{socket_text(self.address, self.port)}/{self.protocol.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A port of a service that answers there.

    Attributes:
        service: whose.
        port: which of its ports.
        kind: as what the service has the address, for people.
    """

    service: Service
    port: ServicePort
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one node's kernel holds of the target; see deltaplane.v1.NodeFrontend.

    Attributes:
        service: number of the service.
        inside: given to clients inside the cluster.
        outside: given to clients outside; None: they are not answered.
        check_source: clients outside must lie in a source range.
    """

    service: int
    inside: tuple[Place, ...]
    outside: tuple[Place, ...] | None = None
    check_source: bool = False


def read_target(text: str, protocol: str) -> Target:
    """Reads 10.96.0.7:80 or [fd00::7]:80.

    Raises:
        Invalid: it is no such thing, or there is no such protocol.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if protocol.upper() not in ("TCP", "UDP", "SCTP"):
        raise Invalid("--protocol", f"{protocol!r} is none of TCP, UDP, SCTP")
    if not colon or not port.isdecimal() or not 1 <= int(port) <= MAX_PORT:
        raise Invalid("", f"{text!r}: write it as ADDRESS:PORT, an IPv6 address in brackets")
    try:
        address = parse_address(host)
    except ValueError as error:
        raise Invalid("", f"{text!r}: {error}") from error
    return Target(address=address, port=int(port), protocol=Protocol[protocol.upper()])


def matches(
    target: Target, services: Iterable[Service], nodes: Mapping[bytes, str]
) -> Match | None:
    """The service port that the target is; nodes: names by their addresses."""
    on_node = nodes.get(target.address)
    for service in services:
        if service.type is ServiceType.EXTERNAL_NAME:
            continue
        kind = _kind(service, target.address)
        for port in service.ports:
            if port.protocol is not target.protocol:
                continue
            if kind and port.port == target.port:
                return Match(service=service, port=port, kind=kind)
            if on_node and port.node_port == target.port:
                return Match(service=service, port=port, kind=f"node port, at {on_node}")
    return None


def _kind(service: Service, address: bytes) -> str:
    if address in service.cluster_ips:
        return "cluster address"
    if address in service.external_ips:
        return "external address"
    return "address of the load balancer" if address in service.load_balancer_ips else ""


def why_none(
    target: Target,
    services: Iterable[Service],
    nodes: Mapping[bytes, str],
    pods: Mapping[bytes, str],
) -> str:
    """Why no service answers at the target; pods: names by their addresses."""
    for service in services:
        if kind := _kind(service, target.address):
            there = ", ".join(f"{port.port}/{port.protocol.name}" for port in service.ports)
            return f"it is the {kind} of {service.reference}, which has no such port: {there}"
    shown = format_address(target.address)
    if pod := pods.get(target.address):
        return f"{shown} is the address of pod {pod}: no service is on the way"
    if node := nodes.get(target.address):
        return f"{shown} is an address of {node}, but no service has this node port"
    return f"no service has the address {shown}"


def trace(
    target: Target,
    match: Match,
    slices: Sequence[EndpointSlice],
    answers: Mapping[str, Answer | str | None],
    *,
    inside_only: bool,
) -> Record:
    """Everything about the target.

    Args:
        target: where a client connects to.
        match: which service port that is.
        slices: of the service.
        answers: by node: what its kernel holds; None: nothing; a text: why that is not known.
        inside_only: nothing is said of clients outside the cluster.
    """
    behind = [
        one
        for one in backends(slices)
        if one.port == match.port.name
        and one.protocol is match.port.protocol
        and len(one.endpoint.address) == len(target.address)
    ]
    return {
        "target": str(target),
        "service": match.service.reference,
        "port": match.port.name or "-",
        "as": match.kind,
        "meaning": meaning(match.service, behind),
        "nodes": [
            _node(node, answer, match.service, behind, inside_only=inside_only)
            for node, answer in answers.items()
        ]
        or "name agents with --agent to see what nodes do",
    }


def _node(
    node: str,
    answer: Answer | str | None,
    service: Service,
    behind: Sequence[Backend],
    *,
    inside_only: bool,
) -> Record:
    if isinstance(answer, str):
        return {"node": node, "answers": f"not known: {answer}"}
    if answer is None:
        return {"node": node, "answers": "no: the node does not know this service (yet)"}
    names = {(one.endpoint.address, one.number): one for one in behind}
    record: dict[str, str | list[str]] = {
        "node": node,
        "answers": "yes" if answer.inside else f"no: {_why_refused(service, behind)}",
        "backends": [_name(place, names) for place in answer.inside],
    }
    others = [one for place, one in names.items() if place not in answer.inside]
    if others:
        record["others"] = [
            f"{_name((one.endpoint.address, one.number), names)}: {_why_not(one, node, service)}"
            for one in others
        ]
    if not inside_only:
        record["outside"] = _outside(answer, service, behind, names)
    return record


def _outside(
    answer: Answer, service: Service, behind: Sequence[Backend], names: Mapping[Place, Backend]
) -> str | list[str]:
    if answer.outside is None:
        return "not answered"
    if not answer.outside:
        where = "no backend on this node" if service.external_local and behind else "no backend"
        return f"refused: {where}"
    only = (
        [f"only from {', '.join(map(str, service.source_ranges))}"] if answer.check_source else []
    )
    return [*only, *(_name(place, names) for place in answer.outside)]


def _name(place: Place, names: Mapping[Place, Backend]) -> str:
    known = names.get(place)
    shown = socket_text(*place)
    if known is None:
        return f"{shown} (in no slice any more)"
    words = [word for word in (known.endpoint.target, known.endpoint.node) if word]
    return f"{shown} ({', '.join([*words, known.state])})"


def _why_refused(service: Service, behind: Sequence[Backend]) -> str:
    usable = [one for one in behind if one.endpoint.ready or one.endpoint.serving]
    if usable and service.internal_local:
        return "refused, as no backend is on this node and internalTrafficPolicy is Local"
    if usable:
        return "refused, although there are backends: the node may be behind"
    return "refused, as no backend is ready" if behind else "refused, as there is no backend"


def _why_not(one: Backend, node: str, service: Service) -> str:
    endpoint = one.endpoint
    if endpoint.terminating:
        return "it is terminating"
    if not endpoint.ready:
        return "it is not ready"
    if service.internal_local and endpoint.node != node:
        return "it is on another node, and internalTrafficPolicy is Local"
    if endpoint.nodes or endpoint.zones:
        return f"it is for {', '.join((*endpoint.nodes, *endpoint.zones))}"
    return "the node may be behind"

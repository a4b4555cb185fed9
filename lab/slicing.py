"""Which endpoint slices a service should have, made as Kubernetes' controller makes them. Pure.

    pods of the service ──group──► (family, ports) ──diff──► slices of at most 100 endpoints

Pods whose named ports have different numbers are in different slices. An endpoint stays in the
slice where it is, so that a pod that changes rewrites one slice; a slice that has room is filled
before a new one is made.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from deltaplane.model.addresses import parse_address
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
from lab.pods import SERVING, Phase, Pod

MAX_ENDPOINTS = 100
"""Of a slice: the controller's --max-endpoints-per-slice."""

Ports = tuple[SlicePort, ...]
Group = tuple[int, Ports]
"""(4 or 6, ports) of the endpoints that may share a slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceChange:
    """What makes the slices agree with pods. Write before removing: an endpoint may move.

    Attributes:
        write: new slices and those that change.
        remove: those that are to go.
    """

    write: tuple[EndpointSlice, ...] = ()
    remove: tuple[EndpointSlice, ...] = ()


def plan(
    service: Service,
    families: Sequence[int],
    pods: Iterable[Pod],
    zones: Mapping[str, str],
    existing: Iterable[EndpointSlice],
) -> SliceChange:
    """Computes what to write and to remove.

    Args:
        service: as it is stored.
        families: of its addresses, of 4 and 6; of a headless service those that it asks for.
        pods: all, at least those of its namespace.
        zones: node → zone; a node that is missing has none.
        existing: all slices of the service; those that somebody else has made stay.
    """
    own = [item for item in existing if is_own(service.name, item)]
    if service.selector is None or service.type is ServiceType.EXTERNAL_NAME:
        return SliceChange(remove=tuple(own))
    wanted = endpoints(service, families, pods, zones)
    write: list[EndpointSlice] = []
    remove: list[EndpointSlice] = []
    for family in (4, 6):
        groups = {ports: found for (of, ports), found in wanted.items() if of == family}
        there = [item for item in own if _family(item) == family]
        change = _reconcile(service, family, groups, there)
        write += change.write
        remove += change.remove
    return SliceChange(write=tuple(write), remove=tuple(remove))


def is_own(service: str, item: EndpointSlice) -> bool:
    """Whether the lab has made this slice of a service: its name says so."""
    return re.fullmatch(re.escape(service) + r"-ipv[46]-[1-9][0-9]*", item.name) is not None


def endpoints(
    service: Service, families: Sequence[int], pods: Iterable[Pod], zones: Mapping[str, str]
) -> dict[Group, dict[bytes, SliceEndpoint]]:
    """The endpoints of a service, by group and address."""
    found: dict[Group, dict[bytes, SliceEndpoint]] = {}
    for pod in sorted(pods, key=lambda pod: pod.name):
        if not _belongs(service, pod):
            continue
        ports = target_ports(service.ports, pod)
        for text in pod.addresses:
            address = parse_address(text)
            family = 4 if len(address) == 4 else 6
            if family in families:
                group = found.setdefault((family, ports), {})
                group[address] = _endpoint(service, pod, address, zones.get(pod.node, ""))
    return found


def target_ports(ports: Iterable[ServicePort], pod: Pod) -> Ports:
    """What a service's ports are on a pod; a name that the pod does not have is left out."""
    found = []
    for port in ports:
        number = _target(port, pod)
        if number is not None:
            found.append(SlicePort(name=port.name, protocol=port.protocol, number=number))
    return tuple(found)


def _target(port: ServicePort, pod: Pod) -> int | None:
    if not port.target:
        return port.port
    if port.target.isdecimal():
        return int(port.target)
    named = (
        known.number
        for known in pod.ports
        if (known.name, known.protocol) == (port.target, Protocol(port.protocol).name)
    )
    return next(named, None)


def _belongs(service: Service, pod: Pod) -> bool:
    labels = pod.labels
    return (
        pod.namespace == service.namespace
        and pod.phase in SERVING
        and all(labels.get(key) == value for key, value in service.selector or ())
    )


def _endpoint(service: Service, pod: Pod, address: bytes, zone: str) -> SliceEndpoint:
    terminating = pod.phase is Phase.TERMINATING
    ready = service.publish_not_ready or (pod.is_ready and not terminating)
    hinted = ready and service.distribution is not Distribution.ANY
    by_node = hinted and service.distribution is Distribution.SAME_NODE
    return SliceEndpoint(
        address=address,
        ready=ready,
        serving=pod.is_ready,
        terminating=terminating,
        node=pod.node,
        zones=(zone,) if hinted and zone else (),
        nodes=(pod.node,) if by_node else (),
        hostname=pod.hostname if pod.subdomain == service.name else "",
        target=pod.reference,
    )


# --- from the endpoints to slices ----------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """A slice in the making: what it is called, and its endpoints by address."""

    name: str
    ports: Ports
    kept: dict[bytes, SliceEndpoint] = field(default_factory=dict)

    @property
    def room(self) -> int:
        return MAX_ENDPOINTS - len(self.kept)

    def made(self, service: Service) -> EndpointSlice:
        return EndpointSlice(
            namespace=service.namespace,
            name=self.name,
            service=service.name,
            ports=self.ports,
            endpoints=tuple(self.kept[address] for address in sorted(self.kept)),
        )


def _reconcile(
    service: Service,
    family: int,
    groups: Mapping[Ports, Mapping[bytes, SliceEndpoint]],
    there: Sequence[EndpointSlice],
) -> SliceChange:
    """The slices of one family."""
    stored = {item.name: item for item in there}
    drafts = [_still_there(item, groups.get(item.ports, {})) for item in there]
    drafts = [draft for draft in drafts if draft.kept]
    taken = {draft.name for draft in drafts}
    named = (f"{service.name}-ipv{family}-{number}" for number in count(1))
    free = (name for name in named if name not in taken)
    for ports, wanted in groups.items():
        mine = [draft for draft in drafts if draft.ports == ports]
        mine.sort(key=lambda draft: (draft.made(service) == stored[draft.name], draft.room))
        placed = {address for draft in mine for address in draft.kept}
        new = [wanted[address] for address in sorted(wanted.keys() - placed)]
        drafts += _fill(new, mine, ports, free)
    written = [draft.made(service) for draft in drafts]
    kept = {item.name for item in written}
    return SliceChange(
        write=tuple(item for item in written if stored.get(item.name) != item),
        remove=tuple(item for item in there if item.name not in kept),
    )


def _still_there(item: EndpointSlice, wanted: Mapping[bytes, SliceEndpoint]) -> _Draft:
    known = [endpoint.address for endpoint in item.endpoints if endpoint.address in wanted]
    return _Draft(item.name, item.ports, {address: wanted[address] for address in known})


def _fill(
    new: Sequence[SliceEndpoint], drafts: Sequence[_Draft], ports: Ports, names: Iterator[str]
) -> list[_Draft]:
    """Puts endpoints into slices in their order, then into new ones, which it returns."""
    for draft in drafts:
        put, new = new[: draft.room], new[draft.room :]
        draft.kept |= {endpoint.address: endpoint for endpoint in put}
    parts = (new[start : start + MAX_ENDPOINTS] for start in range(0, len(new), MAX_ENDPOINTS))
    return [
        _Draft(next(names), ports, {endpoint.address: endpoint for endpoint in part})
        for part in parts
    ]


def _family(item: EndpointSlice) -> int:
    """By the name: an own slice without endpoints is possible where somebody has written it."""
    return int(item.name.rpartition("-ipv")[2][0])

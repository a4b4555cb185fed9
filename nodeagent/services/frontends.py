"""Where clients connect to a service: its ports at each of its addresses. Pure."""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deltaplane.model.addresses import to_mapped
from deltaplane.model.objects import ServiceObject
from deltaplane.model.service import ServicePort
from nodeagent.dataplane.balancing import (
    NODE_PORT_IPV4,
    NODE_PORT_IPV6,
    FrontendKey,
    SourceRange,
)

GroupKey = tuple[str, int, int]
"""Name of the service's port, protocol number, and size of the addresses."""


class Scope(enum.IntEnum):
    """A list of a group: which backends, and whether their places may have holes.

    Numbers, because those are hashed faster than names.
    """

    CLUSTER = enum.auto()
    LOCAL = enum.auto()
    OUTSIDE = enum.auto()
    OUTSIDE_LOCAL = enum.auto()

    @property
    def is_local(self) -> bool:
        """Whether it takes this node's own backends only."""
        return self in {Scope.LOCAL, Scope.OUTSIDE_LOCAL}

    @property
    def is_outside(self) -> bool:
        """Whether it is for clients outside the cluster, by a table."""
        return self in {Scope.OUTSIDE, Scope.OUTSIDE_LOCAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """A frontend without its numbers.

    Attributes:
        key: where clients connect to.
        group: whose backends answer.
        inside: the list of clients inside the cluster.
        outside: the list of clients outside; None: it is no frontend for them.
        check_source: see Frontend.
        local: see Frontend.
    """

    key: FrontendKey
    group: GroupKey
    inside: Scope
    outside: Scope | None = None
    check_source: bool = False
    local: bool = False


def families(service: ServiceObject) -> frozenset[int]:
    """Sizes of addresses that a service has; of others nobody answers.

    Those of its cluster IPs. Without any (ports of hosts) those of its addresses outside.
    """
    return frozenset(map(len, service.cluster_ips or service.external_ips))


def entrances(service: ServiceObject) -> Iterator[Entrance]:
    """All frontends of a service, each key once."""
    served = families(service)
    outside = [*service.external_ips, *service.load_balancer_ips]
    guarded = frozenset(service.load_balancer_ips) if service.source_ranges else frozenset()
    for port in service.ports:
        for address in service.cluster_ips:
            inside = Scope.LOCAL if service.internal_local else Scope.CLUSTER
            yield Entrance(
                key=_key(to_mapped(address), port, port.port),
                group=_group(port, len(address)),
                inside=inside,
            )
        for address in dict.fromkeys(outside):
            if len(address) in served and address not in service.cluster_ips:
                yield _outside(
                    service,
                    port,
                    _key(to_mapped(address), port, port.port),
                    len(address),
                    check_source=address in guarded,
                )
        for size, unspecified in ((4, NODE_PORT_IPV4), (16, NODE_PORT_IPV6)):
            if port.node_port and size in served:
                yield _outside(service, port, _key(unspecified, port, port.node_port), size)


def sources(service: ServiceObject) -> Iterable[SourceRange]:
    """Who may use its load balancer's addresses; empty: everybody."""
    for prefix in service.source_ranges:
        shift = 128 - 8 * len(prefix.address)
        yield SourceRange(
            service=service.number,
            address=to_mapped(prefix.address),
            length=prefix.length + shift,
        )


def _outside(
    service: ServiceObject,
    port: ServicePort,
    key: FrontendKey,
    size: int,
    *,
    check_source: bool = False,
) -> Entrance:
    return Entrance(
        key=key,
        group=_group(port, size),
        # Clients inside the cluster are not told apart from the rest of it, whatever the policy.
        inside=Scope.CLUSTER,
        outside=Scope.OUTSIDE_LOCAL if service.external_local else Scope.OUTSIDE,
        check_source=check_source,
        local=service.external_local,
    )


def _key(address: bytes, port: ServicePort, number: int) -> FrontendKey:
    return FrontendKey(address=address, protocol=int(port.protocol), port=number)


def _group(port: ServicePort, size: int) -> GroupKey:
    return port.name, int(port.protocol), size

"""What becomes of a service that somebody applies: what it keeps, and what is to be chosen.

                   request says        request leaves open
new service        as it says          chosen
stored service     as it says, unless  as it is, if it still needs one
                   it may not change
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from deltaplane.errors import Invalid
from deltaplane.model.addresses import format_address
from deltaplane.model.service import Service, ServicePort, ServiceType
from services.endpoints.ranges import Ranges

CHOSEN = b""
"""Stands for an address that is to be chosen."""

WITH_NODE_PORTS = frozenset({ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A service as somebody wants it, or as it is stored.

    Attributes:
        service: number 0 and empty fields are open in a request.
        headless: it has no cluster address.
        families: 4, 6 or both, the primary first; empty in a request: open.
        single: one family, where families are open.
        dual: both families, where families are open; None: one is enough if there is but one.
    """

    service: Service
    headless: bool
    families: tuple[int, ...] = ()
    single: bool = False
    dual: bool | None = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What is known before anything is chosen.

    Attributes:
        service: with CHOSEN among cluster_ips, node ports 0 where wants_node_ports, and health
            check port 0 where wants_health_port.
        families: of the cluster addresses, or of a headless service's endpoints.
    """

    service: Service
    headless: bool
    families: tuple[int, ...]

    @property
    def wants_node_ports(self) -> bool:
        """Whether each port without a node port is to get one."""
        return self.service.type in WITH_NODE_PORTS

    @property
    def wants_health_port(self) -> bool:
        """Whether it is to get a health check port unless it has one."""
        return has_health_port(self.service) and not self.service.health_check_node_port


def has_health_port(service: Service) -> bool:
    """Whether nodes say over HTTP whether they have backends of this service."""
    return service.type is ServiceType.LOAD_BALANCER and service.external_local


def has_addresses(demand: Demand) -> bool:
    """Whether a service has cluster addresses."""
    return not demand.headless and demand.service.type is not ServiceType.EXTERNAL_NAME


def settle(wanted: Demand, stored: Demand | None, ranges: Ranges, path: str) -> Settled:
    """Fills in what a service keeps, and refuses what may not change.

    Args:
        wanted: the request.
        stored: what there is; None: nothing.
        ranges: of the cluster.
        path: where the service lies in the request.

    Raises:
        Invalid: with the path of the field.
    """
    old = None if stored is None else stored.service
    if wanted.service.type is ServiceType.EXTERNAL_NAME:
        service = replace(wanted.service, number=old.number if old else 0)
        return Settled(service=service, headless=False, families=())
    before = stored if stored and stored.service.type is not ServiceType.EXTERNAL_NAME else None
    families = _families(wanted, before, ranges, path)
    ips: tuple[bytes, ...] = ()
    if before is not None:
        _check_primary(wanted, before, families, path)
    if not wanted.headless:
        ips = _addresses(wanted.service.cluster_ips, before, families)
    service = replace(
        wanted.service,
        number=old.number if old else 0,
        cluster_ips=ips,
        ports=_ports(wanted.service, before.service if before else None),
        health_check_node_port=_health_port(wanted.service, before.service if before else None),
    )
    return Settled(service=service, headless=wanted.headless, families=families)


def _families(wanted: Demand, before: Demand | None, ranges: Ranges, path: str) -> tuple[int, ...]:
    """The families that a service is to have, the primary first."""
    given = tuple(4 if len(ip) == 4 else 6 for ip in wanted.service.cluster_ips)
    _check_given(given, wanted.families, path)
    families = wanted.families if len(wanted.families) > len(given) else given
    if not families and before is not None:
        families = before.families
    if not families:
        families = ranges.families[:1]
    is_exact = len(given) == 2 or wanted.families
    if wanted.single and len(families) == 2 and not is_exact:
        families = families[:1]
    if wanted.dual is not False and len(families) == 1:
        others = tuple(it for it in ranges.families if it not in families)
        if not others and wanted.dual:
            raise Invalid(f"{path}.family_policy", "the cluster has service ranges of one family")
        families += others
    for index, family in enumerate(families):
        if ranges.prefix(family) is None and not wanted.headless:
            raise Invalid(
                f"{path}.families[{index}]",
                f"services have no range of IPv{family} here; ask for one family, or start "
                "endpoints with --service-range of both",
            )
    return families


def _check_given(given: tuple[int, ...], families: tuple[int, ...], path: str) -> None:
    if len(given) == 2 and given[0] == given[1]:
        raise Invalid(f"{path}.cluster_ips[1]", f"is a second IPv{given[1]} address")
    for index, (address, family) in enumerate(zip(given, families, strict=False)):
        if address != family:
            raise Invalid(
                f"{path}.cluster_ips[{index}]",
                f"is an IPv{address} address, but families[{index}] is {family}",
            )
    if families and len(given) > len(families):
        raise Invalid(f"{path}.cluster_ips[1]", "families names but one")


def _check_primary(wanted: Demand, before: Demand, families: tuple[int, ...], path: str) -> None:
    """What a service has from its beginning, and keeps until it is deleted."""
    if wanted.headless != before.headless:
        raise Invalid(
            f"{path}.headless",
            "may not change: clients know the service by it; delete the service first",
        )
    if families[:1] != before.families[:1] and before.families:
        raise Invalid(
            f"{path}.families[0]",
            f"the primary family is IPv{before.families[0]} and may not change; delete the "
            "service first, or give that family first",
        )
    given, kept = wanted.service.cluster_ips[:1], before.service.cluster_ips[:1]
    if given and given != kept:
        shown = ", ".join(map(format_address, kept))
        raise Invalid(
            f"{path}.cluster_ips[0]",
            f"the primary address is {shown} and may not change; leave it out, or delete the "
            "service first",
        )


def _addresses(
    given: Sequence[bytes], before: Demand | None, families: tuple[int, ...]
) -> tuple[bytes, ...]:
    kept = before.service.cluster_ips if before else ()
    found = []
    for index, family in enumerate(families):
        own = next((ip for ip in kept if len(ip) == (4 if family == 4 else 16)), CHOSEN)
        found.append(given[index] if index < len(given) else own)
    return tuple(found)


def _ports(wanted: Service, before: Service | None) -> tuple[ServicePort, ...]:
    """Ports by name keep their node ports, unless the request gives those to others."""
    if wanted.type not in WITH_NODE_PORTS or before is None:
        return wanted.ports
    given = {port.node_port for port in wanted.ports}
    kept = {port.name: port.node_port for port in before.ports if port.node_port not in given}
    return tuple(
        port if port.node_port else replace(port, node_port=kept.get(port.name, 0))
        for port in wanted.ports
    )


def _health_port(wanted: Service, before: Service | None) -> int:
    if wanted.health_check_node_port or before is None or not has_health_port(wanted):
        return wanted.health_check_node_port
    return before.health_check_node_port if has_health_port(before) else 0

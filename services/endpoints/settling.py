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
from services.endpoints.demand import Demand, family_of, has_health_port, has_node_ports
from services.endpoints.families import choose
from services.endpoints.ranges import Ranges
from services.endpoints.service_rules import check, without_leftovers

CHOSEN = b""
"""Stands for an address that is to be chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What is known before anything is chosen.

    Attributes:
        service: with CHOSEN among cluster_ips, node ports 0 where wants_node_ports, and health
            check port 0 where wants_health_port.
        families: of the cluster addresses, or of a headless service's endpoints.
    """

    service: Service
    families: tuple[int, ...]

    @property
    def wants_node_ports(self) -> bool:
        """Whether each port without a node port is to get one."""
        return has_node_ports(self.service)

    @property
    def wants_health_port(self) -> bool:
        """Whether it is to get a health check port."""
        return has_health_port(self.service) and not self.service.health_check_node_port


def settle(wanted: Demand, stored: Demand | None, ranges: Ranges, path: str) -> Settled:
    """Fills in what a service keeps; refuses what contradicts itself, and what may not change.

    Args:
        wanted: the request.
        stored: what there is; None: nothing.
        ranges: of the cluster.
        path: where the service lies in the request.

    Raises:
        Invalid: with the path of the field.
    """
    wanted = without_leftovers(wanted, stored)
    check(wanted, path)
    number = stored.service.number if stored else 0
    if wanted.service.type is ServiceType.EXTERNAL_NAME:
        return Settled(service=replace(wanted.service, number=number), families=())
    before = stored if stored and stored.service.type is not ServiceType.EXTERNAL_NAME else None
    if before is not None and before.headless and not wanted.service.cluster_ips:
        wanted = replace(wanted, headless=True)
    families = choose(wanted, before, ranges, path)
    if before is not None:
        _check_kept(wanted, before, families, path)
    old = before.service if before else None
    service = replace(
        wanted.service,
        number=number,
        cluster_ips=()
        if wanted.headless
        else _addresses(wanted.service.cluster_ips, old, families),
        ports=_ports(wanted.service, old),
        health_check_node_port=_health_port(wanted.service, old, path),
    )
    return Settled(service=service, families=families)


# --- what stays ----------------------------------------------------------------------------------


def _check_kept(wanted: Demand, before: Demand, families: tuple[int, ...], path: str) -> None:
    """Refuses to change what a service has until it is deleted."""
    advice = "may not change: clients know the service by it; delete the service first"
    if wanted.headless and not before.headless:
        raise Invalid(f"{path}.headless", f"the service has addresses, which {advice}")
    if before.headless and not wanted.headless:
        raise Invalid(f"{path}.cluster_ips", f"the service is headless, which {advice}")
    if before.families and families[0] != before.families[0]:
        raise Invalid(
            f"{path}.families[0]", f"is IPv{before.families[0]} for this service, which {advice}"
        )
    pairs = zip(wanted.service.cluster_ips, before.service.cluster_ips, strict=False)
    for index, (new, old) in enumerate(pairs):
        if new != old:
            hint = "" if index == 0 else ", or take the second address away for a while"
            raise Invalid(
                f"{path}.cluster_ips[{index}]",
                f"is {format_address(old)} for this service, which {advice}{hint}",
            )


def _addresses(
    given: Sequence[bytes], old: Service | None, families: tuple[int, ...]
) -> tuple[bytes, ...]:
    kept = {family_of(ip): ip for ip in (old.cluster_ips if old else ())}
    return tuple(
        given[index] if index < len(given) else kept.get(family, CHOSEN)
        for index, family in enumerate(families)
    )


def _ports(wanted: Service, old: Service | None) -> tuple[ServicePort, ...]:
    """Ports keep their node ports by name, unless the request gives those to other ports."""
    if not has_node_ports(wanted) or old is None:
        return wanted.ports
    given = {port.node_port for port in wanted.ports}
    kept = {port.name: port.node_port for port in old.ports if port.node_port not in given}
    return tuple(
        port if port.node_port else replace(port, node_port=kept.get(port.name, 0))
        for port in wanted.ports
    )


def _health_port(wanted: Service, old: Service | None, path: str) -> int:
    port = wanted.health_check_node_port
    if old is None or not has_health_port(old) or not has_health_port(wanted):
        return port
    if port not in (0, old.health_check_node_port):
        raise Invalid(
            f"{path}.health_check_node_port",
            f"is {old.health_check_node_port} and may not change while external_local is set",
        )
    return old.health_check_node_port

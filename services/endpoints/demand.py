"""A service as somebody wants it, or as it is stored."""

import enum
from dataclasses import dataclass

from deltaplane.model.service import Service, ServiceType


class FamilyPolicy(enum.IntEnum):
    """How many families a service has. Numbers of deltaplane.v1.FamilyPolicy."""

    OPEN = 0
    SINGLE_STACK = 1
    PREFER_DUAL_STACK = 2
    REQUIRE_DUAL_STACK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """All that a request, or a record, says about a service.

    Attributes:
        service: number 0 and empty fields are open in a request.
        headless: it has no cluster address.
        families: 4, 6 or both, the primary first; empty in a request: open.
        policy: what decides where families are open.
    """

    service: Service
    headless: bool = False
    families: tuple[int, ...] = ()
    policy: FamilyPolicy = FamilyPolicy.OPEN


def has_node_ports(service: Service) -> bool:
    """Whether each port of a service has a node port."""
    return service.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)


def has_health_port(service: Service) -> bool:
    """Whether nodes say over HTTP whether they have backends of a service."""
    return service.type is ServiceType.LOAD_BALANCER and service.external_local


def is_external(service: Service) -> bool:
    """Whether clients outside the cluster can reach a service."""
    by_address = service.type is ServiceType.CLUSTER_IP and bool(service.external_ips)
    return has_node_ports(service) or by_address


def family_of(address: bytes) -> int:
    """4 or 6."""
    return 4 if len(address) == 4 else 6

"""What the fields of one service demand of each other: the rules of Kubernetes' API server.

type           cluster address   node ports   health check port   load balancer's fields
CLUSTER_IP     yes, or headless  no           no                  no
NODE_PORT      yes               yes          no                  no
LOAD_BALANCER  yes               yes          if external_local   yes
EXTERNAL_NAME  no                no           no                  no
"""

from dataclasses import replace

from deltaplane.errors import Invalid
from deltaplane.model import names
from deltaplane.model.ports import Protocol
from deltaplane.model.service import Service, ServiceType
from services.endpoints.demand import Demand, has_health_port, has_node_ports, is_external

KUBELET_PORT = 10250


def check(wanted: Demand, path: str) -> None:
    """Refuses a service that contradicts itself.

    Raises:
        Invalid: with the path of the first wrong field.
    """
    service = wanted.service
    if service.type is ServiceType.EXTERNAL_NAME:
        _check_external_name(wanted, path)
    elif service.external_name:
        raise Invalid(f"{path}.external_name", "is only for the type EXTERNAL_NAME")
    elif wanted.headless and service.cluster_ips:
        raise Invalid(f"{path}.cluster_ips", "must be empty, as the service is headless")
    elif wanted.headless and service.type is not ServiceType.CLUSTER_IP:
        raise Invalid(f"{path}.headless", f"a service of type {service.type.name} has an address")
    elif not service.ports and not wanted.headless:
        raise Invalid(f"{path}.ports", "are needed, unless the service is headless")
    _check_ports(service, path)
    _check_traffic(service, path)


def without_leftovers(wanted: Demand, stored: Demand | None) -> Demand:
    """A request without what only the type that the service had explains.

    Who changes the type of a stored service and writes all of it back need not know which fields
    go with it: those that say what is stored are dropped, others are judged.
    """
    if stored is None or stored.service.type is wanted.service.type:
        return wanted
    old, new = stored.service, wanted.service
    if new.type is ServiceType.EXTERNAL_NAME and new.cluster_ips == old.cluster_ips:
        new = replace(new, cluster_ips=())
    if has_node_ports(old) and not has_node_ports(new):
        known = {port.node_port for port in old.ports}
        ports = (replace(it, node_port=0) if it.node_port in known else it for it in new.ports)
        new = replace(new, ports=tuple(ports))
    if old.health_check_node_port == new.health_check_node_port and not has_health_port(new):
        new = replace(new, health_check_node_port=0)
    if old.external_local and not is_external(new):
        new = replace(new, external_local=False)
    if new.type is not ServiceType.LOAD_BALANCER:
        if new.load_balancer_ips == old.load_balancer_ips:
            new = replace(new, load_balancer_ips=())
        if new.source_ranges == old.source_ranges:
            new = replace(new, source_ranges=())
    return replace(wanted, service=new)


def _check_external_name(wanted: Demand, path: str) -> None:
    service = wanted.service
    if service.cluster_ips or wanted.headless:
        field = "headless" if wanted.headless else "cluster_ips"
        raise Invalid(f"{path}.{field}", "must be empty: the type EXTERNAL_NAME has no address")
    name = service.external_name.removesuffix(".")
    if reason := names.dns_subdomain_mistake(name):
        raise Invalid(f"{path}.external_name", f'"{name[: names.MAX_SUBDOMAIN]}" {reason}')


def _check_ports(service: Service, path: str) -> None:
    seen: dict[tuple[Protocol, int], int] = {}
    for index, port in enumerate(service.ports):
        where = f"{path}.ports[{index}]"
        if service.type is ServiceType.LOAD_BALANCER and port.port == KUBELET_PORT:
            raise Invalid(f"{where}.port", f"{KUBELET_PORT} is the kubelet's on every node")
        if not port.node_port:
            continue
        if not has_node_ports(service):
            raise Invalid(
                f"{where}.node_port",
                f"a service of type {service.type.name} has none; leave it out",
            )
        first = seen.setdefault((port.protocol, port.node_port), index)
        if first != index:
            raise Invalid(
                f"{where}.node_port",
                f"{port.node_port}/{port.protocol.name} is that of ports[{first}], too",
            )
        if port.node_port == service.health_check_node_port:
            raise Invalid(
                f"{path}.health_check_node_port", f"{port.node_port} is that of ports[{index}], too"
            )


def _check_traffic(service: Service, path: str) -> None:
    if service.external_local and not is_external(service):
        raise Invalid(
            f"{path}.external_local",
            "is only for what comes from outside: the types NODE_PORT and LOAD_BALANCER, or "
            "external_ips",
        )
    if service.health_check_node_port and not has_health_port(service):
        raise Invalid(
            f"{path}.health_check_node_port",
            "is only for the type LOAD_BALANCER with external_local",
        )
    if service.type is not ServiceType.LOAD_BALANCER:
        for field in ("load_balancer_ips", "source_ranges"):
            if getattr(service, field):
                raise Invalid(f"{path}.{field}", "is only for the type LOAD_BALANCER")

"""Services as somebody wants them, with the boring fields filled in."""

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.service import Service, ServicePort, ServiceType
from services.endpoints.demand import Demand, FamilyPolicy
from services.endpoints.ranges import PortRange, Ranges

V4, V6 = Prefix.parse("10.96.0.0/16"), Prefix.parse("fd00:10:96::/112")
NODE_PORTS = PortRange(30000, 32767)
BOTH = Ranges((V4, V6), NODE_PORTS)
V6_FIRST = Ranges((V6, V4), NODE_PORTS)
ONLY_V4 = Ranges((V4,), NODE_PORTS)


def port(number: int = 80, node_port: int = 0, name: str | None = None) -> ServicePort:
    named = f"p{number}" if name is None else name
    return ServicePort(name=named, port=number, node_port=node_port)


def demand(
    *ips: str,
    kind: ServiceType = ServiceType.CLUSTER_IP,
    ports: tuple[ServicePort, ...] = (port(),),
    headless: bool = False,
    families: tuple[int, ...] = (),
    policy: FamilyPolicy = FamilyPolicy.OPEN,
    **fields: object,
) -> Demand:
    fields = {"selector": (), "cluster_ips": tuple(map(parse_address, ips)), **fields}
    service = Service(
        namespace="shop",
        name="web",
        type=kind,
        ports=ports,
        **fields,  # type: ignore[arg-type]
    )
    return Demand(service=service, headless=headless, families=families, policy=policy)


def stored(*ips: str, number: int = 7, **fields: object) -> Demand:
    """One that the registry has, with the families that it has addresses of."""
    families = tuple(6 if ":" in ip else 4 for ip in ips) or (4,)
    return demand(*ips, number=number, **{"families": families, **fields})  # type: ignore[arg-type]

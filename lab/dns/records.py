"""The names of services and of what is behind them (Kubernetes DNS specification 1.1.0). Pure.

shop.default.svc.cluster.local                A, AAAA: cluster addresses; those of the ready
                                              endpoints of a headless service; CNAME of an
                                              ExternalName
db-0.db.default.svc.cluster.local             A, AAAA: an endpoint of a headless service; one
                                              without a hostname is called 10-244-0-7
_http._tcp.shop.default.svc.cluster.local     SRV: a named port
1.0.96.10.in-addr.arpa                        PTR: the way back
"""

import ipaddress
from collections.abc import Iterable

from deltaplane.model.addresses import format_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import EndpointSlice, Service, ServiceType, SliceEndpoint

DOMAIN = "cluster.local"
ORIGINS = (DOMAIN, "in-addr.arpa", "ip6.arpa")
VERSION = "1.1.0"
PRIORITY, WEIGHT = 0, 100

Texts = dict[str, dict[str, list[str]]]
"""Name → type → values."""


def records(services: Iterable[Service], slices: Iterable[EndpointSlice]) -> Texts:
    """All records of a cluster, as `Zone.of` takes them."""
    behind: dict[tuple[str, str], list[EndpointSlice]] = {}
    for item in slices:
        behind.setdefault((item.namespace, item.service), []).append(item)
    found = _Records()
    found.add(f"dns-version.{DOMAIN}", "TXT", VERSION)
    for service in services:
        name = f"{service.name}.{service.namespace}.svc.{DOMAIN}"
        if service.type is ServiceType.EXTERNAL_NAME:
            found.add(name, "CNAME", service.external_name)
        elif service.cluster_ips:
            _clustered(found, name, service)
        else:
            _headless(found, name, behind.get((service.namespace, service.name), ()))
    return found.texts


class _Records:
    """Collects records, each once."""

    def __init__(self) -> None:
        self.texts: Texts = {}

    def add(self, name: str, kind: str, value: str) -> None:
        values = self.texts.setdefault(name, {}).setdefault(kind, [])
        if value not in values:
            values.append(value)

    def add_address(self, name: str, address: bytes, *, back: bool) -> None:
        """back: the address leads to the name, too."""
        text = format_address(address)
        self.add(name, "A" if len(address) == 4 else "AAAA", text)
        if back:
            self.add(ipaddress.ip_address(address).reverse_pointer, "PTR", name)


def _clustered(found: _Records, name: str, service: Service) -> None:
    for address in service.cluster_ips:
        found.add_address(name, address, back=True)
    for port in service.ports:
        if port.name:
            value = f"{PRIORITY} {WEIGHT} {port.port} {name}"
            found.add(_port_name(port.name, port.protocol, name), "SRV", value)


def _headless(found: _Records, name: str, slices: Iterable[EndpointSlice]) -> None:
    """Without a ready endpoint there is no such name, as the specification wants it."""
    for item in slices:
        for endpoint in item.endpoints:
            if not endpoint.ready:
                continue
            own = f"{_label(endpoint)}.{name}"
            found.add_address(name, endpoint.address, back=False)
            found.add_address(own, endpoint.address, back=bool(endpoint.hostname))
            for port in item.ports:
                if port.name:
                    value = f"{PRIORITY} {WEIGHT} {port.number} {own}"
                    found.add(_port_name(port.name, port.protocol, name), "SRV", value)


def _label(endpoint: SliceEndpoint) -> str:
    if endpoint.hostname:
        return endpoint.hostname
    text = format_address(endpoint.address).replace(".", "-").replace(":", "-")
    # No label begins or ends with a dash, as :: would have it.
    return f"{'0' if text.startswith('-') else ''}{text}{'0' if text.endswith('-') else ''}"


def _port_name(port: str, protocol: Protocol, name: str) -> str:
    return f"_{port}._{protocol.name.lower()}.{name}"


def resolver(servers: Iterable[str], namespace: str) -> str:
    """The resolv.conf of the pods of a namespace. servers: addresses of the name server."""
    lines = [f"nameserver {server}" for server in servers]
    lines.append(f"search {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}")
    lines.append("options ndots:5")
    return "\n".join(lines) + "\n"

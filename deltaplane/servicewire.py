"""Services and endpoint slices ↔ deltaplane.v1.Service and EndpointSlice.

As in `deltaplane.wire`, what is read comes from a stranger: `deltaplane.errors.Invalid` names the
path of the first wrong field. What fields of one service demand of each other, of the cluster's
ranges and of what was stored before is the registry's to check.
"""

import functools
from collections.abc import Callable, Iterable, Sequence, Sized

from deltaplane import wire
from deltaplane.errors import Invalid
from deltaplane.model import names
from deltaplane.model.addresses import V4_MAPPED, Prefix, format_address, special_mistake
from deltaplane.model.ports import MAX_PORT, Protocol
from deltaplane.model.service import (
    Distribution,
    EndpointSlice,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from deltaplane.v1 import service_pb2
from deltaplane.wire import join

MAX_PORTS = 250
"""Of a service or a slice."""
MAX_ENDPOINTS = 1000
"""Of a slice, as in Kubernetes."""
MAX_HINTS = 8
"""Zones or nodes of an endpoint, as in Kubernetes."""
MAX_ADDRESSES = 64
"""External or of a load balancer."""
MAX_SOURCE_RANGES = 1000
MAX_AFFINITY_SECONDS = 86400


def service_to_proto(service: Service) -> service_pb2.Service:
    """Message of a service, without traceparent, families and meta."""
    return service_pb2.Service(
        namespace=service.namespace,
        name=service.name,
        number=service.number,
        type=service_pb2.ServiceType.ValueType(service.type),
        cluster_ips=service.cluster_ips,
        headless=not service.cluster_ips and service.type is not ServiceType.EXTERNAL_NAME,
        ports=map(_service_port_to_proto, service.ports),
        selector=dict(service.selector or ()),
        without_selector=service.selector is None,
        external_ips=service.external_ips,
        load_balancer_ips=service.load_balancer_ips,
        source_ranges=map(wire.prefix_to_proto, service.source_ranges),
        affinity_seconds=service.affinity_seconds,
        internal_local=service.internal_local,
        external_local=service.external_local,
        health_check_node_port=service.health_check_node_port,
        publish_not_ready=service.publish_not_ready,
        distribution=service_pb2.TrafficDistribution.ValueType(service.distribution),
        external_name=service.external_name,
    )


def service_from_proto(message: service_pb2.Service, path: str = "") -> Service:
    """Reads a service; families, family_policy, traceparent and meta are left to the caller.

    Raises:
        Invalid: a field is missing, misspelt, out of its range or too long.
    """
    wire.check_name(message.namespace, join(path, "namespace"), names.dns_label_mistake)
    wire.check_name(message.name, join(path, "name"), names.service_name_mistake)
    wire.check_labels(message.selector, join(path, "selector"))
    if message.without_selector and message.selector:
        raise Invalid(join(path, "selector"), "must be empty, as without_selector is set")
    if message.affinity_seconds > MAX_AFFINITY_SECONDS:
        raise Invalid(
            join(path, "affinity_seconds"),
            f"{message.affinity_seconds} is outside 1..{MAX_AFFINITY_SECONDS}; 0: no affinity",
        )
    return Service(
        namespace=message.namespace,
        name=message.name,
        number=message.number,
        type=_type_from_proto(message.type, join(path, "type")),
        cluster_ips=addresses_from_proto(message.cluster_ips, join(path, "cluster_ips"), limit=2),
        ports=_service_ports(message.ports, join(path, "ports")),
        selector=None if message.without_selector else tuple(sorted(message.selector.items())),
        external_ips=addresses_from_proto(message.external_ips, join(path, "external_ips")),
        load_balancer_ips=addresses_from_proto(
            message.load_balancer_ips, join(path, "load_balancer_ips")
        ),
        source_ranges=_source_ranges(message, join(path, "source_ranges")),
        affinity_seconds=message.affinity_seconds,
        internal_local=message.internal_local,
        external_local=message.external_local,
        health_check_node_port=_port(
            message.health_check_node_port, join(path, "health_check_node_port"), may_be_open=True
        ),
        publish_not_ready=message.publish_not_ready,
        distribution=_distribution(message.distribution, join(path, "distribution")),
        external_name=message.external_name,
    )


def slice_to_proto(item: EndpointSlice) -> service_pb2.EndpointSlice:
    """Message of a slice, without traceparent and meta."""
    return service_pb2.EndpointSlice(
        namespace=item.namespace,
        name=item.name,
        service=item.service,
        ports=(
            service_pb2.SlicePort(
                name=port.name, protocol=wire.protocol_to_proto(port.protocol), number=port.number
            )
            for port in item.ports
        ),
        endpoints=map(_endpoint_to_proto, item.endpoints),
    )


def slice_from_proto(message: service_pb2.EndpointSlice, path: str = "") -> EndpointSlice:
    """Reads a slice; traceparent and meta are left to the caller.

    Raises:
        Invalid: a field is missing, misspelt, out of its range or too long, or families are mixed.
    """
    wire.check_name(message.namespace, join(path, "namespace"), names.dns_label_mistake)
    wire.check_name(message.name, join(path, "name"), names.dns_subdomain_mistake)
    wire.check_name(message.service, join(path, "service"), names.dns_label_mistake)
    return EndpointSlice(
        namespace=message.namespace,
        name=message.name,
        service=message.service,
        ports=_slice_ports(message.ports, join(path, "ports")),
        endpoints=_endpoints(message.endpoints, join(path, "endpoints")),
    )


def addresses_from_proto(
    addresses: Iterable[bytes], path: str, *, limit: int = MAX_ADDRESSES
) -> tuple[bytes, ...]:
    """Reads a list of addresses.

    Raises:
        Invalid: one is no address, IPv4-mapped or given twice, or there are more than limit.
    """
    found = tuple(addresses)
    _check_count(found, path, limit)
    for index, address in enumerate(found):
        _check_address(address, f"{path}[{index}]")
        if address in found[:index]:
            raise Invalid(f"{path}[{index}]", f"{format_address(address)} is given twice")
    return found


def _check_address(address: bytes, path: str) -> None:
    if len(address) not in (4, 16):
        raise Invalid(path, f"an address has 4 or 16 bytes, not {len(address)}")
    if len(address) == 16 and address.startswith(V4_MAPPED):
        raise Invalid(path, "an IPv4-mapped IPv6 address is not accepted; give the 4 bytes")
    if reason := special_mistake(address):
        raise Invalid(path, f"{format_address(address)} {reason}")


def _type_from_proto(number: int, path: str) -> ServiceType:
    try:
        return ServiceType(number)
    except ValueError as error:
        known = ", ".join(service_pb2.ServiceType.keys()[1:])
        raise Invalid(path, f"{number} is none of {known}") from error


def _distribution(number: int, path: str) -> Distribution:
    try:
        return Distribution(number)
    except ValueError as error:
        known = ", ".join(service_pb2.TrafficDistribution.keys())
        raise Invalid(path, f"{number} is none of {known}") from error


def _service_port_to_proto(port: ServicePort) -> service_pb2.ServicePort:
    return service_pb2.ServicePort(
        name=port.name,
        protocol=wire.protocol_to_proto(port.protocol),
        port=port.port,
        node_port=port.node_port,
        target=port.target,
    )


def _service_ports(
    messages: Iterable[service_pb2.ServicePort], path: str
) -> tuple[ServicePort, ...]:
    ports = tuple(
        ServicePort(
            name=_port_name(message.name, f"{path}[{index}].name"),
            protocol=_protocol(message.protocol, f"{path}[{index}].protocol"),
            port=_port(message.port, f"{path}[{index}].port"),
            node_port=_port(message.node_port, f"{path}[{index}].node_port", may_be_open=True),
            target=_target(message.target, f"{path}[{index}].target"),
        )
        for index, message in enumerate(messages)
    )
    _check_count(ports, path, MAX_PORTS)
    names_seen: dict[str, int] = {}
    numbers_seen: dict[tuple[Protocol, int], int] = {}
    for index, port in enumerate(ports):
        if len(ports) > 1 and not port.name:
            raise Invalid(f"{path}[{index}].name", "is needed, as the service has several ports")
        first = names_seen.setdefault(port.name, index)
        if first != index:
            raise Invalid(f"{path}[{index}].name", f'"{port.name}" is that of ports[{first}], too')
        first = numbers_seen.setdefault((port.protocol, port.port), index)
        if first != index:
            raise Invalid(
                f"{path}[{index}].port",
                f"{port.port}/{port.protocol.name} is that of ports[{first}], too",
            )
    return ports


def _slice_ports(messages: Iterable[service_pb2.SlicePort], path: str) -> tuple[SlicePort, ...]:
    ports = tuple(
        SlicePort(
            name=_port_name(message.name, f"{path}[{index}].name"),
            protocol=_protocol(message.protocol, f"{path}[{index}].protocol"),
            number=_port(message.number, f"{path}[{index}].number"),
        )
        for index, message in enumerate(messages)
    )
    _check_count(ports, path, MAX_PORTS)
    seen: dict[str, int] = {}
    for index, port in enumerate(ports):
        first = seen.setdefault(port.name, index)
        if first != index:
            raise Invalid(f"{path}[{index}].name", f'"{port.name}" is that of ports[{first}], too')
    return ports


def _port_name(text: str, path: str) -> str:
    if text:
        wire.check_name(text, path, names.dns_label_mistake)
    return text


def _protocol(number: int, path: str) -> Protocol:
    return wire.protocol_from_proto(number, path) if number else Protocol.TCP


def _port(number: int, path: str, *, may_be_open: bool = False) -> int:
    if not (0 if may_be_open else 1) <= number <= MAX_PORT:
        raise Invalid(path, f"port {number} is outside 1..{MAX_PORT}")
    return number


def _target(text: str, path: str) -> str:
    if text.isdecimal() and text.isascii():
        if not 1 <= int(text[:6]) <= MAX_PORT:
            raise Invalid(path, f"port {text[:20]} is outside 1..{MAX_PORT}")
    elif text:
        wire.check_name(text, path, names.port_name_mistake)
    return text


def _source_ranges(message: service_pb2.Service, path: str) -> tuple[Prefix, ...]:
    _check_count(message.source_ranges, path, MAX_SOURCE_RANGES)
    return tuple(
        wire.prefix_from_proto(item, f"{path}[{index}]")
        for index, item in enumerate(message.source_ranges)
    )


def _endpoint_to_proto(endpoint: SliceEndpoint) -> service_pb2.SliceEndpoint:
    return service_pb2.SliceEndpoint(
        address=endpoint.address,
        not_ready=not endpoint.ready,
        not_serving=not endpoint.serving,
        terminating=endpoint.terminating,
        node=endpoint.node,
        zones=endpoint.zones,
        nodes=endpoint.nodes,
        hostname=endpoint.hostname,
        target=endpoint.target,
    )


def _endpoints(
    messages: Sequence[service_pb2.SliceEndpoint], path: str
) -> tuple[SliceEndpoint, ...]:
    _check_count(messages, path, MAX_ENDPOINTS)
    found: list[SliceEndpoint] = []
    for index, message in enumerate(messages):
        try:
            found.append(_endpoint_from_proto(message))
        except Invalid as error:
            # Paths are made only for who needs one: there are thousands of endpoints.
            raise Invalid(f"{path}[{index}].{error.field}", error.reason) from error
        if len(message.address) != len(found[0].address):
            raise Invalid(
                f"{path}[{index}].address",
                "is not of the family of the others; give each family slices of its own",
            )
    return tuple(found)


def _endpoint_from_proto(message: service_pb2.SliceEndpoint) -> SliceEndpoint:
    _check_address(message.address, "address")
    node, hostname, target = message.node, message.hostname, message.target
    if node and (reason := _node_mistake(node)):
        raise Invalid("node", f'"{node[: names.MAX_SUBDOMAIN]}" {reason}')
    if hostname:
        wire.check_name(hostname, "hostname", names.dns_label_mistake)
    if target:
        _check_pod(target)
    return SliceEndpoint(
        address=message.address,
        ready=not message.not_ready,
        serving=not message.not_serving,
        terminating=message.terminating,
        node=node,
        zones=_hints(message.zones, "zones", names.label_value_mistake) if message.zones else (),
        nodes=_hints(message.nodes, "nodes", names.dns_subdomain_mistake) if message.nodes else (),
        hostname=hostname,
        target=target,
    )


_node_mistake = functools.lru_cache(maxsize=8192)(names.dns_subdomain_mistake)
"""Many endpoints are on one node."""


def _hints(
    texts: Sequence[str], field: str, mistake: Callable[[str], str | None]
) -> tuple[str, ...]:
    _check_count(texts, field, MAX_HINTS)
    for index, text in enumerate(texts):
        wire.check_name(text, f"{field}[{index}]", mistake)
        if not text or text in texts[:index]:
            raise Invalid(f"{field}[{index}]", f'"{text}" is empty, or given twice')
    return tuple(texts)


def _check_pod(text: str) -> None:
    namespace, slash, name = text.partition("/")
    if not slash:
        raise Invalid("target", f'"{text[: names.MAX_SUBDOMAIN]}" is not "namespace/name" of a pod')
    wire.check_name(namespace, "target", names.dns_label_mistake)
    wire.check_name(name, "target", names.dns_subdomain_mistake)


def _check_count(items: Sized, path: str, limit: int) -> None:
    if len(items) > limit:
        raise Invalid(path, f"has {len(items)} entries; at most {limit} are taken")

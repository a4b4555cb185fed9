"""Services and slices to messages and back, and what is refused by which field."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.ports import TRANSPORTS
from deltaplane.model.service import (
    Distribution,
    EndpointSlice,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from deltaplane.servicewire import (
    service_from_proto,
    service_to_proto,
    slice_from_proto,
    slice_to_proto,
)
from deltaplane.v1 import common_pb2, service_pb2

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
V4 = st.integers(1, 99).map(lambda n: bytes((10, 0, 0, n)))
V6 = st.integers(1, 99).map(lambda n: b"\xfd" + n.to_bytes(15))
PORTS = st.integers(1, 65535)
OPEN = st.one_of(st.just(0), PORTS)

SERVICES = st.builds(
    Service,
    namespace=NAMES,
    name=NAMES,
    number=st.integers(0, 2**32 - 1),
    type=st.sampled_from(ServiceType),
    cluster_ips=st.one_of(st.just(()), st.tuples(V4), st.tuples(V6, V4)),
    ports=st.lists(
        st.builds(
            ServicePort,
            name=NAMES,
            protocol=st.sampled_from(TRANSPORTS),
            port=PORTS,
            node_port=OPEN,
            target=st.one_of(st.just(""), st.just("http"), PORTS.map(str)),
        ),
        max_size=3,
        unique_by=(lambda port: port.name, lambda port: port.port),
    ).map(tuple),
    selector=st.one_of(st.none(), st.just((("app", "web"),))),
    external_ips=st.lists(V4, unique=True, max_size=2).map(tuple),
    load_balancer_ips=st.lists(V6, unique=True, max_size=2).map(tuple),
    source_ranges=st.just((Prefix.parse("198.51.100.0/24"),)),
    affinity_seconds=st.integers(0, 86400),
    internal_local=st.booleans(),
    external_local=st.booleans(),
    health_check_node_port=OPEN,
    publish_not_ready=st.booleans(),
    distribution=st.sampled_from(Distribution),
    external_name=NAMES,
)

SLICES = st.builds(
    EndpointSlice,
    namespace=NAMES,
    name=NAMES,
    service=NAMES,
    ports=st.lists(
        st.builds(SlicePort, name=NAMES, protocol=st.sampled_from(TRANSPORTS), number=PORTS),
        max_size=3,
        unique_by=lambda port: port.name,
    ).map(tuple),
    endpoints=st.sampled_from([V4, V6]).flatmap(
        lambda addresses: st.lists(
            st.builds(
                SliceEndpoint,
                address=addresses,
                ready=st.booleans(),
                serving=st.booleans(),
                terminating=st.booleans(),
                node=st.one_of(st.just(""), NAMES),
                zones=st.lists(NAMES, unique=True, max_size=3).map(tuple),
                nodes=st.lists(NAMES, unique=True, max_size=3).map(tuple),
                hostname=st.one_of(st.just(""), NAMES),
                target=st.one_of(st.just(""), NAMES.map(lambda name: f"shop/{name}")),
            ),
            max_size=3,
        ).map(tuple)
    ),
)


@given(SERVICES)
def test_a_service_comes_back_as_it_was(service: Service) -> None:
    assert service_from_proto(service_to_proto(service)) == service


@given(SLICES)
def test_a_slice_comes_back_as_it_was(item: EndpointSlice) -> None:
    assert slice_from_proto(slice_to_proto(item)) == item


def test_an_unspecified_protocol_is_tcp() -> None:
    message = service_to_proto(SERVICE)
    message.ports[0].protocol = common_pb2.PROTOCOL_UNSPECIFIED
    assert service_from_proto(message) == SERVICE


SERVICE = Service(namespace="shop", name="web", ports=(ServicePort(name="http", port=80),))
SLICE = EndpointSlice(
    namespace="shop",
    name="web-1",
    service="web",
    ports=(SlicePort(name="http", number=8080),),
    endpoints=(SliceEndpoint(address=bytes((10, 0, 0, 1))),),
)


def port(**fields: object) -> Callable[[service_pb2.Service], object]:
    return lambda message: message.ports.add(**{"name": "a", "port": 81, **fields})


def ips(field: str, *texts: str) -> Callable[[service_pb2.Service], object]:
    return lambda message: getattr(message, field).extend(map(parse_address, texts))


def set_to(field: str, value: object) -> Callable[[object], object]:
    return lambda message: setattr(message, field, value)


BAD_SERVICES: dict[str, tuple[Callable[[service_pb2.Service], object], str]] = {
    "namespace": (set_to("namespace", "A"), "namespace"),
    "name": (set_to("name", "1web"), "name"),
    "no type": (set_to("type", 0), "type"),
    "unknown type": (set_to("type", 9), "type"),
    "unknown distribution": (set_to("distribution", 9), "distribution"),
    "affinity": (set_to("affinity_seconds", 86401), "affinity_seconds"),
    "selector": (lambda message: message.selector.update({"a b": "c"}), "selector"),
    "selector and none": (
        lambda message: (
            message.selector.update({"a": "b"}),
            set_to("without_selector", True)(message),
        ),
        "selector",
    ),
    "port 0": (port(port=0), "ports[1].port"),
    "port 65536": (port(port=65536), "ports[1].port"),
    "node port 65536": (port(node_port=65536), "ports[1].node_port"),
    "no name": (port(name=""), "ports[1].name"),
    "bad name": (port(name="A"), "ports[1].name"),
    "name twice": (port(name="http"), "ports[1].name"),
    "port twice": (port(port=80), "ports[1].port"),
    "protocol": (port(protocol=9), "ports[1].protocol"),
    "target 0": (port(target="0"), "ports[1].target"),
    "target 70000": (port(target="70000"), "ports[1].target"),
    "target name": (port(target="a_b"), "ports[1].target"),
    "three addresses": (ips("cluster_ips", "10.0.0.1", "fd00::1", "10.0.0.2"), "cluster_ips"),
    "external twice": (ips("external_ips", "1.2.3.4", "1.2.3.4"), "external_ips[1]"),
    "external loopback": (ips("external_ips", "127.0.0.1"), "external_ips[0]"),
    "short address": (lambda message: message.external_ips.append(b"123"), "external_ips[0]"),
    "health check port": (set_to("health_check_node_port", 65536), "health_check_node_port"),
    "source range": (
        lambda message: message.source_ranges.add(address=bytes((10, 0, 0, 1)), length=8),
        "source_ranges[0]",
    ),
}


@pytest.mark.parametrize("name", BAD_SERVICES)
def test_a_bad_service(name: str) -> None:
    change, field = BAD_SERVICES[name]
    message = service_to_proto(SERVICE)
    change(message)
    with pytest.raises(Invalid) as caught:
        service_from_proto(message, "services[2]")
    assert caught.value.field == f"services[2].{field}"


def endpoint(**fields: object) -> Callable[[service_pb2.EndpointSlice], object]:
    return lambda message: message.endpoints.add(**{"address": bytes((10, 0, 0, 2)), **fields})


def at(text: str) -> Callable[[service_pb2.EndpointSlice], object]:
    return endpoint(address=parse_address(text))


BAD_SLICES: dict[str, tuple[Callable[[service_pb2.EndpointSlice], object], str]] = {
    "no service": (set_to("service", ""), "service"),
    "name": (set_to("name", "-"), "name"),
    "another family": (at("fd00::1"), "endpoints[1].address"),
    "unspecified": (at("0.0.0.0"), "endpoints[1].address"),
    "loopback": (at("127.1.2.3"), "endpoints[1].address"),
    "loopback, IPv6": (at("::1"), "endpoints[1].address"),
    "link-local": (at("169.254.1.1"), "endpoints[1].address"),
    "link-local, IPv6": (at("febf::1"), "endpoints[1].address"),
    "multicast": (at("239.1.1.1"), "endpoints[1].address"),
    "multicast, IPv6": (at("ff05::1"), "endpoints[1].address"),
    "mapped": (
        endpoint(address=bytes(10) + b"\xff\xff\x0a\x00\x00\x01"),
        "endpoints[1].address",
    ),
    "node": (endpoint(node="A"), "endpoints[1].node"),
    "hostname": (endpoint(hostname="a.b"), "endpoints[1].hostname"),
    "target": (endpoint(target="web"), "endpoints[1].target"),
    "zone": (endpoint(zones=["a", "a b"]), "endpoints[1].zones[1]"),
    "zone twice": (endpoint(zones=["a", "a"]), "endpoints[1].zones[1]"),
    "nine zones": (endpoint(zones=list("abcdefghi")), "endpoints[1].zones"),
    "node hint": (endpoint(nodes=["_"]), "endpoints[1].nodes[0]"),
    "port name twice": (
        lambda message: message.ports.add(name="http", number=81),
        "ports[1].name",
    ),
    "port 0": (lambda message: message.ports.add(name="a"), "ports[1].number"),
    "1001 endpoints": (
        lambda message: [endpoint()(message) for _ in range(1000)],
        "endpoints",
    ),
}


@pytest.mark.parametrize("name", BAD_SLICES)
def test_a_bad_slice(name: str) -> None:
    change, field = BAD_SLICES[name]
    message = slice_to_proto(SLICE)
    change(message)
    with pytest.raises(Invalid) as caught:
        slice_from_proto(message, "slices[2]")
    assert caught.value.field == f"slices[2].{field}"

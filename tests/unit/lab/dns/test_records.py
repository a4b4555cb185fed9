"""Names follow from services as Kubernetes' DNS specification has it."""

from deltaplane.model.addresses import parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import (
    EndpointSlice,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from lab.dns.records import records, resolver

HTTP = ServicePort(name="http", port=80, target="8080")
NAME = "shop.default.svc.cluster.local"


def service(**fields: object) -> Service:
    return Service(namespace="default", name="shop", ports=(HTTP,), **fields)  # type: ignore[arg-type]


def slice_(*endpoints: SliceEndpoint, family: int = 4) -> EndpointSlice:
    return EndpointSlice(
        namespace="default",
        name=f"shop-ipv{family}-1",
        service="shop",
        ports=(SlicePort(name="http", number=8080), SlicePort(number=9)),
        endpoints=endpoints,
    )


def endpoint(address: str, **fields: object) -> SliceEndpoint:
    return SliceEndpoint(address=parse_address(address), **fields)  # type: ignore[arg-type]


def test_a_service_with_addresses() -> None:
    ips = (parse_address("10.96.0.7"), parse_address("fd00:10:96::7"))
    back = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa"
    assert records([service(cluster_ips=ips)], [slice_(endpoint("10.244.0.7"))]) == {
        "dns-version.cluster.local": {"TXT": ["1.1.0"]},
        NAME: {"A": ["10.96.0.7"], "AAAA": ["fd00:10:96::7"]},
        "7.0.96.10.in-addr.arpa": {"PTR": [NAME]},
        back: {"PTR": [NAME]},
        f"_http._tcp.{NAME}": {"SRV": [f"0 100 80 {NAME}"]},
    }


def test_a_headless_service_is_its_ready_endpoints() -> None:
    slices = [
        slice_(endpoint("10.244.0.7", hostname="shop-0"), endpoint("10.244.0.8", ready=False)),
        slice_(endpoint("fd00::7", hostname="shop-0"), endpoint("fd00::"), family=6),
    ]
    found = records([service()], slices)
    assert found[NAME] == {"A": ["10.244.0.7"], "AAAA": ["fd00::7", "fd00::"]}
    assert found[f"shop-0.{NAME}"] == {"A": ["10.244.0.7"], "AAAA": ["fd00::7"]}
    assert found[f"fd00--0.{NAME}"] == {"AAAA": ["fd00::"]}
    assert found["7.0.244.10.in-addr.arpa"] == {"PTR": [f"shop-0.{NAME}"]}
    assert found[f"_http._tcp.{NAME}"]["SRV"] == [
        f"0 100 8080 shop-0.{NAME}",
        f"0 100 8080 fd00--0.{NAME}",
    ]


def test_a_headless_service_without_ready_endpoints_does_not_exist() -> None:
    found = records([service()], [slice_(endpoint("10.244.0.8", ready=False))])
    assert found.keys() == {"dns-version.cluster.local"}


def test_a_pod_without_a_hostname_is_called_by_its_address() -> None:
    found = records([service()], [slice_(endpoint("10.244.0.7"))])
    assert found[f"10-244-0-7.{NAME}"] == {"A": ["10.244.0.7"]}
    assert not any("in-addr" in name for name in found)


def test_an_external_name_is_an_alias() -> None:
    known = service(type=ServiceType.EXTERNAL_NAME, external_name="shop.example.com")
    assert records([known], [])[NAME] == {"CNAME": ["shop.example.com"]}


def test_ports_of_other_protocols() -> None:
    ports = (ServicePort(name="dns", protocol=Protocol.UDP, port=53),)
    known = Service(namespace="default", name="shop", cluster_ips=(b"\x0a\x60\0\x07",), ports=ports)
    assert records([known], [])[f"_dns._udp.{NAME}"] == {"SRV": [f"0 100 53 {NAME}"]}


def test_slices_of_other_namespaces_are_others() -> None:
    other = EndpointSlice(
        namespace="other", name="a", service="shop", endpoints=(endpoint("10.244.0.9"),)
    )
    assert NAME not in records([service()], [other])


def test_what_pods_look_names_up_with() -> None:
    assert resolver(["10.96.0.10", "fd00:10:96::a"], "shop") == (
        "nameserver 10.96.0.10\n"
        "nameserver fd00:10:96::a\n"
        "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )

"""Services: written, listed and removed, with their addresses and node ports."""

import pytest

from deltaplane.errors import Invalid, Refused
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put
from deltaplane.v1 import common_pb2, service_pb2
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, failure, ok

V4, V6 = Prefix.parse("10.96.0.0/16"), Prefix.parse("fd00:10:96::/112")


def service(
    name: str = "web",
    *ports: int,
    namespace: str = "shop",
    kind: service_pb2.ServiceType.ValueType = service_pb2.SERVICE_TYPE_CLUSTER_IP,
    **fields: object,
) -> service_pb2.Service:
    message = service_pb2.Service(namespace=namespace, name=name, type=kind, **fields)  # type: ignore[arg-type]
    for number in ports or (80,):
        message.ports.add(name=f"p{number}", port=number)
    return message


async def apply(plane: Plane, *services: service_pb2.Service) -> list[service_pb2.Service]:
    request = pb.ApplyServicesRequest(services=services)
    return list((await ok(plane.registry.ApplyServices(request))).services)


async def one(plane: Plane, message: service_pb2.Service) -> service_pb2.Service:
    (stored,) = await apply(plane, message)
    return stored


async def refusal(plane: Plane, *services: service_pb2.Service) -> Invalid:
    error = await failure(plane.registry.ApplyServices(pb.ApplyServicesRequest(services=services)))
    assert isinstance(error, Invalid), error
    return error


async def test_a_service_gets_a_number_an_address_and_node_ports(any_plane: Plane) -> None:
    node_port = service("web", 80, 443, kind=service_pb2.SERVICE_TYPE_NODE_PORT)
    first, second = await apply(any_plane, node_port, service("db", 5432, families=[6, 4]))
    assert (first.number, second.number) == (1, 2)
    assert [len(ip) for ip in first.cluster_ips] == [4]
    assert V4.contains(first.cluster_ips[0])
    assert [len(ip) for ip in second.cluster_ips] == [16, 4]
    assert V6.contains(second.cluster_ips[0])
    assert len({port.node_port for port in first.ports}) == 2
    assert all(30000 <= port.node_port <= 32767 for port in first.ports)
    assert not any(port.node_port for port in second.ports)
    key = keys.service("shop", "web").encode()
    stored = await any_plane.keys(keys.REGISTRY)
    assert stored[keys.cluster_ip(first.cluster_ips[0])] == key
    assert all(stored[keys.node_port(port.node_port)] == key for port in first.ports)
    assert stored[keys.SERVICE_COUNTER] == b"2"
    assert len(stored) == 6


async def test_a_service_that_is_applied_again_keeps_all_and_is_not_written(
    any_plane: Plane,
) -> None:
    wanted = service("web", 80, 443, kind=service_pb2.SERVICE_TYPE_NODE_PORT)
    assert await one(any_plane, wanted) == await one(any_plane, wanted)


async def test_deleting_gives_everything_back(any_plane: Plane) -> None:
    await apply(any_plane, *(service(f"s{number}", families=[4, 6]) for number in range(70)))
    names = [pb.ServiceRef(namespace="shop", name=f"s{number}") for number in range(71)]
    await ok(any_plane.registry.DeleteServices(pb.DeleteServicesRequest(services=names)))
    assert set(await any_plane.keys(keys.REGISTRY)) == {keys.SERVICE_COUNTER}
    assert not await any_plane.keys(keys.SERVICES)
    assert (await one(any_plane, service("s0"))).number == 71


async def test_deleting_a_namespace_takes_services_and_slices_along(any_plane: Plane) -> None:
    await any_plane.apply_namespace({})
    other = service("web", namespace="shop-2")
    await apply(any_plane, service("web"), service("db"), other)
    slices = [
        service_pb2.EndpointSlice(namespace=space, name="web-1", service="web")
        for space in ("shop", "shop-2")
    ]
    request = pb.ApplyEndpointSlicesRequest(slices=slices)
    await ok(any_plane.registry.ApplyEndpointSlices(request))
    names = pb.DeleteNamespacesRequest(names=["shop"])
    await ok(any_plane.registry.DeleteNamespaces(names))
    left = await any_plane.keys(keys.STATE)
    assert set(left) == {
        keys.service("shop-2", "web"),
        keys.endpoint_slice("shop-2", "web-1"),
    }
    assert len(await any_plane.keys(keys.CLUSTER_IPS)) == 1


async def test_an_address_that_somebody_has_is_refused(any_plane: Plane) -> None:
    ip = parse_address("10.96.0.10")
    await one(any_plane, service("dns", 53, cluster_ips=[ip]))
    error = await refusal(any_plane, service("ok"), service("web", cluster_ips=[ip]))
    assert error.field == "services[1].cluster_ips[0]"
    assert "10.96.0.10 is taken by service shop/dns" in error.reason
    assert len(await any_plane.keys(keys.SERVICES)) == 1
    error = await refusal(any_plane, service(cluster_ips=[parse_address("10.97.0.1")]))
    assert error.reason.startswith("10.97.0.1 is outside the service range 10.96.0.0/16")


async def test_pages_show_one_revision(any_plane: Plane) -> None:
    await apply(any_plane, *(service(f"s{number}") for number in range(5)))
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListServicesRequest(namespace="shop", page_size=2, page_token=token)
        answer = await ok(any_plane.registry.ListServices(request))
        found += [item.name for item in answer.services]
        token = answer.next_page_token
        if not token:
            break
        await one(any_plane, service("s9"))
    assert found == [f"s{number}" for number in range(5)]
    request = pb.ListServicesRequest(namespace="shop", name="s9")
    (only,) = (await ok(any_plane.registry.ListServices(request))).services
    assert only.name == "s9"


@pytest.mark.parametrize(
    ("protocol", "port", "field"), [(99, 80, "protocol"), (common_pb2.PROTOCOL_UDP, 0, "port")]
)
async def test_a_bad_port_is_refused(
    memory_plane: Plane, protocol: common_pb2.Protocol, port: int, field: str
) -> None:
    message = service()
    message.ports.add(name="bad", protocol=protocol, port=port)
    error = await refusal(memory_plane, message)
    assert error.field == f"services[0].ports[1].{field}"


async def test_slices_are_stored_listed_and_removed(any_plane: Plane) -> None:
    item = service_pb2.EndpointSlice(namespace="shop", name="web-1", service="web")
    item.ports.add(name="http", number=8080)
    item.endpoints.add(address=parse_address("10.244.0.1"), node="node-1", zones=["a"])
    other = service_pb2.EndpointSlice(namespace="shop", name="db-1", service="db")
    request = pb.ApplyEndpointSlicesRequest(slices=[item, other])
    first = await ok(any_plane.registry.ApplyEndpointSlices(request))
    assert list((await ok(any_plane.registry.ApplyEndpointSlices(request))).slices) == list(
        first.slices
    )
    listing = pb.ListEndpointSlicesRequest(namespace="shop", service="web")
    (found,) = (await ok(any_plane.registry.ListEndpointSlices(listing))).slices
    assert found == first.slices[0]
    assert found.ports[0].protocol == common_pb2.PROTOCOL_TCP
    names = [pb.EndpointSliceRef(namespace="shop", name="web-1")]
    await ok(any_plane.registry.DeleteEndpointSlices(pb.DeleteEndpointSlicesRequest(slices=names)))
    assert not (await ok(any_plane.registry.ListEndpointSlices(listing))).slices


async def test_lost_pointers_come_back_and_others_stay(any_plane: Plane) -> None:
    stored = await one(any_plane, service("web"))
    pointer = keys.cluster_ip(stored.cluster_ips[0])
    await any_plane.store.transact([], [Delete(pointer)])
    again = await one(any_plane, service("web"))
    assert (await any_plane.keys(pointer))[pointer] == keys.service("shop", "web").encode()
    assert again.cluster_ips == stored.cluster_ips
    assert again.meta.mod_revision == stored.meta.mod_revision
    # What somebody else has by now, a deletion does not take away.
    await any_plane.store.transact([], [Put(pointer, keys.service("shop", "db").encode())])
    names = [pb.ServiceRef(namespace="shop", name="web")]
    await ok(any_plane.registry.DeleteServices(pb.DeleteServicesRequest(services=names)))
    assert set(await any_plane.keys(keys.CLUSTER_IPS)) == {pointer}


async def test_a_record_that_cannot_be_read_can_be_deleted(any_plane: Plane) -> None:
    await one(any_plane, service("web", kind=service_pb2.SERVICE_TYPE_NODE_PORT))
    await any_plane.store.transact([], [Put(keys.service("shop", "web"), b"\xff")])
    request = pb.ApplyServicesRequest(services=[service("web")])
    error = await failure(any_plane.registry.ApplyServices(request))
    assert isinstance(error, Refused)
    assert "delete that service first" in str(error)
    names = [pb.ServiceRef(namespace="shop", name="web")]
    await ok(any_plane.registry.DeleteServices(pb.DeleteServicesRequest(services=names)))
    assert set(await any_plane.keys(keys.REGISTRY)) == {keys.SERVICE_COUNTER}

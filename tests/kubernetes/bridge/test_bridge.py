"""Objects of a cluster, followed into the registry and out of it again."""

from pathlib import Path
from typing import Any

from deltaplane.v1 import policy_pb2
from deltaplane.v1 import registry_pb2 as pb
from services.kubernetes.api import resource as resources
from services.kubernetes.brake import ENTRIES
from services.kubernetes.kinds import Kind
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.bridge.world import World, world
from tests.services.plane import Plane, ok, pod


async def test_a_pod_from_its_creation_to_its_end(bridged: World) -> None:
    bridged.namespace()
    bridged.pod("web", spec={"nodeName": ""})
    await bridged.settled()
    await bridged.has_pods()
    bridged.server.change(resources.PODS, "web", {"spec": {"nodeName": "n1"}}, namespace="shop")
    (record,) = await bridged.has_pods("shop/web")
    uid = bridged.server.get(resources.PODS, "web", namespace="shop")["metadata"]["uid"]
    assert (record.uid, record.node, dict(record.labels)) == (uid, "n1", {"app": "web"})
    bridged.server.change(resources.PODS, "web", {"status": {"phase": "Failed"}}, namespace="shop")
    await bridged.has_pods()
    bridged.server.delete(resources.PODS, "web", namespace="shop")
    await bridged.settled()


async def test_everything_that_policies_and_services_need(bridged: World) -> None:
    bridged.namespace("shop", tier="gold")
    bridged.server.create(
        resources.SERVICES,
        "web",
        namespace="shop",
        spec={
            "clusterIP": "10.96.0.9",
            "clusterIPs": ["10.96.0.9"],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
            "selector": {"app": "web"},
        },
    )
    for family, address in (("IPv4", "10.0.0.7"), ("IPv6", "fd00::7")):
        bridged.server.create(
            resources.ENDPOINT_SLICES,
            f"web-{family.lower()}",
            namespace="shop",
            metadata={"labels": {"kubernetes.io/service-name": "web"}},
            addressType=family,
            endpoints=[{"addresses": [address], "conditions": {"ready": True}}],
            ports=[{"name": "", "port": 8080, "protocol": "TCP"}],
        )
    bridged.server.create(
        resources.NETWORK_POLICIES,
        "closed",
        namespace="shop",
        spec={"podSelector": {}, "policyTypes": ["Ingress"]},
    )
    registry = bridged.plane.registry

    async def complete() -> bool:
        services = (await ok(registry.ListServices(pb.ListServicesRequest()))).services
        slices = (await ok(registry.ListEndpointSlices(pb.ListEndpointSlicesRequest()))).slices
        policies = (await ok(registry.ListPolicies(pb.ListPoliciesRequest()))).policies
        return (len(services), len(slices), len(policies)) == (1, 2, 1)

    await bridged.until(complete)
    (namespace,) = (await ok(registry.ListNamespaces(pb.ListNamespacesRequest()))).namespaces
    assert namespace.labels["tier"] == "gold"
    (service,) = (await ok(registry.ListServices(pb.ListServicesRequest()))).services
    assert list(service.cluster_ips) == [bytes([10, 96, 0, 9])]
    assert service.ports[0].target == "8080"


async def test_a_kind_that_the_server_lacks_is_left_alone_until_it_comes(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    by_hand = policy_pb2.Policy(
        kind="AdminNetworkPolicy",
        name="by-hand",
        tier=policy_pb2.POLICY_TIER_ADMIN,
        priority=1,
        subject=policy_pb2.PolicySelector(),
    )
    await ok(served.registry.ApplyPolicies(pb.ApplyPoliciesRequest(others=[by_hand])))
    async with world(server, served, socket) as found:
        await found.settled()
        assert await policies_of(served) == ["by-hand"]
        server.serve(resources.ADMIN_NETWORK_POLICIES)
        server.create(
            resources.ADMIN_NETWORK_POLICIES,
            "guard",
            spec={"priority": 1, "subject": {"namespaces": {}}},
        )

        async def has() -> bool:
            return await policies_of(served) == ["guard"]

        await found.until(has)


async def policies_of(plane: Plane) -> list[str]:
    answer = await ok(plane.registry.ListPolicies(pb.ListPoliciesRequest()))
    return [*(it.name for it in answer.policies), *(it.name for it in answer.others)]


async def test_after_a_restart_only_the_difference_is_written(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    async with world(server, served, socket) as first:
        first.namespace()
        for name in ("stays", "changes", "goes"):
            first.pod(name)
        before = {
            it.name: it.meta.mod_revision
            for it in await first.has_pods("shop/changes", "shop/goes", "shop/stays")
        }
    server.delete(resources.PODS, "goes", namespace="shop")
    labels = {"metadata": {"labels": {"app": "other"}}}
    server.change(resources.PODS, "changes", labels, namespace="shop")
    async with world(server, served, socket) as second:
        second.pod("comes")
        records = await second.has_pods("shop/changes", "shop/comes", "shop/stays")
        await second.settled()
    after = {it.name: it.meta.mod_revision for it in records}
    assert after["stays"] == before["stays"]
    assert {it.name: dict(it.labels) for it in records}["changes"] == {"app": "other"}


async def fill(plane: Plane, count: int) -> None:
    records = [pod(f"old-{number}") for number in range(count)]
    await ok(plane.registry.ApplyPods(pb.ApplyPodsRequest(pods=records)))


async def test_a_cluster_that_lacks_too_much_removes_nothing_until_confirmed(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    count = ENTRIES + 1
    await fill(served, count)
    async with world(server, served, socket) as found:
        found.namespace()
        found.pod("new")
        everything = [f"shop/old-{number}" for number in range(count)]
        await found.has_pods(*everything, "shop/new")
        sweep = found.bridge.books[Kind.POD].sweep
        assert sweep is not None
        assert sweep.entries == count
        assert found.bridge.books[Kind.POD].confirm(count)
        found.bridge.wake()
        await found.has_pods("shop/new")


async def test_a_standby_writes_nothing_and_is_up_to_date_when_it_leads(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    async with world(server, served, socket, leads=False) as standby:
        standby.namespace()
        standby.pod("web")

        async def knows() -> bool:
            return "shop/web" in standby.bridge.books[Kind.POD].wanted

        await standby.until(knows)
        assert not standby.bridge.is_active
        assert await standby.has_pods() == []
        standby.lead()
        await standby.has_pods("shop/web")
        assert standby.bridge.is_ready


async def test_one_that_may_not_write_any_more_stops(bridged: World) -> None:
    bridged.namespace()
    bridged.pod("web")
    await bridged.has_pods("shop/web")
    bridged.writes = False
    bridged.bridge.wake()

    async def stands_by() -> bool:
        return not bridged.bridge.is_active

    await bridged.until(stands_by)
    bridged.pod("other")

    async def knows() -> bool:
        return "shop/other" in bridged.bridge.books[Kind.POD].wanted

    await bridged.until(knows)
    await bridged.has_pods("shop/web")


def events(server: ApiServer) -> list[dict[str, Any]]:
    return [dict(it) for it in server.storage.collection(resources.EVENTS).current.values()]


async def test_people_are_told_of_what_cannot_be_programmed(bridged: World) -> None:
    bridged.namespace()
    bridged.server.create(
        resources.NETWORK_POLICIES,
        "newer",
        namespace="shop",
        spec={"podSelector": {}, "policyTypes": ["Ingress"], "onlyOnMondays": True},
    )
    bridged.pod("wrong", metadata={"annotations": {"deltaplane.dev/ip-addresses": "nowhere"}})

    async def told() -> bool:
        return len(events(bridged.server)) == 2

    await bridged.until(told)
    said = {it["regarding"]["name"]: it for it in events(bridged.server)}
    assert said["newer"]["note"].startswith("spec.onlyOnMondays: unknown field")
    assert said["newer"]["type"] == "Warning"
    uid = bridged.server.get(resources.PODS, "wrong", namespace="shop")["metadata"]["uid"]
    assert said["wrong"]["regarding"]["uid"] == uid

    async def closed() -> bool:
        answer = await ok(bridged.plane.registry.ListPolicies(pb.ListPoliciesRequest()))
        return [(it.name, len(it.ingress)) for it in answer.policies] == [("newer", 0)]

    await bridged.until(closed)
    await bridged.has_pods()


async def test_a_registry_that_is_emptied_is_filled_again(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    async with world(server, served, socket, audit_seconds=0.2) as found:
        found.namespace()
        found.pod("web")
        await found.has_pods("shop/web")
        ref = pb.PodRef(namespace="shop", name="web")
        await ok(served.registry.DeletePods(pb.DeletePodsRequest(pods=[ref])))
        await found.has_pods("shop/web")

import asyncio

import pytest

from deltaplane.errors import Conflict, Invalid, Refused
from deltaplane.model.identity import Reserved
from deltaplane.store import keys
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, endpoint, failure, ok, pair, pod, release

READY = pb.Endpoint.STATE_READY
WAITING = pb.Endpoint.STATE_WAITING_FOR_POD


async def test_an_endpoint_is_joined_with_its_pod(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_namespace({"team": "blue"})
    await any_plane.apply_pods(pod("web", {"app": "web", "pod-template-hash": "abc"}))

    stored = await any_plane.register(endpoint(1))

    assert stored.state == READY
    assert stored.node_index == any_plane.nodes["node-1"].index
    assert stored.meta.create_revision == stored.meta.mod_revision > 0
    identity = (await any_plane.identities())[stored.identity]
    assert identity.id == 256
    assert identity.namespace == "shop"
    assert identity.labels == {"app": "web"}
    assert identity.namespace_labels == {"team": "blue", "kubernetes.io/metadata.name": "shop"}


async def test_registering_again_changes_nothing(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(pod("web"))
    first = await any_plane.register(endpoint(1))
    before = await any_plane.keys()
    assert await any_plane.register(endpoint(1)) == first
    assert await any_plane.keys() == before


async def test_equal_labels_share_an_identity(any_plane: Plane) -> None:
    await any_plane.ready_node()
    labels = {"app": "web", "tier": "front"}
    await any_plane.apply_pods(
        pod("web-0", {**labels, "apps.kubernetes.io/pod-index": "0"}),
        pod("web-1", {**labels, "apps.kubernetes.io/pod-index": "1"}),
        pod("web", labels, namespace="other"),
    )
    numbers = [
        (await any_plane.register(endpoint(1, pod="web-0"))).identity,
        (await any_plane.register(endpoint(2, pod="web-1"))).identity,
        (await any_plane.register(endpoint(3, pod="web", namespace="other"))).identity,
    ]
    assert numbers == [256, 256, 257]


async def test_without_a_record_the_endpoint_waits_closed(any_plane: Plane) -> None:
    await any_plane.ready_node()
    first = await any_plane.register(endpoint(1))
    assert (first.state, first.identity) == (WAITING, Reserved.INIT)

    revision = await any_plane.apply_pods(pod("web"))

    (joined,) = await any_plane.endpoints()
    assert (joined.state, joined.identity) == (READY, 256)
    assert joined.meta.create_revision == first.meta.create_revision  # the same incarnation
    assert joined.meta.mod_revision <= revision
    assert await any_plane.register(endpoint(1)) == joined


async def test_another_pod_of_the_same_name_is_refused(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(pod("web", uid="new"))
    error = await failure(any_plane.registration(endpoint(1, pod_uid="old")))
    assert isinstance(error, Refused)
    assert str(error) == "pod shop/web: its record has UID new, the endpoint names old"
    assert await any_plane.endpoints() == []
    assert (await any_plane.register(endpoint(1, pod_uid=""))).state == READY


async def test_a_pod_of_another_node_is_refused(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(pod("web", node="node-2"))
    error = await failure(any_plane.registration(endpoint(1)))
    assert isinstance(error, Refused)
    assert "binds it to node node-2" in str(error)


async def test_an_address_has_one_holder(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.register(endpoint(1, "10.244.0.9"))
    error = await failure(any_plane.registration(endpoint(2, "10.244.0.9", pod="db")))
    assert isinstance(error, Conflict)
    assert str(error) == ("address 10.244.0.9 is held by endpoint 1 of node node-1, pod shop/web")


async def test_an_address_lies_in_a_block_of_its_node(any_plane: Plane) -> None:
    await any_plane.ready_node("node-1", "10.244.0.0/26")
    await any_plane.ready_node("node-2", "10.244.0.64/26")
    for address in ("10.244.0.65", "10.244.9.1", "192.0.2.1", "fd00::1"):
        error = await failure(any_plane.registration(endpoint(1, address)))
        assert isinstance(error, Refused)
        assert str(error) == f"address {address} lies in no block of node node-1"
    # A pool that was created after the registry had learnt the others.
    await any_plane.pool("fd00::/120", 122, "ipv6")
    await any_plane.claim(pool="ipv6", request="6")
    block = next(key for key in await any_plane.keys(keys.BLOCKS) if "fd00" in key)
    address = block.removeprefix(keys.BLOCKS).partition("-")[0] + (
        "1" if block.count("::-") else ""
    )
    stored = await any_plane.register(endpoint(1, "10.244.0.1", address))
    assert stored.addresses == pair("10.244.0.1", address)


async def test_a_number_belongs_to_its_owner(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.register(endpoint(1))
    for other, text in [
        (endpoint(1, attempt="second"), "endpoint 1 of node node-1 is owned by container"),
        (
            endpoint(1, pod="db"),
            "endpoint 1 of node node-1 is endpoint 1 of node node-1, pod shop/web",
        ),
        (endpoint(1, "10.244.0.2"), "is registered with addresses 10.244.0.1"),
        (endpoint(1, pod_uid="x"), "is registered with pod UID uid-web"),
    ]:
        error = await failure(any_plane.registration(other))
        assert isinstance(error, Conflict)
        assert text in str(error)
    assert len(await any_plane.endpoints()) == 1


async def test_only_the_registered_node_registers(any_plane: Plane) -> None:
    await any_plane.ready_node()
    any_plane.nodes["node-1"].uid = "another"
    error = await failure(any_plane.registration(endpoint(1)))
    assert isinstance(error, Refused)
    assert "registered with UID uid-of-node-1, not another" in str(error)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": 0}, "endpoint.id"),
        ({"node": "Node"}, "endpoint.node"),
        ({"namespace": "a.b"}, "endpoint.namespace"),
        ({"pod": "-"}, "endpoint.pod"),
        ({"pod_uid": "a/b"}, "endpoint.pod_uid"),
        ({"addresses": {}}, "endpoint.addresses"),
        ({"addresses": {"ipv4": b"12345"}}, "endpoint.addresses"),
        (
            {"owner": {"network": "n", "container_id": "c", "attempt": "a"}},
            "endpoint.owner.interface",
        ),
        (
            {"owner": {"network": "n", "interface": "eth0", "attempt": "a"}},
            "endpoint.owner.container_id",
        ),
        (
            {"owner": {"network": "n", "container_id": "c", "interface": "x" * 16, "attempt": "a"}},
            "endpoint.owner.interface",
        ),
    ],
)
async def test_a_malformed_endpoint_is_refused(
    memory_plane: Plane, change: dict[str, object], field: str
) -> None:
    message = endpoint(1)
    for name in change:
        message.ClearField(name)  # type: ignore[arg-type]
    message.MergeFrom(pb.Endpoint(**change))  # type: ignore[arg-type]
    request = pb.RegisterEndpointRequest(endpoint=message, node_uid="uid")
    error = await failure(memory_plane.registry.RegisterEndpoint(request))
    assert isinstance(error, Invalid)
    assert error.field == field


async def test_a_batch_has_one_outcome_for_each_in_order(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(*(pod(f"pod-{n}", {"app": "same"}) for n in range(1, 51)))
    wanted = [endpoint(n, pod=f"pod-{n}") for n in range(1, 51)]
    wanted[10].addresses.CopyFrom(pair("10.244.0.1"))
    wanted[20].pod = "No Name"
    wanted.append(wanted[3])

    request = pb.RegisterEndpointsRequest(endpoints=wanted, node_uid="uid-of-node-1")
    results = (await ok(any_plane.registry.RegisterEndpoints(request))).results

    assert [index for index, result in enumerate(results) if result.error] == [10, 20]
    assert "address 10.244.0.1 is held by endpoint 1 " in results[10].error
    assert "endpoints[20].pod" in results[20].error
    assert results[50].endpoint == results[3].endpoint
    stored = await any_plane.endpoints()
    assert len(stored) == 48
    assert {item.identity for item in stored} == {256}
    # Together, not one by one: a transaction is one revision.
    assert len({item.meta.create_revision for item in stored}) <= 6


async def test_a_batch_is_of_one_node(memory_plane: Plane) -> None:
    request = pb.RegisterEndpointsRequest(
        endpoints=[endpoint(1), endpoint(1, node="node-2")], node_uid="u"
    )
    error = await failure(memory_plane.registry.RegisterEndpoints(request))
    assert isinstance(error, Invalid)
    assert error.field == "endpoints[1].node"


async def test_a_release_removes_what_its_guard_names(any_plane: Plane) -> None:
    await any_plane.ready_node()
    first = await any_plane.register(endpoint(1))
    second = await any_plane.register(endpoint(2, pod="db"))

    late = release(first)
    late.owner.attempt = "undone"
    other = release(second, incarnation=second.meta.create_revision - 1)
    assert (await any_plane.release(late, other)).removed == 0
    assert len(await any_plane.endpoints()) == 2

    done = await any_plane.release(
        release(first), release(second, incarnation=second.meta.create_revision)
    )
    assert done.removed == 2
    again = await any_plane.release(release(first))
    assert again.removed == 0
    assert again.revision >= done.revision
    for prefix in (keys.ENDPOINTS, keys.NODE_ENDPOINTS, keys.ADDRESSES):
        assert await any_plane.keys(prefix) == {}
    await any_plane.register(endpoint(3, "10.244.0.1"))


async def test_a_release_of_a_number_that_another_pod_has_is_nothing_to_do(
    any_plane: Plane,
) -> None:
    await any_plane.ready_node()
    stored = await any_plane.register(endpoint(1))
    second = await any_plane.register(endpoint(2, pod="db"))

    done = await any_plane.release(release(endpoint(1, pod="absent")), release(second))

    assert done.removed == 1
    assert await any_plane.endpoints() == [stored]


@pytest.mark.parametrize("came_before", [False, True])
async def test_a_registration_after_its_release_comes_too_late(
    any_plane: Plane, came_before: bool
) -> None:
    await any_plane.ready_node()
    if came_before:
        await any_plane.register(endpoint(1))
    for _ in range(2):  # a release may be repeated
        await any_plane.release(release(endpoint(1)))
    assert isinstance(await failure(any_plane.registration(endpoint(1))), Conflict)
    assert await any_plane.endpoints() == []
    await any_plane.register(endpoint(2, "10.244.0.1"))


async def test_a_node_that_comes_again_counts_from_one(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.register(endpoint(1))
    await any_plane.release(release(endpoint(1)))
    await ok(any_plane.registry.DeleteNode(pb.DeleteNodeRequest(name="node-1")))
    await any_plane.node(uid="another")
    await any_plane.claim(pool="pool-node-1")
    await any_plane.register(endpoint(1))


async def test_a_release_survives_a_new_identity(any_plane: Plane) -> None:
    await any_plane.ready_node()
    stored = await any_plane.register(endpoint(1))
    await any_plane.apply_pods(pod("web"))
    done = await any_plane.release(release(stored, incarnation=stored.meta.create_revision))
    assert done.removed == 1


async def test_a_release_is_checked(memory_plane: Plane) -> None:
    await memory_plane.ready_node()
    for releases, field in [
        ([], "releases"),
        ([pb.EndpointRelease(namespace="a", pod="b", node="node-1", id=1)], "releases[0].owner"),
        ([release(endpoint(1)), release(endpoint(1, node="n2"))], "releases[1].node"),
    ]:
        request = pb.ReleaseEndpointsRequest(releases=releases, node_uid="uid-of-node-1")
        error = await failure(memory_plane.registry.ReleaseEndpoints(request))
        assert isinstance(error, Invalid)
        assert error.field == field
    request = pb.ReleaseEndpointsRequest(releases=[release(endpoint(1))], node_uid="other")
    assert isinstance(await failure(memory_plane.registry.ReleaseEndpoints(request)), Refused)


async def test_16_registrars_and_one_address(any_plane: Plane) -> None:
    await any_plane.ready_node()
    outcomes = await asyncio.gather(
        *(any_plane.registration(endpoint(n, "10.244.0.5", pod=f"pod-{n}")) for n in range(1, 17)),
        return_exceptions=True,
    )
    won = [it.endpoint for it in outcomes if isinstance(it, pb.RegisterEndpointResponse)]
    assert len(won) == 1
    assert await any_plane.endpoints() == won
    assert list(await any_plane.keys(keys.ADDRESSES)) == [keys.address(bytes([10, 244, 0, 5]))]


async def test_pages_show_one_revision(any_plane: Plane) -> None:
    await any_plane.ready_node()
    for number in range(1, 8):
        await any_plane.register(endpoint(number, pod=f"pod-{number}"))
    request = pb.ListEndpointsRequest(page_size=3, node="node-1")
    first = await ok(any_plane.registry.ListEndpoints(request))
    await any_plane.release(release(endpoint(5, pod="pod-5")))
    await any_plane.register(endpoint(9, pod="pod-9"))

    pages = [first]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(await ok(any_plane.registry.ListEndpoints(request)))

    assert [len(page.endpoints) for page in pages] == [3, 3, 1]
    assert [item.id for page in pages for item in page.endpoints] == [1, 2, 3, 4, 5, 6, 7]
    assert {page.revision for page in pages} == {first.revision}


async def test_a_listing_is_filtered(any_plane: Plane) -> None:
    await any_plane.ready_node("node-1", "10.244.0.0/26")
    await any_plane.ready_node("node-2", "10.244.0.64/26")
    await any_plane.register(endpoint(1))
    await any_plane.register(endpoint(2, pod="web-2"))
    await any_plane.register(endpoint(3, namespace="shop-2"))
    await any_plane.register(endpoint(1, "10.244.0.65", node="node-2"))

    async def ids(**filters: str) -> list[tuple[str, int]]:
        request = pb.ListEndpointsRequest(**filters, page_size=2)
        found: list[tuple[str, int]] = []
        while True:
            page = await ok(any_plane.registry.ListEndpoints(request))
            found += [(item.node, item.id) for item in page.endpoints]
            if not page.next_page_token:
                return sorted(found)
            request.page_token = page.next_page_token

    assert len(await ids()) == 4
    assert await ids(namespace="shop") == [("node-1", 1), ("node-1", 2), ("node-2", 1)]
    assert await ids(namespace="shop", pod="web") == [("node-1", 1), ("node-2", 1)]
    assert await ids(node="node-2") == [("node-2", 1)]
    assert await ids(namespace="shop", node="node-1") == [("node-1", 1), ("node-1", 2)]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListEndpointsRequest(page_size=5001), "page_size"),
        (pb.ListEndpointsRequest(pod="web"), "pod"),
        (pb.ListEndpointsRequest(page_token="!!"), "page_token"),
        (pb.ListEndpointsRequest(page_token="aGVsbG8="), "page_token"),
        # "7 /deltaplane/v1/registry/": somebody else's keys
        (pb.ListEndpointsRequest(page_token="NyAvZGVsdGFwbGFuZS92MS9yZWdpc3RyeS8="), "page_token"),
    ],
)
async def test_a_malformed_listing_is_refused(
    memory_plane: Plane, request_: pb.ListEndpointsRequest, field: str
) -> None:
    error = await failure(memory_plane.registry.ListEndpoints(request_))
    assert isinstance(error, Invalid)
    assert error.field == field


async def test_the_caller_s_traceparent_is_kept(memory_plane: Plane) -> None:
    await memory_plane.ready_node()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for number, (sent, kept) in enumerate([(trace, trace), ("nonsense", "")], start=1):
        request = pb.RegisterEndpointRequest(
            endpoint=endpoint(number), node_uid=memory_plane.nodes["node-1"].uid
        )
        answer = await ok(
            memory_plane.registry.RegisterEndpoint(request, metadata=(("traceparent", sent),))
        )
        assert answer.endpoint.traceparent == kept

import pytest

from deltaplane.errors import Conflict, Invalid, Refused
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put
from deltaplane.v1 import ipam_pb2
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, endpoint, failure, ok, pair, pod, prefix

READY = pb.Endpoint.STATE_READY
WAITING = pb.Endpoint.STATE_WAITING_FOR_POD

POOL_4 = "deltaplane.dev/ipv4-pool"
POOL_6 = "deltaplane.dev/ipv6-pool"
FIXED = "deltaplane.dev/ip-addresses"


def asking(name: str = "web", *, node: str = "node-1", **annotations: str) -> pb.Pod:
    record = pod(name, node=node)
    record.annotations.update(
        {f"deltaplane.dev/{key.replace('_', '-')}": text for key, text in annotations.items()}
    )
    return record


async def answer(plane: Plane, message: pb.Endpoint) -> pb.RegisterEndpointResponse:
    return await ok(plane.registration(message))


async def two_pools(plane: Plane) -> None:
    """A node with a block of each of two IPv4 pools, which have just one."""
    await plane.pool("10.244.0.0/26", name="green")
    await plane.pool("10.7.0.0/26", name="blue")
    await plane.node()
    await plane.claim(pool="green", request="green")
    await plane.claim(pool="blue", request="blue")


async def fix(plane: Plane, node: str, address: str, pool: str = "green") -> None:
    """What ClaimAddress leaves behind."""
    owner = plane.nodes[node]
    record = ipam_pb2.Block(
        prefix=prefix(f"{address}/{len(parse_address(address)) * 8}"),
        pool=pool,
        node=node,
        node_uid=owner.uid,
        node_index=owner.index,
        fixed=True,
        usable_after_revision=1,
    )
    key = keys.block(Prefix(record.prefix.address, record.prefix.length))
    await plane.store.transact([], [Put(key, record.SerializeToString())])


async def test_a_pod_with_a_wish_gets_that_or_nothing(any_plane: Plane) -> None:
    await two_pools(any_plane)
    await any_plane.apply_pods(asking(ipv4_pool="blue"))
    before = await any_plane.keys()

    refused = await answer(any_plane, endpoint(1, "10.244.0.1"))

    assert refused == pb.RegisterEndpointResponse(wanted=pb.AddressWish(ipv4_pool="blue"))
    assert await any_plane.keys() == before
    stored = await any_plane.register(endpoint(1, "10.7.0.1"))
    assert stored.state == READY


async def test_a_fixed_address_is_wanted_as_bytes(any_plane: Plane) -> None:
    await two_pools(any_plane)
    await any_plane.apply_pods(asking(ip_addresses="10.244.0.9", ipv4_pool="blue"))
    refused = await answer(any_plane, endpoint(1, "10.7.0.1"))
    assert refused.wanted == pb.AddressWish(addresses=[parse_address("10.244.0.9")])
    assert (await any_plane.register(endpoint(1, "10.244.0.9"))).state == READY


async def test_in_a_batch_the_others_are_written(any_plane: Plane) -> None:
    await two_pools(any_plane)
    await any_plane.apply_pods(asking("one"), asking("two", ipv4_pool="blue"), asking("three"))
    request = pb.RegisterEndpointsRequest(
        endpoints=[endpoint(n, pod=name) for n, name in ((1, "one"), (2, "two"), (3, "three"))],
        node_uid=any_plane.nodes["node-1"].uid,
    )
    results = (await ok(any_plane.registry.RegisterEndpoints(request))).results
    assert [item.WhichOneof("outcome") for item in results] == ["endpoint", "wanted", "endpoint"]
    assert results[1].wanted.ipv4_pool == "blue"
    assert [item.id for item in await any_plane.endpoints()] == [1, 3]


async def test_the_namespace_s_wish_counts_where_the_pod_has_none(any_plane: Plane) -> None:
    await two_pools(any_plane)
    namespace = pb.Namespace(name="shop", annotations={POOL_4: "blue"})
    await ok(any_plane.registry.ApplyNamespaces(pb.ApplyNamespacesRequest(namespaces=[namespace])))
    await any_plane.apply_pods(pod("web"), asking("db", ipv4_pool="green"))
    refused = await answer(any_plane, endpoint(1, "10.244.0.1"))
    assert refused.wanted.ipv4_pool == "blue"
    assert (await any_plane.register(endpoint(2, "10.244.0.2", pod="db"))).state == READY


async def test_a_registered_pod_keeps_its_addresses(any_plane: Plane) -> None:
    await two_pools(any_plane)
    await any_plane.apply_pods(pod("web"))
    first = await any_plane.register(endpoint(1, "10.244.0.1"))

    await any_plane.apply_pods(asking(ipv4_pool="blue"))

    assert await any_plane.endpoints() == [first]
    assert await any_plane.register(endpoint(1, "10.244.0.1")) == first
    # A new label still gives it a new identity.
    changed = asking(ipv4_pool="blue")
    changed.labels["tier"] = "front"
    await any_plane.apply_pods(changed)
    (now,) = await any_plane.endpoints()
    assert (now.state, now.identity) == (READY, first.identity + 1)


@pytest.mark.parametrize("wish", [{"ipv4_pool": "blue"}, {"ip_addresses": "10.244.0.9"}])
async def test_an_endpoint_that_waited_with_other_addresses_goes_on_waiting(
    any_plane: Plane, wish: dict[str, str]
) -> None:
    await two_pools(any_plane)
    first = await any_plane.register(endpoint(1, "10.244.0.1"))
    assert first.state == WAITING

    await any_plane.apply_pods(asking(**wish))
    await any_plane.repositories.repairer.repair(thorough=True)

    assert await any_plane.endpoints() == [first]
    assert await any_plane.register(endpoint(1, "10.244.0.1")) == first
    # The record of the pod agrees after all: it has what it asks for.
    await any_plane.apply_pods(asking(ipv4_pool="green"))
    (now,) = await any_plane.endpoints()
    assert now.state == READY


async def test_an_endpoint_that_waited_with_the_right_address_is_joined(any_plane: Plane) -> None:
    await two_pools(any_plane)
    await any_plane.register(endpoint(1, "10.244.0.9"))
    await any_plane.apply_pods(asking(ip_addresses="10.244.0.9"))
    assert [item.state for item in await any_plane.endpoints()] == [READY]


async def test_a_wish_that_nobody_can_fulfil_is_refused(any_plane: Plane) -> None:
    await two_pools(any_plane)
    for wish, field, text in [
        ({"ipv4_pool": "red"}, POOL_4, 'there is no IPv4 pool "red"; there are blue, green'),
        ({"ipv6_pool": "blue"}, POOL_6, 'no IPv6 pool "blue"; there is none of that family'),
        (
            {"ip_addresses": "192.0.2.1"},
            FIXED,
            "192.0.2.1 is in no pool; there are blue (10.7.0.0/26), green (10.244.0.0/26)",
        ),
    ]:
        await any_plane.apply_pods(asking(**wish))
        error = await failure(any_plane.registration(endpoint(1, "10.244.0.1")))
        assert isinstance(error, Invalid)
        assert error.field == field
        assert text in error.reason
    assert await any_plane.endpoints() == []


async def test_a_pool_that_came_later_is_known(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(asking(ipv4_pool="blue"), pod("other"))
    await any_plane.register(endpoint(9, "10.244.0.9", pod="other"))  # the pools are remembered
    await any_plane.pool("10.7.0.0/26", name="blue")
    refused = await answer(any_plane, endpoint(1, "10.244.0.1"))
    assert refused.wanted.ipv4_pool == "blue"


async def test_a_pool_that_has_grown_or_gone_is_learnt_again(any_plane: Plane) -> None:
    await two_pools(any_plane)
    await any_plane.apply_pods(pod("web"), pod("db"))
    await any_plane.register(endpoint(1, "10.244.0.1"))

    # What growing does, and what deleting a pool and making one with smaller blocks does.
    grown = ipam_pb2.Pool(name="green", prefix=prefix("10.244.0.0/24"), block_length=26)
    finer = ipam_pb2.Pool(name="finer", prefix=prefix("10.7.0.0/26"), block_length=28)
    blocks = await any_plane.keys(keys.BLOCKS)
    blue = next(key for key in blocks if "10.7" in key)
    block = ipam_pb2.Block.FromString(blocks[blue])
    more = [ipam_pb2.Block(), ipam_pb2.Block()]
    for message, pool, text in zip(
        more, ("green", "finer"), ("10.244.0.64/26", "10.7.0.16/28"), strict=True
    ):
        message.CopyFrom(block)
        message.pool = pool
        message.prefix.CopyFrom(prefix(text))
    await any_plane.store.transact(
        [],
        [
            Put(keys.pool("green"), grown.SerializeToString()),
            Delete(keys.pool("blue")),
            Put(keys.pool("finer"), finer.SerializeToString()),
            Delete(blue),
            *(
                Put(
                    keys.block(Prefix(item.prefix.address, item.prefix.length)),
                    item.SerializeToString(),
                )
                for item in more
            ),
        ],
    )
    assert (await any_plane.register(endpoint(2, "10.244.0.65", pod="db"))).state == READY
    assert (await any_plane.register(endpoint(3, "10.7.0.17", pod="db"))).state == READY
    error = await failure(any_plane.registration(endpoint(4, "10.7.0.1", pod="db")))
    assert isinstance(error, Refused)


async def test_a_block_of_one_address_counts_before_the_one_around_it(any_plane: Plane) -> None:
    await any_plane.pool("10.244.0.0/25", name="green")
    await any_plane.pool("fd00::/120", 122, "six")
    for node, uid in (("node-1", "uid-of-node-1"), ("node-2", "uid-of-node-2")):
        await any_plane.node(node, uid)
        await any_plane.claim(node, pool="green")
    around = {
        item.node: Prefix(item.prefix.address, item.prefix.length)
        for item in (await ok(any_plane.ipam.ListBlocks(ipam_pb2.ListBlocksRequest()))).blocks
    }
    taken = ".".join(map(str, around["node-1"].nth(9)))
    await fix(any_plane, "node-2", taken)
    await fix(any_plane, "node-2", "fd00::9", "six")
    await any_plane.apply_pods(
        asking("mine"), asking("theirs", node="node-2", ip_addresses=f"{taken},fd00::9")
    )

    error = await failure(any_plane.registration(endpoint(9, taken, pod="mine")))
    assert isinstance(error, Refused)
    assert str(error) == f"address {taken} is claimed by node node-2 alone"

    theirs = endpoint(1, taken, "fd00::9", pod="theirs", node="node-2")
    stored = await any_plane.register(theirs)
    assert stored.addresses == pair(taken, "fd00::9")
    other = endpoint(2, taken, pod="mine", node="node-2")
    assert isinstance(await failure(any_plane.registration(other)), Conflict)


@pytest.mark.parametrize(
    ("annotation", "text", "reason"),
    [
        (POOL_4, "Blue", '"Blue" is no DNS label'),
        (POOL_6, "", '"" is no DNS label'),
        (FIXED, "10.244.0.1,10.244.0.2", "has two IPv4 addresses"),
        (FIXED, "web", "is not valid at 'web'"),
    ],
)
async def test_annotations_are_checked(
    memory_plane: Plane, annotation: str, text: str, reason: str
) -> None:
    record = pod("web")
    record.annotations[annotation] = text
    request = pb.ApplyPodsRequest(pods=[record])
    error = await failure(memory_plane.registry.ApplyPods(request))
    assert isinstance(error, Invalid)
    assert error.field == f"pods[0].annotations[{annotation}]"
    assert reason in error.reason
    assert await memory_plane.keys(keys.PODS) == {}


async def test_a_namespace_asks_for_pools_only(memory_plane: Plane) -> None:
    for annotations, field in [
        ({FIXED: "10.244.0.1"}, FIXED),
        ({POOL_4: "a.b"}, POOL_4),
    ]:
        namespace = pb.Namespace(name="shop", annotations=annotations)
        error = await failure(
            memory_plane.registry.ApplyNamespaces(pb.ApplyNamespacesRequest(namespaces=[namespace]))
        )
        assert isinstance(error, Invalid)
        assert error.field == f"namespaces[0].annotations[{field}]"

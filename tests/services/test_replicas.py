"""Two replicas over one store: what a lock inside one process cannot hide."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaplane.errors import Conflict
from deltaplane.store import keys
from deltaplane.store.port import Store
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, endpoint, failure, ok, plane, pod, release

Pair = tuple[Plane, Plane]


@pytest.fixture
async def replicas(any_store: Store, sockets: Path) -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(plane(any_store, sockets / "one"))
        two = await stack.enter_async_context(plane(any_store, sockets / "two"))
        two.nodes = one.nodes
        yield one, two


async def test_node_numbers_are_distinct(replicas: Pair) -> None:
    nodes = await asyncio.gather(*(replicas[n % 2].node(f"node-{n}") for n in range(40)))
    assert sorted(node.index for node in nodes) == list(range(1, 41))


async def test_two_nodes_of_one_name_do_not_both_register(replicas: Pair) -> None:
    for number in range(10):
        outcomes = await asyncio.gather(
            *(replica.node(f"n{number}", f"uid-{i}") for i, replica in enumerate(replicas)),
            return_exceptions=True,
        )
        assert sorted(type(it).__name__ for it in outcomes) == ["Conflict", "Node"], outcomes


async def test_16_registrars_with_colliding_addresses(replicas: Pair) -> None:
    one, two = replicas
    await one.ready_node()
    names = [f"pod-{number}" for number in range(1, 17)]
    await one.apply_pods(*(pod(name, {"app": "same"}) for name in names))

    # Each address is wanted four times, from both replicas.
    outcomes = await asyncio.gather(
        *(
            replicas[n % 2].registration(endpoint(n, f"10.244.0.{1 + n // 2 % 4}", pod=f"pod-{n}"))
            for n in range(1, 17)
        ),
        return_exceptions=True,
    )

    won = [it.endpoint for it in outcomes if isinstance(it, pb.RegisterEndpointResponse)]
    assert sorted(item.addresses.ipv4[3] for item in won) == [1, 2, 3, 4]
    assert {item.identity for item in won} == {256}
    assert sorted(item.id for item in await two.endpoints()) == sorted(item.id for item in won)
    assert list(await one.identities()) == [256]
    holders = await one.keys(keys.ADDRESSES)
    assert set(holders.values()) == {key.encode() for key in await one.keys(keys.ENDPOINTS)}


async def test_the_same_registration_on_both_is_one_endpoint(replicas: Pair) -> None:
    await replicas[0].ready_node()
    for number in range(1, 9):
        first, second = await asyncio.gather(*(it.register(endpoint(number)) for it in replicas))
        assert first == second
    assert len(await replicas[0].endpoints()) == 8


async def test_one_number_for_two_pods_is_one_endpoint(replicas: Pair) -> None:
    await replicas[0].ready_node()
    for number in range(1, 9):
        wanted = (endpoint(number), endpoint(number, f"10.244.0.{number + 20}", pod="db"))
        outcomes = await asyncio.gather(
            *(it.register(wish) for it, wish in zip(replicas, wanted, strict=True)),
            return_exceptions=True,
        )
        assert sorted(type(it).__name__ for it in outcomes) == ["Conflict", "Endpoint"], outcomes


async def test_blocks_released_under_a_registration_are_noticed(replicas: Pair) -> None:
    one, two = replicas
    await one.ready_node("node-1", "10.244.0.0/26")
    await one.node("node-2")
    # The node goes and comes on one replica while the other still serves its endpoints.
    for number in range(1, 6):
        gone = one.registry.DeleteNode(pb.DeleteNodeRequest(name="node-1"))
        outcome, _ = await asyncio.gather(
            two.registration(endpoint(number)), ok(gone), return_exceptions=True
        )
        await one.repositories.repairer.repair(thorough=False)
        assert await one.endpoints() == [], outcome
        assert await one.keys(keys.ADDRESSES) == {}
        assert await one.keys(keys.NODE_ENDPOINTS) == {}
        await one.node("node-1")
        await one.claim("node-1", request=str(number), pool="pool-node-1")


async def test_a_release_and_a_registration_of_one_address(replicas: Pair) -> None:
    one, two = replicas
    await one.ready_node()
    for number in range(1, 9):
        old = await one.register(endpoint(2 * number, "10.244.0.1"))
        new = endpoint(2 * number + 1, "10.244.0.1", pod="db")
        _, outcome = await asyncio.gather(
            one.release(release(old)), two.registration(new), return_exceptions=True
        )
        if not isinstance(outcome, pb.RegisterEndpointResponse):
            await two.register(new)
        (holder,) = await one.endpoints()
        assert holder.id == new.id
        error = await failure(one.registration(endpoint(99, "10.244.0.1", pod="third")))
        assert isinstance(error, Conflict)
        await two.release(release(new))

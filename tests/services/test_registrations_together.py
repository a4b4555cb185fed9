"""Many registrations in one transaction: each stands or falls by itself.

A call for several endpoints puts them into the queue at once, so they are one transaction.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from deltaplane.errors import Unavailable
from deltaplane.store import keys
from deltaplane.store.port import CommittedParts, Delete, Part, Put, Store
from deltaplane.v1 import ipam_pb2
from deltaplane.v1 import registry_pb2 as pb
from services.endpoints.identity import LAST_IDENTITY
from tests.services.plane import Plane, endpoint, ok, plane, pod, prefix, release

Hook = Callable[[], Awaitable[object]]


class Interrupted:
    """A store. Before the next transaction of parts it runs a hook, once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.hook: Hook | None = None
        self.loses_answer = False
        self.parts: list[int] = []
        self.succeeded: list[tuple[bool, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def transact_parts(self, parts: Sequence[Part]) -> CommittedParts:
        self.parts.append(len(parts))
        hook, self.hook = self.hook, None
        if hook is not None:
            await hook()
        outcome = await self.store.transact_parts(parts)
        self.succeeded.append(outcome.succeeded)
        if self.loses_answer:
            self.loses_answer = False
            raise Unavailable("the answer was lost")
        return outcome


Stage = tuple[Interrupted, Plane]


@pytest.fixture
async def stage(any_store: Store, sockets: Path) -> AsyncIterator[Stage]:
    """A node with pods "web" and "db", and nothing remembered but its pool."""
    store = Interrupted(any_store)
    async with plane(cast("Store", store), sockets / "one") as served:
        await served.ready_node()
        await served.apply_pods(pod("web"), pod("db"))
        yield store, served


async def register_all(
    served: Plane, *endpoints: pb.Endpoint, node: str = "node-1"
) -> list[pb.RegisterEndpointResult]:
    request = pb.RegisterEndpointsRequest(endpoints=endpoints, node_uid=served.nodes[node].uid)
    return list((await ok(served.registry.RegisterEndpoints(request))).results)


def errors(results: Sequence[pb.RegisterEndpointResult]) -> list[str]:
    return [result.error for result in results]


async def test_as_many_as_have_room_share_a_transaction(stage: Stage) -> None:
    store, served = stage
    for request in range(3):
        await served.pool(f"10.245.0.{64 * request}/26", name=f"more-{request}")
        await served.claim(request=f"more-{request}", pool=f"more-{request}")
    addresses = [f"10.244.0.{n}" for n in range(40)] + [f"10.245.0.{n}" for n in range(40)]
    results = await register_all(
        served, *(endpoint(n, address) for n, address in enumerate(addresses, 1))
    )
    assert errors(results) == [""] * 80
    assert store.parts == [64, 16]
    assert len({result.endpoint.meta.mod_revision for result in results}) == 2
    assert [result.endpoint for result in results[:3]] == [
        item for item in await served.endpoints() if item.id <= 3
    ]


async def test_one_that_is_refused_costs_no_other(stage: Stage) -> None:
    store, served = stage
    await served.register(endpoint(9))
    await served.register(endpoint(10))
    await served.register(endpoint(8))
    await served.release(release(endpoint(8)))
    results = await register_all(
        served,
        endpoint(1),
        endpoint(2, "10.244.0.10"),
        endpoint(8, "10.244.0.3"),
        endpoint(4, "10.9.9.9"),
        endpoint(5, pod_uid="another"),
        endpoint(6, pod="unknown"),
        endpoint(9),
        endpoint(7, pod="db"),
    )
    said = [error.split(":")[0] for error in errors(results)]
    assert [bool(error) for error in said] == [
        False, True, True, True, True, False, False, False
    ]  # fmt: skip
    assert "10.244.0.10 is held by" in said[1]
    assert "has been released" in said[2]
    assert "10.9.9.9 lies in no block" in said[3]
    assert "pod shop/web" in said[4]
    assert results[5].endpoint.state == pb.Endpoint.STATE_WAITING_FOR_POD
    together = {results[index].endpoint.meta.mod_revision for index in (0, 5, 7)}
    assert len(together) == 1
    assert results[6].endpoint.meta.mod_revision < min(together)
    assert store.parts == [5]  # with the two of which etcd says that something is there


async def test_what_changes_between_read_and_write_concerns_only_its_own(stage: Stage) -> None:
    store, served = stage

    async def meanwhile() -> None:
        await served.repositories.objects.apply_pods([pod("db", {"app": "new"})], "")
        await store.store.transact(
            [],
            [
                Put(keys.address(bytes((10, 244, 0, 3))), b"somebody"),
                Put(keys.released_endpoint("node-1", 4), b"1"),
                Put(keys.node_endpoint("node-1", 6), b"another"),
            ],
        )

    store.hook = meanwhile
    results = await register_all(
        served,
        endpoint(1),
        endpoint(2, pod="db"),
        endpoint(3),
        endpoint(4),
        endpoint(5),
        endpoint(6),
    )

    assert [bool(error) for error in errors(results)] == [False, False, True, True, False, True]
    assert "is held by" in results[2].error
    assert "has been released" in results[3].error
    assert 'endpoint 6 of node node-1 is "another"' in results[5].error
    first, second, last = (results[index].endpoint for index in (0, 1, 4))
    assert first.meta.mod_revision == last.meta.mod_revision < second.meta.mod_revision
    assert dict((await served.identities())[second.identity].labels) == {"app": "new"}
    assert [item.id for item in await served.endpoints()] == [2, 1, 5]


async def test_a_lost_answer_is_no_second_registration(stage: Stage) -> None:
    store, served = stage
    store.loses_answer = True
    results = await register_all(served, endpoint(1), endpoint(2, pod="db"))
    assert errors(results) == ["", ""]
    assert store.parts == [2]
    assert [result.endpoint.id for result in results] == [1, 2]
    assert len({item.meta.mod_revision for item in await served.endpoints()}) == 1


async def test_a_number_that_is_gone_is_not_used(stage: Stage) -> None:
    store, served = stage
    old = await served.register(endpoint(9))
    names = [*await served.keys(keys.LABEL_SETS), *await served.keys(keys.IDENTITIES)]
    store.hook = lambda: store.store.transact([], list(map(Delete, names)))  # an older backup
    results = await register_all(served, endpoint(1), endpoint(2))
    assert errors(results) == ["", ""]
    (number,) = {result.endpoint.identity for result in results}
    assert number != old.identity
    assert dict((await served.identities())[number].labels) == {"app": "web"}


async def test_without_a_number_for_its_labels_only_that_one_fails(stage: Stage) -> None:
    store, served = stage
    await served.register(endpoint(9))
    await store.transact([], [Put(keys.IDENTITY_COUNTER, str(LAST_IDENTITY).encode())])
    results = await register_all(served, endpoint(1), endpoint(2, pod="db"), endpoint(3))
    assert [bool(error) for error in errors(results)] == [False, True, False]
    assert "identity numbers end" in results[1].error


# --- what is remembered is no longer so ----------------------------------------------------------


async def test_a_node_that_goes_takes_its_registrations_along(stage: Stage) -> None:
    store, served = stage
    await served.register(endpoint(1))
    store.hook = lambda: store.store.transact([], [Delete(keys.node("node-1"))])
    results = await register_all(served, endpoint(2), endpoint(3))
    assert errors(results) == [errors(results)[0]] * 2
    assert "node node-1 is not registered" in results[0].error
    assert [item.id for item in await served.endpoints()] == [1]


async def test_a_node_that_is_registered_anew_is_seen(stage: Stage) -> None:
    store, served = stage
    await served.register(endpoint(1))
    old = served.nodes["node-1"]
    await store.transact([], [Delete(keys.node("node-1"))])
    new = await served.node("node-1", "reborn")
    await served.pool("10.9.0.0/26", name="other")
    await served.claim(pool="other", request="new")
    (stored,) = await register_all(served, endpoint(2, "10.9.0.2"))
    assert stored.endpoint.node_index == new.index != old.index
    served.nodes["node-1"] = old
    assert "is registered with UID reborn" in str(
        await register_all(served, endpoint(3, "10.9.0.3"))
    )


async def test_a_block_that_is_another_node_s_is_seen(stage: Stage) -> None:
    store, served = stage
    await served.register(endpoint(1))
    (key,) = await served.keys(keys.BLOCKS)
    await store.transact([], [Delete(key)])
    assert "lies in no block" in str(await register_all(served, endpoint(2)))
    other = await served.node("node-2")
    await served.claim("node-2", pool="pool-node-1")
    assert "lies in no block of node node-1" in str(await register_all(served, endpoint(3)))
    await served.apply_pods(pod("cart", node="node-2"))
    (stored,) = await register_all(served, endpoint(4, pod="cart", node="node-2"), node="node-2")
    assert stored.endpoint.node_index == other.index


async def test_a_namespace_with_other_labels_is_seen(stage: Stage) -> None:
    store, served = stage
    await served.apply_namespace({"team": "old"})
    await served.register(endpoint(1))
    await served.apply_namespace({"team": "new"})
    stored, _ = await register_all(served, endpoint(2), endpoint(3))
    labels = (await served.identities())[stored.endpoint.identity].namespace_labels
    assert labels["team"] == "new"
    # The next ones need not find out again.
    await register_all(served, endpoint(4), endpoint(5))
    assert store.succeeded == [(False, False), (True, True)]


async def test_an_address_that_another_node_has_claimed_alone_is_refused(stage: Stage) -> None:
    store, served = stage
    await served.register(endpoint(1))
    alone = ipam_pb2.Block(
        prefix=prefix("10.244.0.2/32"), pool="pool-node-1", node="node-2", node_index=2
    )
    key = f"{keys.BLOCKS}10.244.0.2-32"
    await store.transact([], [Put(key, alone.SerializeToString(deterministic=True))])
    refused, other = await register_all(served, endpoint(2), endpoint(3))
    assert "10.244.0.2 is claimed by node node-2 alone" in refused.error
    assert other.endpoint.id == 3

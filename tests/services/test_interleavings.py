"""Something happens between what a call reads and what it writes: each race, made on purpose."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from deltaplane.errors import Unavailable
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Committed, CommittedParts, Compare, Delete, Operation, Part, Put
from deltaplane.v1 import ipam_pb2
from services.endpoints.wire.records import encode
from tests.services.plane import Plane, endpoint, ok, plane, pod

Hook = Callable[[], Awaitable[object]]


class InterruptedStore(MemoryStore):
    """Runs a hook once, before or after the next transaction that writes below a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self._hook: tuple[str, Hook] | None = None
        self._loses_answer = False

    def interrupt(self, prefix: str, hook: Hook, *, and_lose_the_answer: bool = False) -> None:
        self._hook, self._loses_answer = (prefix, hook), and_lose_the_answer

    async def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed:
        if self._hook is None or not any(_key(it).startswith(self._hook[0]) for it in operations):
            return await super().transact(compares, operations)
        (_, hook), self._hook = self._hook, None
        if self._loses_answer:
            await super().transact(compares, operations)
            await hook()
            raise Unavailable("the answer was lost")
        await hook()
        return await super().transact(compares, operations)

    async def transact_parts(self, parts: Sequence[Part]) -> CommittedParts:
        writes = [operation for part in parts for operation in part.operations]
        if self._hook is None or not any(_key(it).startswith(self._hook[0]) for it in writes):
            return await super().transact_parts(parts)
        (_, hook), self._hook = self._hook, None
        if self._loses_answer:
            await super().transact_parts(parts)
            await hook()
            raise Unavailable("the answer was lost")
        await hook()
        return await super().transact_parts(parts)


def _key(operation: Operation) -> str:
    return operation.key if isinstance(operation, Put | Delete) else operation.prefix


Stage = tuple[InterruptedStore, Plane, Plane]


@pytest.fixture
async def stage(sockets: Path) -> AsyncIterator[Stage]:
    """A store and two replicas: one is interrupted by what the other does."""
    store = InterruptedStore()
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(plane(store, sockets / "one"))
        two = await stack.enter_async_context(plane(store, sockets / "two"))
        await one.ready_node()
        two.nodes = one.nodes
        yield store, one, two


async def labels_of(plane: Plane) -> dict[str, str]:
    (item,) = await plane.endpoints()
    return dict((await plane.identities())[item.identity].labels)


@pytest.mark.parametrize("begins_with", [None, "old"])
async def test_a_pod_changes_under_a_registration(stage: Stage, begins_with: str | None) -> None:
    store, one, two = stage
    if begins_with:
        await one.apply_pods(pod("web", {"app": begins_with}))
    store.interrupt(keys.ENDPOINTS, lambda: two.apply_pods(pod("web", {"app": "new"})))
    await one.register(endpoint(1))
    assert await labels_of(one) == {"app": "new"}


async def test_a_namespace_changes_under_a_registration(stage: Stage) -> None:
    store, one, two = stage
    await one.apply_pods(pod("web"))
    store.interrupt(keys.ENDPOINTS, lambda: two.apply_namespace({"team": "new"}))
    stored = await one.register(endpoint(1))
    assert (await one.identities())[stored.identity].namespace_labels["team"] == "new"


async def test_a_pod_changes_while_endpoints_follow_and_its_writer_dies(stage: Stage) -> None:
    store, one, _ = stage
    await one.apply_pods(pod("web"))
    await one.register(endpoint(1))
    newest = Put(keys.pod("shop", "web"), encode(pod("web", {"app": "newest"})))
    store.interrupt(keys.ENDPOINTS, lambda: store.transact([], [newest]))
    await one.apply_pods(pod("web", {"app": "new"}))
    assert await labels_of(one) == {"app": "newest"}


async def test_an_endpoint_that_goes_is_not_brought_back_by_new_labels(stage: Stage) -> None:
    store, one, two = stage
    await one.apply_pods(pod("web"))
    await one.register(endpoint(1))
    gone = Delete(keys.endpoint("shop", "web", "node-1", 1))
    store.interrupt(keys.ENDPOINTS, lambda: store.transact([], [gone]))
    await one.apply_pods(pod("web", {"app": "new"}))
    assert await two.endpoints() == []


async def test_two_label_sets_never_get_one_number(stage: Stage) -> None:
    store, one, two = stage
    await one.apply_pods(pod("web"), pod("db"))
    store.interrupt(keys.IDENTITIES, lambda: two.register(endpoint(2, pod="db")))
    await one.register(endpoint(1))
    numbers = {item.pod: item.identity for item in await one.endpoints()}
    identities = await one.identities()
    assert {name: identities[number].labels["app"] for name, number in numbers.items()} == {
        "web": "web",
        "db": "db",
    }
    assert len(identities) == 2


async def test_a_block_goes_under_a_registration(stage: Stage) -> None:
    store, one, _ = stage
    (key,) = await one.keys(keys.BLOCKS)
    store.interrupt(keys.ENDPOINTS, lambda: store.transact([], [Delete(key)]))
    outcome = await asyncio.gather(one.registration(endpoint(1)), return_exceptions=True)
    assert "lies in no block of node node-1" in str(outcome)
    assert await one.endpoints() == []


async def test_a_node_goes_under_a_claim(stage: Stage) -> None:
    store, one, _ = stage
    await one.pool("10.9.0.0/24", name="other")
    store.interrupt(keys.BLOCKS, lambda: store.transact([], [Delete(keys.node("node-1"))]))
    assert "node node-1 is not registered" in str(await one.no_claim(request="late", pool="other"))
    assert len(await one.keys(keys.BLOCKS)) == 1


async def test_a_block_is_claimed_by_another_before_its_release_is_confirmed(stage: Stage) -> None:
    store, one, two = stage
    await one.pool("10.9.0.0/26", name="other")
    await one.node("node-2")
    block = await one.claim(request="r", pool="other")
    store.interrupt(
        keys.BLOCKS, lambda: two.claim("node-2", pool="other"), and_lose_the_answer=True
    )
    request = ipam_pb2.ReleaseBlockRequest(prefix=block.prefix, node_uid=block.node_uid)
    await ok(one.ipam.ReleaseBlock(request))
    answer = await ok(one.ipam.ListBlocks(ipam_pb2.ListBlocksRequest(pool="other")))
    assert [item.node for item in answer.blocks] == ["node-2"]


async def test_a_caller_that_gives_up_costs_nobody_else(stage: Stage) -> None:
    store, one, _ = stage
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    store.interrupt(keys.ENDPOINTS, wait)
    impatient = asyncio.ensure_future(one.registration(endpoint(1)))
    await reached.wait()
    patient = [asyncio.ensure_future(one.register(endpoint(n))) for n in (2, 3)]
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    go_on.set()
    assert [item.id for item in await asyncio.gather(*patient)] == [2, 3]
    # What the impatient one asked for may be there; asking again finds out.
    assert (await one.register(endpoint(1))).id == 1


async def test_asking_again_catches_up_with_the_pod(stage: Stage) -> None:
    store, one, _ = stage
    await one.register(endpoint(1))
    record = Put(keys.pod("shop", "web"), encode(pod("web")))
    await store.transact([], [record])  # written by a replica that died right after
    again = await one.register(endpoint(1))
    assert await labels_of(one) == {"app": "web"}
    assert [again] == await one.endpoints()


async def test_cleaning_up_spares_the_new_registration(stage: Stage) -> None:
    store, one, two = stage
    await one.pool("10.9.0.0/24", name="other")
    await one.register(endpoint(1))
    await store.transact([], [Delete(keys.node("node-1"))])
    await one.node("node-1", "reborn")
    block = await one.claim(pool="other", request="new")
    address = ".".join(map(str, block.prefix.address))
    kept = await one.register(endpoint(2, address, pod="db"))

    await two.repositories.repairer.repair(thorough=False)

    assert await one.endpoints() == [kept]
    assert len(await one.keys(keys.BLOCKS)) == 1
    assert list(await one.keys(keys.ADDRESSES)) == [keys.address(block.prefix.address)]

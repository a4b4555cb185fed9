"""Whatever transaction is lost, applied or not: repeating the call ends as if nothing had been.

A replica that is killed and one that cannot reach etcd look the same from outside: the call fails,
some of its transactions are applied. So each story runs once undisturbed, which counts its
transactions and gives the expected outcome, and then once for each transaction that can fail,
before or after being applied.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from deltaplane.errors import Conflict, DeltaplaneError, Unavailable
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Committed, CommittedParts, Compare, Operation, Part
from deltaplane.v1 import ipam_pb2
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, endpoint, ok, plane, pod, release


class Crash(DeltaplaneError):
    """Unlike Unavailable nobody retries it inside: the replica is gone."""


class FailingStore(MemoryStore):
    """Fails the n-th transaction from `arm` on, once."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = 0
        self._fail_at = 0
        self._applied = False
        self._error: type[DeltaplaneError] = Unavailable

    def arm(self, number: int, *, applied: bool, error: type[DeltaplaneError]) -> None:
        self.transactions = 0
        self._fail_at, self._applied, self._error = number, applied, error

    async def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed:
        self.transactions += 1
        if self.transactions != self._fail_at:
            return await super().transact(compares, operations)
        if self._applied:
            await super().transact(compares, operations)
        raise self._error("lost")

    async def transact_parts(self, parts: Sequence[Part]) -> CommittedParts:
        self.transactions += 1
        if self.transactions != self._fail_at:
            return await super().transact_parts(parts)
        if self._applied:
            await super().transact_parts(parts)
        raise self._error("lost")


async def claim_and_release(plane: Plane) -> None:
    await plane.pool("10.244.0.0/25")
    await plane.node()
    first = await plane.claim(request="0")
    second = await plane.claim(request="1")
    assert first.prefix != second.prefix
    await ok(
        plane.ipam.ReleaseBlock(
            ipam_pb2.ReleaseBlockRequest(prefix=first.prefix, node_uid=first.node_uid)
        )
    )


async def register_and_release(plane: Plane) -> None:
    await plane.ready_node()
    await plane.apply_pods(pod("web"), pod("db"))
    # A second time it comes after its release, and stays out.
    with contextlib.suppress(Conflict):
        await plane.register(endpoint(1))
    await plane.register(endpoint(2, pod="db"))
    await plane.release(release(endpoint(1)))


async def relabel(plane: Plane) -> None:
    await plane.ready_node()
    await plane.register(endpoint(1))
    await plane.apply_pods(pod("web"))
    await plane.apply_namespace({"team": "red"})
    await plane.apply_pods(pod("web", {"app": "new"}))


async def delete_node(plane: Plane) -> None:
    await plane.ready_node()
    await plane.register(endpoint(1))
    await ok(plane.registry.DeleteNode(pb.DeleteNodeRequest(name="node-1")))


STORIES = [claim_and_release, register_and_release, relabel, delete_node]
Story = Callable[[Plane], Awaitable[None]]


def is_invariant(name: str) -> bool:
    """Identity numbers depend on which allocation was lost; who has which does not."""
    return not name.startswith((keys.IDENTITIES, keys.LABEL_SETS, keys.IDENTITY_COUNTER))


async def outcome(plane: Plane) -> dict[str, object]:
    """All that is stored, with identities spelt out as what they stand for."""
    identities = await plane.identities()
    stored: dict[str, object] = {
        key: value for key, value in (await plane.keys()).items() if is_invariant(key)
    }
    for item in await plane.endpoints():
        meaning = identities.get(item.identity, item.identity)
        labels = (
            (sorted(meaning.labels.items()), sorted(meaning.namespace_labels.items()))
            if isinstance(meaning, pb.Identity)
            else meaning
        )
        key = keys.endpoint(item.namespace, item.pod, item.node, item.id)
        stored[key] = (item.owner.container_id, item.state, labels)
    return stored


async def undisturbed(story: Story, socket: Path) -> tuple[dict[str, object], int]:
    store = FailingStore()
    async with plane(store, socket) as served:
        await story(served)
        count = store.transactions
        return await outcome(served), count


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_a_lost_transaction_is_retried_inside(
    sockets: Path, story: Story, applied: bool
) -> None:
    expected, count = await undisturbed(story, sockets / "expected")
    assert count > 3
    for number in range(1, count + 1):
        store = FailingStore()
        async with plane(store, sockets / f"run-{number}") as served:
            store.arm(number, applied=applied, error=Unavailable)
            await story(served)
            assert await outcome(served) == expected, f"transaction {number} of {count}"


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_a_killed_replica_is_replaced(sockets: Path, story: Story, applied: bool) -> None:
    expected, count = await undisturbed(story, sockets / "expected")
    for number in range(1, count + 1):
        store = FailingStore()
        async with plane(store, sockets / f"killed-{number}") as served:
            store.arm(number, applied=applied, error=Crash)
            with pytest.raises(DeltaplaneError):
                await story(served)
        # The client repeats everything against another replica, which repairs when it starts.
        async with plane(store, sockets / f"next-{number}") as served:
            await served.repositories.repairer.repair(thorough=True)
            await story(served)
            await served.repositories.repairer.repair(thorough=False)
            got = await outcome(served)
        assert without_history(got) == without_history(expected), f"{number} of {count}"


def without_history(stored: dict[str, object]) -> dict[str, object]:
    """A story that is told twice registers a deleted node anew, with the next number."""
    return {key: value for key, value in stored.items() if key != keys.NODE_COUNTER}


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
async def test_a_replica_killed_while_relabelling_is_finished_by_the_repair_alone(
    sockets: Path, applied: bool
) -> None:
    for number in (1, 2, 3):
        store = FailingStore()
        async with plane(store, sockets / f"killed-{number}") as served:
            await served.ready_node()
            await served.apply_pods(pod("web"))
            await served.register(endpoint(1))
            store.arm(number, applied=applied, error=Crash)
            with pytest.raises(DeltaplaneError):
                await served.apply_pods(pod("web", {"app": "new"}))
        async with plane(store, sockets / f"next-{number}") as served:
            await served.repositories.repairer.repair(thorough=False)
            (item,) = await served.endpoints()
            record = pb.Pod.FromString((await served.keys(keys.PODS))[keys.pod("shop", "web")])
            identity = (await served.identities())[item.identity]
            # Old or new, as the pod record says: it was written or it was not.
            assert identity.labels == record.labels
            assert record.labels == (
                {"app": "web"} if number == 1 and not applied else {"app": "new"}
            )

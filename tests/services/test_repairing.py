"""The repair compares endpoints with ranges of pods and namespaces: whatever their names are."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from deltaplane.store import keys
from deltaplane.store.port import Delete, KeyValue, Page, Put, Store
from services.endpoints.identity import LabelFilter
from services.endpoints.repository import Repositories
from services.endpoints.repository.repairing import Repairer
from services.endpoints.wire.records import encode
from tests.services.plane import Plane, endpoint, plane, pod

# '-' and '.' come before '/', which ends a pod's name in the key of its endpoint.
NAMES = ("a", "a-1", "a-1-b", "a.b", "a0", "a1", "b", "b-a", "ba", "c")


class Counting:
    """A store that counts what is read of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads = self.items = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def page(
        self, prefix: str, *, limit: int, start_key: str = "", revision: int = 0
    ) -> Page:
        page = await self.store.page(prefix, limit=limit, start_key=start_key, revision=revision)
        self.reads += 1
        self.items += len(page.items)
        return page

    async def get_many(self, names: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        self.reads += len(names)
        return await self.store.get_many(names)


def repairer(store: Store | Counting) -> Repairer:
    return Repositories.over(cast("Store", store), LabelFilter()).repairer


async def written(store: Store, names: Sequence[str]) -> None:
    for start in range(0, len(names), 100):
        await store.transact([], [Put(name, b"") for name in names[start : start + 100]])


async def test_ranges_say_the_same_as_key_by_key(any_store: Store) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    everything = [keys.pod(space, name) for space in ("ns", "ns-x", "x") for name in NAMES]
    for _ in range(30):
        await any_store.transact([], [Delete(name) for name in everything])
        await written(any_store, rng.sample(everything, rng.randint(0, len(everything))))
        wanted = set(rng.sample(everything, rng.randint(0, len(everything))))
        found, _ = await any_store.get_many(list(wanted))
        expected = {item.key: item.mod_revision for item in found if item}
        assert await repairer(any_store)._revisions(wanted) == expected


async def test_reads_grow_with_pages_and_not_with_what_lies_between(any_store: Store) -> None:
    names = [keys.pod("ns", f"pod-{number:04}") for number in range(1000)]
    await written(any_store, names)
    dense = Counting(any_store)
    assert len(await repairer(dense)._revisions(set(names[100:900]))) == 800
    assert (dense.reads, dense.items) == (1, 800)
    sparse = Counting(any_store)
    assert len(await repairer(sparse)._revisions(set(names[::40]))) == 25
    assert sparse.reads + sparse.items <= 50
    torn = Counting(any_store)
    assert len(await repairer(torn)._revisions({*names[:100], *names[500:600]})) == 200
    assert torn.reads + torn.items <= 310


async def relabelled_by_a_replica_that_died(served: Plane, *names: str) -> None:
    """Pod records are written; who would have told the endpoints is gone."""
    for name in names:
        record = encode(pod(name, {"app": "new"}))
        await served.store.transact([], [Put(keys.pod("shop", name), record)])


async def test_the_endpoints_of_newer_records_follow_and_no_others(
    any_store: Store, sockets: Path
) -> None:
    async with plane(any_store, sockets / "one") as served:
        await served.ready_node()
        await served.apply_namespace({"team": "red"})
        await served.apply_pods(*(pod(name, {"app": "old"}) for name in NAMES))
        for number, name in enumerate(NAMES, 1):
            await served.register(endpoint(number, pod=name))
        waiting = await served.register(endpoint(20, pod="a-late"))
        before = {item.pod: item for item in await served.endpoints()}
        stale = ("a", "a-1-b", "a0", "b-a", "a-late")
        await relabelled_by_a_replica_that_died(served, *stale)

        await served.repositories.repairer.repair(thorough=False)

        after = {item.pod: item for item in await served.endpoints()}
        labels = {number: dict(it.labels) for number, it in (await served.identities()).items()}
        assert {name for name, item in after.items() if item != before[name]} == set(stale)
        assert {labels[after[name].identity]["app"] for name in stale} == {"new"}
        assert before["a-late"] == waiting

        # A namespace concerns all of its endpoints, also when its record is gone.
        await any_store.transact([], [Delete(keys.namespace("shop"))])
        await served.repositories.repairer.repair(thorough=False)
        identities = await served.identities()
        for item in await served.endpoints():
            assert "team" not in identities[item.identity].namespace_labels

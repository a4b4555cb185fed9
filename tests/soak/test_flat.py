"""The flat store does what the store in memory does, which passes the contract of the port."""

import asyncio
import random

from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import (
    Absent,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Operation,
    Put,
    Unchanged,
)
from tests.soak.flat import FlatStore

KEYS = tuple(f"/a/{n}" for n in range(4)) + tuple(f"/b/{n}" for n in range(3))


def compares(rng: random.Random, top: int) -> list[Compare]:
    kinds = (
        Absent,
        lambda key: Unchanged(key, rng.randint(1, top)),
        lambda key: CreatedAt(key, rng.randint(1, top)),
    )
    return [rng.choice(kinds)(rng.choice(KEYS)) for _ in range(rng.choice((0, 0, 1, 2)))]


def operations(rng: random.Random) -> list[Operation]:
    if rng.random() < 0.1:
        return [DeletePrefix(rng.choice(("/a/", "/b/")))]
    keys = rng.sample(KEYS, rng.randint(0, 3))
    return [
        Put(key, bytes([rng.randrange(4)])) if rng.random() < 0.7 else Delete(key) for key in keys
    ]


async def compare_stores(seed: int) -> None:
    rng = random.Random(seed)
    memory, flat = MemoryStore(), FlatStore()
    for _ in range(40):
        conditions, writes = compares(rng, flat.head()), operations(rng)
        assert flat.transact(conditions, writes) == await memory.transact(conditions, writes)
        assert flat.get_many(KEYS) == await memory.get_many(KEYS)
        prefix, limit = rng.choice(("/", "/a/", "/b/", "/c/")), rng.randint(1, 3)
        assert flat.list(prefix) == await memory.list(prefix)
        start = rng.choice(("", *KEYS))
        page = flat.page(prefix, limit=limit, start_key=start, revision=0)
        assert page == await memory.page(prefix, limit=limit, start_key=start)
        assert flat.head() == await memory.head()


def test_the_two_stores_agree() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for number in range(30):
        asyncio.run(compare_stores(seed + number))


def test_a_fork_goes_its_own_way() -> None:
    store = FlatStore()
    store.transact([], [Put("/a", b"1")])
    other = store.fork()
    other.transact([], [Put("/a", b"2")])
    assert store.items["/a"].value == b"1"
    assert (store.head(), other.head()) == (2, 3)

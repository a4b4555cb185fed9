import random
from collections.abc import Sequence

import pytest

from deltaplane.errors import Invalid
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import (
    MAX_PART_OPERATIONS,
    MAX_PARTS,
    MAX_TRANSACTION_OPERATIONS,
    Absent,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Event,
    KeyValue,
    Operation,
    Part,
    Put,
    Store,
    Unchanged,
)
from tests.contract.store.conftest import collect


async def put(store: Store, key: str, value: bytes = b"") -> int:
    outcome = await store.transact([], [Put(key, value)])
    assert outcome.succeeded
    return outcome.revision


async def test_what_is_written_is_read_with_its_revisions(store: Store, prefix: str) -> None:
    first = await put(store, prefix + "a", b"1")
    second = await put(store, prefix + "a", b"\x00\xff")

    assert second == first + 1
    assert await store.get(prefix + "a") == KeyValue(
        key=prefix + "a", value=b"\x00\xff", create_revision=first, mod_revision=second
    )
    assert await store.get(prefix + "missing") is None


async def test_the_past_can_be_read(store: Store, prefix: str) -> None:
    before = await store.head()
    first = await put(store, prefix + "a", b"1")
    await store.transact([], [Delete(prefix + "a")])

    old = await store.get(prefix + "a", revision=first)
    assert old is not None
    assert old.value == b"1"
    assert await store.get(prefix + "a") is None
    assert await store.get(prefix + "a", revision=before) is None


async def test_the_future_cannot_be_read(store: Store, prefix: str) -> None:
    head = await store.head()
    with pytest.raises(Invalid):
        await store.get(prefix + "a", revision=head + 1000)
    with pytest.raises(Invalid):
        await store.list(prefix, revision=head + 1000)


async def test_a_key_created_again_has_a_new_create_revision(store: Store, prefix: str) -> None:
    first = await put(store, prefix + "a")
    await store.transact([], [Delete(prefix + "a")])
    again = await put(store, prefix + "a")

    assert not (await store.transact([CreatedAt(prefix + "a", first)], [])).succeeded
    assert (await store.transact([CreatedAt(prefix + "a", again)], [])).succeeded


async def test_many_keys_are_read_at_one_revision(store: Store, prefix: str) -> None:
    await put(store, prefix + "a", b"1")
    revision = await put(store, prefix + "c", b"3")

    found, at = await store.get_many([prefix + "c", prefix + "b", prefix + "a"])

    assert at >= revision
    assert [item.value if item else None for item in found] == [b"3", None, b"1"]
    assert await store.get_many([]) == ((), await store.head())


async def test_a_transaction_writes_all_at_one_revision(store: Store, prefix: str) -> None:
    await put(store, prefix + "old")
    outcome = await store.transact(
        [Absent(prefix + "a")],
        [Put(prefix + "a", b"1"), Put(prefix + "b", b"2"), Delete(prefix + "old")],
    )

    assert outcome.succeeded
    listing = await store.list(prefix)
    assert [item.key for item in listing.items] == [prefix + "a", prefix + "b"]
    assert {item.mod_revision for item in listing.items} == {outcome.revision}
    assert listing.revision == outcome.revision


async def test_a_transaction_writes_nothing_when_one_compare_fails(
    store: Store, prefix: str
) -> None:
    revision = await put(store, prefix + "a", b"1")
    outcome = await store.transact(
        [Unchanged(prefix + "a", revision), Absent(prefix + "a")],
        [Put(prefix + "b", b"2"), Delete(prefix + "a")],
    )

    assert not outcome.succeeded
    assert outcome.revision == revision
    assert [item.key for item in (await store.list(prefix)).items] == [prefix + "a"]


async def test_each_compare_says_what_it_means(store: Store, prefix: str) -> None:
    created = await put(store, prefix + "a")
    modified = await put(store, prefix + "a")
    expected: list[tuple[Compare, bool]] = [
        (Absent(prefix + "a"), False),
        (Absent(prefix + "b"), True),
        (Unchanged(prefix + "a", modified), True),
        (Unchanged(prefix + "a", created), False),
        (Unchanged(prefix + "b", modified), False),
        (CreatedAt(prefix + "a", created), True),
        (CreatedAt(prefix + "a", modified), False),
        (CreatedAt(prefix + "b", created), False),
    ]
    for compare, holds in expected:
        assert (await store.transact([compare], [])).succeeded is holds, compare


async def test_only_what_changes_takes_a_revision(store: Store, prefix: str) -> None:
    revision = await put(store, prefix + "a", b"same")

    nothing = await store.transact([], [Delete(prefix + "b"), DeletePrefix(prefix + "c")])
    assert (nothing.succeeded, nothing.revision) == (True, revision)
    assert (await store.transact([], [])).revision == revision
    assert await put(store, prefix + "a", b"same") == revision + 1


async def test_a_prefix_is_deleted_and_its_neighbours_stay(store: Store, prefix: str) -> None:
    await store.transact([], [Put(prefix + key, b"") for key in ("a", "b/1", "b/2", "b0", "bé")])
    await store.transact([], [DeletePrefix(prefix + "b/")])
    left = [item.key.removeprefix(prefix) for item in (await store.list(prefix)).items]
    assert left == ["a", "b0", "bé"]


@pytest.mark.parametrize(
    ("compares", "operations"),
    [
        ([], [Put("a", b"1"), Put("a", b"2")]),
        ([], [Put("a", b"1"), Delete("a")]),
        ([], [Put("a/b", b"1"), DeletePrefix("a/")]),
        ([], [Put("", b"1")]),
        ([], [DeletePrefix("")]),
        ([Absent("")], []),
        ([Unchanged("a", 0)], []),
        ([CreatedAt("a", 0)], []),
        ([Absent(f"{n}") for n in range(MAX_TRANSACTION_OPERATIONS + 1)], []),
        ([], [Delete(f"{n}") for n in range(MAX_TRANSACTION_OPERATIONS + 1)]),
    ],
)
async def test_a_transaction_that_makes_no_sense_is_refused(
    store: Store, compares: list[Compare], operations: list[Operation]
) -> None:
    before = await store.head()
    with pytest.raises(Invalid):
        await store.transact(compares, operations)
    assert await store.head() == before


def part(*operations: Operation, compares: Sequence[Compare] = ()) -> Part:
    return Part(compares=compares, operations=operations)


async def test_parts_are_applied_or_not_each_for_itself_at_one_revision(
    store: Store, prefix: str
) -> None:
    before = await put(store, prefix + "taken", b"old")
    outcome = await store.transact_parts(
        [
            part(Put(prefix + "a", b"1"), compares=[Absent(prefix + "a")]),
            part(
                Put(prefix + "b", b"2"),
                Put(prefix + "taken", b"new"),
                compares=[Absent(prefix + "b"), Absent(prefix + "taken")],
            ),
            part(Put(prefix + "c", b"3"), compares=[Unchanged(prefix + "taken", before)]),
        ]
    )
    assert outcome.succeeded == (True, False, True)
    assert outcome.revision == before + 1
    items = (await store.list(prefix)).items
    assert {item.key.removeprefix(prefix): item.value for item in items} == {
        "a": b"1",
        "c": b"3",
        "taken": b"old",
    }
    assert {item.mod_revision for item in items} == {before, before + 1}


async def test_no_part_sees_what_another_one_writes(store: Store, prefix: str) -> None:
    revision = await put(store, prefix + "gone")
    outcome = await store.transact_parts(
        [
            part(Put(prefix + "a", b""), Delete(prefix + "gone")),
            part(
                Put(prefix + "b", b""),
                compares=[Absent(prefix + "a"), Unchanged(prefix + "gone", revision)],
            ),
            part(Put(prefix + "c", b""), compares=[CreatedAt(prefix + "a", revision + 1)]),
        ]
    )
    assert outcome.succeeded == (True, True, False)
    left = [item.key.removeprefix(prefix) for item in (await store.list(prefix)).items]
    assert left == ["a", "b"]


async def test_parts_of_which_none_holds_change_nothing(store: Store, prefix: str) -> None:
    revision = await put(store, prefix + "a")
    refused = [part(Put(f"{prefix}{n}", b""), compares=[Absent(prefix + "a")]) for n in range(2)]
    outcome = await store.transact_parts(refused)
    assert (outcome.succeeded, outcome.revision) == ((False, False), revision)


async def test_as_many_parts_of_that_size_are_taken(store: Store, prefix: str) -> None:
    names = [
        [f"{prefix}{number}/{key}" for key in range(MAX_PART_OPERATIONS)]
        for number in range(MAX_PARTS)
    ]
    parts = [
        part(*(Put(key, b"") for key in keys), compares=list(map(Absent, keys))) for keys in names
    ]
    assert (await store.transact_parts(parts)).succeeded == (True,) * MAX_PARTS
    assert len((await store.list(prefix)).items) == MAX_PARTS * MAX_PART_OPERATIONS


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [part(Put("a", b""))] * (MAX_PARTS + 1),
        [part(*(Put(f"{n}", b"") for n in range(MAX_PART_OPERATIONS + 1)))],
        [part(Put("a", b""), compares=[Absent(f"{n}") for n in range(MAX_PART_OPERATIONS + 1)])],
        [part()],
        [part(Put("a", b"1")), part(Put("a", b"2"))],
        [part(Put("a", b"1")), part(Delete("a"))],
        [part(Put("a", b""), compares=[Absent("")])],
    ],
)
async def test_parts_that_make_no_sense_are_refused(store: Store, parts: list[Part]) -> None:
    before = await store.head()
    with pytest.raises(Invalid):
        await store.transact_parts(parts)
    assert await store.head() == before


async def test_reads_that_make_no_sense_are_refused(store: Store, prefix: str) -> None:
    with pytest.raises(Invalid):
        await store.get("")
    with pytest.raises(Invalid):
        await store.get_many([f"{n}" for n in range(MAX_TRANSACTION_OPERATIONS + 1)])
    with pytest.raises(Invalid):
        await store.page(prefix, limit=0)


async def test_a_listing_is_ascending_and_of_one_revision(store: Store, prefix: str) -> None:
    keys = ["z", "a", "é", "a/b", "\U0001f600", "\uffee"]
    for key in keys:
        await put(store, prefix + key, key.encode())
    at = await store.head()
    await store.transact([], [DeletePrefix(prefix), Put("/test/other", b"")])

    listing = await store.list(prefix, revision=at)

    assert listing.revision == at
    assert [item.key.removeprefix(prefix) for item in listing.items] == sorted(keys, key=str.encode)
    assert (await store.list(prefix)).items == ()


async def test_pages_together_are_the_listing(store: Store, prefix: str) -> None:
    await store.transact([], [Put(f"{prefix}{n:02}", b"") for n in range(25)])
    listing = await store.list(prefix)
    pages = [await store.page(prefix, limit=10)]
    await store.transact([], [Delete(f"{prefix}15"), Put(f"{prefix}99", b"")])
    while (next_key := pages[-1].next_key) is not None:
        pages.append(
            await store.page(prefix, limit=10, start_key=next_key, revision=pages[0].revision)
        )

    assert [len(page.items) for page in pages] == [10, 10, 5]
    assert {page.revision for page in pages} == {listing.revision}
    assert tuple(item for page in pages for item in page.items) == listing.items
    exactly = await store.page(prefix, limit=25, revision=listing.revision)
    assert exactly.next_key is None


async def test_five_thousand_keys_are_listed_at_one_revision(store: Store, prefix: str) -> None:
    keys = [f"{prefix}{n:05}" for n in range(5000)]
    for start in range(0, len(keys), MAX_TRANSACTION_OPERATIONS):
        part = keys[start : start + MAX_TRANSACTION_OPERATIONS]
        await store.transact([], [Put(key, key.encode()) for key in part])

    listing = await store.list(prefix)

    assert [item.key for item in listing.items] == keys
    assert all(item.value == item.key.encode() for item in listing.items)


def some_operations(dice: random.Random, prefix: str) -> list[Operation]:
    keys = dice.sample([f"{prefix}{a}{b}" for a in "xy" for b in "123"], dice.randrange(4))
    operations: list[Operation] = [
        Put(key, bytes([dice.randrange(3)])) if dice.random() < 0.5 else Delete(key) for key in keys
    ]
    if dice.random() < 0.1:
        operations = [DeletePrefix(prefix + dice.choice("xy"))]
    return operations


def some_compares(dice: random.Random, prefix: str, head: int) -> list[Compare]:
    key = prefix + dice.choice("xy") + dice.choice("123")
    revision = dice.randint(max(1, head - 6), head)
    every: list[Compare] = [Absent(key), Unchanged(key, revision), CreatedAt(key, revision)]
    return dice.sample(every, dice.randrange(2))


def moved(event: Event, distance: int) -> Event:
    """The same event, had the store been written so many times before."""
    return Event(
        key=event.key,
        value=event.value,
        create_revision=event.create_revision and event.create_revision + distance,
        mod_revision=event.mod_revision + distance,
    )


def compare_moved(compare: Compare, distance: int) -> Compare:
    match compare:
        case Unchanged(key, revision):
            return Unchanged(key, revision + distance)
        case CreatedAt(key, revision):
            return CreatedAt(key, revision + distance)
        case Absent():
            return compare


@pytest.mark.parametrize("seed", range(3))
async def test_every_store_does_what_memory_does(store: Store, prefix: str, seed: int) -> None:
    twin = MemoryStore()
    start = await store.head()
    distance = start - await twin.head()
    dice = random.Random(seed)
    for _ in range(80):
        operations = some_operations(dice, prefix)
        compares = some_compares(dice, prefix, await twin.head())
        shifted = [compare_moved(compare, distance) for compare in compares]
        expected = await twin.transact(compares, operations)
        outcome = await store.transact(shifted, operations)
        assert outcome.succeeded is expected.succeeded, (compares, operations)
        assert outcome.revision == expected.revision + distance, (compares, operations)

    end = await twin.head()
    last = prefix + "last"
    await twin.transact([], [Put(last, b"")])
    await store.transact([], [Put(last, b"")])
    for revision in range(2, end + 1):
        expected_items = (await twin.list(prefix, revision=revision)).items
        items = (await store.list(prefix, revision=revision + distance)).items
        assert [(item.key, item.value) for item in items] == [
            (item.key, item.value) for item in expected_items
        ]
    expected_events = await collect(twin, prefix, after=1, until=lambda e: e[-1].key == last)
    events = await collect(store, prefix, after=start, until=lambda e: e[-1].key == last)
    # Within a revision etcd keeps the order of the operations, and so does memory.
    assert events == [moved(event, distance) for event in expected_events]

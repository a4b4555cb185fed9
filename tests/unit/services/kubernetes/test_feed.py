"""Events of the API server, as the ledgers come to see them."""

from collections.abc import Mapping
from typing import Any

from services.kubernetes import kinds
from services.kubernetes.api.changes import Event, Removed, Replaced, Unreadable, Upserted
from services.kubernetes.books import Books
from services.kubernetes.feed import Feed
from services.kubernetes.kinds import Kind, Object
from services.kubernetes.ledger import Batch
from services.kubernetes.problems import Problems
from tests.unit.services.kubernetes.objects import decoded, pod


class Observer:
    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}

    def listed(self, objects: Mapping[str, Object]) -> None:
        self.objects = dict(objects)

    def changed(self, key: str, item: Object | None) -> None:
        if item is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = item


class Told:
    """A feed of pods whose registry holds nothing."""

    def __init__(self) -> None:
        self.books = Books()
        self.problems = Problems()
        self.observer = Observer()
        self.feed = Feed(self.books, self.problems, {Kind.POD: self.observer}, lambda: None)
        self.books[Kind.POD].adopt({})

    async def take(self, *events: Event[Any]) -> None:
        for event in events:
            await self.feed.take(Kind.POD, event)

    def batch(self) -> Batch | None:
        return self.books[Kind.POD].next(0.0)


def named(name: str, **more: Any) -> Any:
    return decoded(Kind.POD, pod(name, **more))


async def test_a_list_and_what_happens_after_it() -> None:
    told = Told()
    await told.take(Replaced(objects={"shop/a": named("a"), "shop/b": named("b")}))
    await told.take(Upserted(object=named("c")), Removed(key="shop/a", last=None))
    batch = told.batch()
    assert batch is not None
    assert batch.keys == ("shop/b", "shop/c")
    assert told.observer.objects.keys() == {"shop/b", "shop/c"}


async def test_an_object_that_cannot_be_read_is_there_all_the_same() -> None:
    told = Told()
    told.books[Kind.POD].adopt({"shop/a": b"before", "shop/b": b"before"})
    await told.take(Replaced(objects={}, unreadable={"shop/a": "no pod"}))
    await told.take(Unreadable(key="shop/b", reason="no pod"))
    # Its record stays: nobody has said that it is gone.
    assert told.batch() is None
    assert told.problems.of(Kind.POD) == {"shop/a", "shop/b"}
    await told.take(Removed(key="shop/a", last=None))
    assert told.batch() == Batch(deletes=("shop/a",))
    assert told.problems.of(Kind.POD) == {"shop/b"}


async def test_a_kind_that_is_not_served_is_no_empty_list() -> None:
    told = Told()
    await told.take(Replaced(objects={}, served=False))
    assert not told.books[Kind.POD].is_listed


async def test_a_bug_of_ours_costs_one_object() -> None:
    told = Told()
    # No server sends this; whatever it is that we do not think of.
    broken = kinds.Pod(metadata=named("a").metadata, spec=None)  # type: ignore[arg-type]
    await told.take(Replaced(objects={"shop/a": broken, "shop/b": named("b")}))
    batch = told.batch()
    assert batch is not None
    assert batch.keys == ("shop/b",)
    assert told.problems.of(Kind.POD) == {"shop/a"}

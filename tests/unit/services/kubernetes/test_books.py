from services.kubernetes.books import PODS_AT_ONCE, Books
from services.kubernetes.kinds import Kind
from services.kubernetes.ledger import Batch, Wanted


def opened(**stored: dict[str, bytes]) -> Books:
    """Books of which both sides are known; stored: by the names of kinds."""
    books = Books()
    for kind, ledger in books.ledgers.items():
        ledger.adopt(stored.get(kind.name, {}))
        ledger.replace({})
    return books


def settle(books: Books) -> list[tuple[Kind, Batch]]:
    written = []
    while batches := books.plan(0.0):
        for kind, batch in batches:
            written.append((kind, batch))
            books.done(kind, batch)
    return written


def put(books: Books, kind: Kind, *keys: str) -> None:
    for key in keys:
        books[kind].upsert(key, Wanted(b"x"))


def test_a_round_holds_batches_of_all_kinds() -> None:
    books = opened()
    for kind in Kind:
        put(books, kind, *(f"ns/{number}" for number in range(3000)))
    kinds = [kind for kind, _ in books.plan(0.0)]
    assert kinds.count(Kind.POD) == PODS_AT_ONCE
    # Nodes register themselves.
    assert set(kinds) == set(Kind) - {Kind.NODE}
    assert len(kinds) == len(Kind) - 1 + PODS_AT_ONCE - 1


def test_a_namespace_goes_alone_and_after_what_is_in_it() -> None:
    books = opened()
    put(books, Kind.NAMESPACE, "shop", "other")
    put(books, Kind.POD, "shop/web", "other/web")
    put(books, Kind.CILIUM, "shop/guard")
    settle(books)
    # The watch of namespaces is ahead of that of pods.
    books[Kind.NAMESPACE].remove("shop")
    put(books, Kind.SERVICE, "other/web")
    assert [kind for kind, _ in settle(books)] == [Kind.SERVICE]
    books[Kind.POD].remove("shop/web")
    assert [(kind, batch.deletes) for kind, batch in settle(books)] == [(Kind.POD, ("shop/web",))]
    books[Kind.CILIUM].remove("shop/guard")
    put(books, Kind.POD, "other/new")
    first, *rest = settle(books)
    assert first == (Kind.NAMESPACE, Batch(deletes=("shop",)))
    assert {kind for kind, _ in rest} == {Kind.POD}
    assert settle(books) == []


def test_what_went_with_a_namespace_is_written_again_when_it_is_there_again() -> None:
    books = opened()
    put(books, Kind.NAMESPACE, "shop")
    put(books, Kind.POD, "shop/web")
    settle(books)
    books[Kind.POD].remove("shop/web")
    books[Kind.NAMESPACE].remove("shop")
    batches = books.plan(0.0)
    assert batches == ((Kind.NAMESPACE, Batch(deletes=("shop",))),)
    put(books, Kind.NAMESPACE, "shop")
    put(books, Kind.POD, "shop/web")
    books.done(*batches[0])
    written = settle(books)
    assert {(kind, batch.applies) for kind, batch in written} == {
        (Kind.NAMESPACE, (("shop", b"x"),)),
        (Kind.POD, (("shop/web", b"x"),)),
    }


def test_the_brake_weighs_namespaces_with_what_is_in_them() -> None:
    books = Books()
    books[Kind.POD].adopt({f"shop/{number}": b"x" for number in range(200)})
    books[Kind.NAMESPACE].adopt({"shop": b"x", "other": b"x"})
    books[Kind.NAMESPACE].replace({"other": Wanted(b"x")})
    sweep = books[Kind.NAMESPACE].sweep
    assert sweep is not None
    assert (sweep.entries, sweep.held) == (201, 202)


def test_a_service_that_gives_up_its_address_goes_first_a_policy_last() -> None:
    books = opened(SERVICE={"shop/old": b"x"}, NETWORK_POLICY={"shop/old": b"x"})
    put(books, Kind.SERVICE, "shop/new")
    put(books, Kind.NETWORK_POLICY, "shop/new")
    batches = dict(books.plan(0.0))
    assert batches[Kind.SERVICE].deletes == ("shop/old",)
    assert [key for key, _ in batches[Kind.NETWORK_POLICY].applies] == ["shop/new"]


def test_kinds_that_the_server_lacks_are_left_alone() -> None:
    books = Books()
    for ledger in books.ledgers.values():
        ledger.adopt({"shop/by-hand": b"x"})
    assert books.plan(0.0) == ()
    assert books.due(0.0) is None

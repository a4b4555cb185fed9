import pytest

from deltaplane.errors import Invalid
from deltaplane.store.port import MAX_TRANSACTION_OPERATIONS, Absent, Delete, DeletePrefix, Put
from deltaplane.store.transaction import check, check_keys


def test_the_largest_transaction_passes() -> None:
    many = range(MAX_TRANSACTION_OPERATIONS)
    check([Absent(f"{n}") for n in many], [Put(f"{n}", b"") for n in many])
    check_keys([f"{n}" for n in many])


def test_deletes_may_overlap() -> None:
    check([], [Delete("a/b"), Delete("a/b"), DeletePrefix("a/"), DeletePrefix("a")])


def test_a_put_beside_a_deleted_prefix_passes() -> None:
    check([], [Put("a", b""), DeletePrefix("a/")])


@pytest.mark.parametrize("prefix", ["", "a", "a/b"])
def test_a_put_below_a_deleted_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(Invalid, match="operations"):
        check([], [Put("a/b", b""), DeletePrefix(prefix)])

from hypothesis import given
from hypothesis import strategies as st

from deltaplane.store.port import Absent, CreatedAt, KeyValue, Put, Unchanged
from services.endpoints.repository.transactions import (
    MAX_BYTES,
    MAX_PUTS,
    alive,
    as_read,
    batches,
)

FOUND = KeyValue(key="k", value=b"", create_revision=3, mod_revision=5)


def test_compares_say_what_was_read() -> None:
    assert as_read("k", None) == alive("k", None) == Absent("k")
    assert as_read("k", FOUND) == Unchanged("k", 5)
    assert alive("k", FOUND) == CreatedAt("k", 3)


@given(st.lists(st.sampled_from([0, 1, 40_000, 400_000, MAX_BYTES, MAX_BYTES + 1]), max_size=250))
def test_batches_are_small_enough_and_lose_nothing(sizes: list[int]) -> None:
    values = {size: bytes(size) for size in set(sizes)}
    puts = [Put(str(number), values[size]) for number, size in enumerate(sizes)]
    cut = list(batches(puts))
    assert [put for batch in cut for put in batch] == puts
    for batch in cut:
        assert 1 <= len(batch) <= MAX_PUTS
        # A value that is too large by itself goes alone: etcd says no, not we.
        assert len(batch) == 1 or sum(len(put.value) for put in batch) <= MAX_BYTES


def test_batches_are_as_large_as_they_can_be() -> None:
    assert [len(batch) for batch in batches([Put("k", b"")] * 250)] == [100, 100, 50]

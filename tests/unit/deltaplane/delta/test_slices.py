import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.delta.slices import LIMIT, SliceIndex, hash_bits
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import EndpointObject


def endpoint(number: int, identity: int = 300) -> EndpointObject:
    return EndpointObject(
        node_index=1 + number % 7,
        id=number,
        identity=identity,
        addresses=AddressPair(ipv4=number.to_bytes(4)),
        incarnation=1,
    )


def index_of(endpoints: list[EndpointObject], limit: int = LIMIT) -> SliceIndex:
    index = SliceIndex(limit)
    for item in endpoints:
        index.put(item, item.id)
    return index


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(300, 302), st.booleans()), max_size=120),
    st.randoms(use_true_random=False),
)
def test_slices_depend_only_on_what_is_there(
    steps: list[tuple[int, int, bool]], order: random.Random
) -> None:
    index = SliceIndex(limit=5)
    there: dict[int, EndpointObject] = {}
    for number, identity, present in steps:
        if present:
            there[number] = endpoint(number, identity)
            index.put(there[number], number)
        elif there.pop(number, None) is not None:
            index.remove(endpoint(number).key)
    members = list(there.values())
    order.shuffle(members)
    assert list(index.slices()) == list(index_of(members, limit=5).slices())


@given(st.sets(st.integers(1, 5000), max_size=400), st.integers(1, 50))
def test_slices_are_a_partition_by_hash_prefix(numbers: set[int], limit: int) -> None:
    slices = list(index_of([endpoint(n) for n in numbers], limit).slices())
    found = [member.endpoint.id for slice_ in slices for member in slice_.members]
    assert sorted(found) == sorted(numbers)
    assert [s.id for s in slices] == sorted({s.id for s in slices})
    for slice_ in slices:
        assert 1 <= len(slice_.members) <= limit
        assert slice_.generation == max(member.generation for member in slice_.members)
        for member in slice_.members:
            assert hash_bits(member.endpoint.key).startswith(slice_.prefix)


def test_a_split_leaves_the_other_slices_alone() -> None:
    members = [endpoint(n) for n in range(1, 260)]
    before = {s.id: s for s in index_of(members).slices()}
    after = {s.id: s for s in index_of([*members, endpoint(260)]).slices()}
    rewritten = [s for name, s in after.items() if before.get(name) != s]
    assert sum(len(s.members) for s in rewritten) <= LIMIT + 1


def test_the_first_split_comes_above_the_limit() -> None:
    members = [endpoint(n) for n in range(1, LIMIT + 1)]
    assert [s.id for s in index_of(members).slices()] == ["300/"]
    ids = [s.id for s in index_of([*members, endpoint(LIMIT + 1)]).slices()]
    assert ids == ["300/0", "300/1"]


def test_pages_continue_behind_any_id() -> None:
    index = index_of([endpoint(n, 300 + n % 3) for n in range(1, 100)], limit=7)
    ids = [s.id for s in index.slices()]
    for position, name in enumerate(ids):
        assert [s.id for s in index.slices(after=name)] == ids[position + 1 :]
    assert [s.id for s in index.slices(identity=301)] == [i for i in ids if i.startswith("301/")]
    assert list(index.slices(identity=999)) == []
    # The slice that a page ended with may be split or gone by the time of the next.
    assert [s.id for s in index.slices(after="301/")] == [i for i in ids if i > "301/"]


@pytest.mark.parametrize("text", ["300", "x/0", "300/2", "/"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no id of a slice"):
        list(SliceIndex().slices(after=text))

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from services.ipam import changing
from services.ipam.changing import Change, meets
from services.ipam.pools import Mode, Pool

BASES = {4: Prefix.parse("10.244.0.0/20"), 16: Prefix.parse("fd00::/112")}
families = st.sampled_from([4, 16])


def inside(draw: st.DrawFn, outer: Prefix, longest: int) -> Prefix:
    length = draw(st.integers(outer.length, longest))
    bits = len(outer.address) * 8
    offset = draw(st.integers(0, (1 << (length - outer.length)) - 1)) << (bits - length)
    return Prefix(outer.nth(offset), length)


@st.composite
def ranges(draw: st.DrawFn, pool: Pool) -> tuple[Prefix, ...]:
    """Some ranges inside a pool, apart from each other."""
    bits = len(pool.prefix.address) * 8
    chosen: list[Prefix] = []
    for _ in range(draw(st.integers(0, 5))):
        item = inside(draw, pool.prefix, min(bits, pool.block_length + 3))
        if not any(item.overlaps(other) for other in chosen):
            chosen.append(item)
    return tuple(chosen)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    base = BASES[draw(families)]
    pool = Pool.of("p", base, base.length + draw(st.integers(2, 6)))
    return Pool.of(
        "p",
        base,
        pool.block_length,
        reserved=draw(ranges(pool)),
        draining=draw(st.booleans()),
        min_free_percent=draw(st.integers(0, 100)),
        on_request=draw(st.booleans()),
    )


@st.composite
def changes(draw: st.DrawFn, pool: Pool) -> Change:
    wider = pool.prefix.length - draw(st.integers(0, 3))
    shift = len(pool.prefix.address) * 8 - wider
    address = int.from_bytes(pool.prefix.address) >> shift << shift
    unreserve = tuple(draw(st.lists(st.sampled_from(pool.reserved)))) if pool.reserved else ()
    left = [item for item in pool.reserved if item not in unreserve]
    reserve = tuple(
        item
        for item in draw(ranges(pool))
        if item not in unreserve and not any(item.overlaps(other) for other in left)
    )
    return Change(
        name="p",
        grow_to=draw(
            st.none() | st.just(Prefix(address.to_bytes(len(pool.prefix.address)), wider))
        ),
        reserve=reserve,
        unreserve=unreserve,
        draining=draw(st.none() | st.booleans()),
        min_free_percent=draw(st.none() | st.integers(1, 100)),
        on_request=draw(st.none() | st.booleans()),
    )


@given(st.data())
def test_a_change_is_made_once_and_touches_nothing_else(data: st.DataObject) -> None:
    pool = data.draw(pools())
    change = data.draw(changes(pool))
    changed = changing.apply(change, pool)

    assert changing.apply(change, changed) == changed
    assert change.holds(changed)
    assert changed.prefix == (change.grow_to or pool.prefix)
    expected = (set(pool.reserved) - set(change.unreserve)) | set(change.reserve)
    assert set(changed.reserved) == expected
    for field in ("draining", "min_free_percent", "on_request"):
        wanted = getattr(change, field)
        assert getattr(changed, field) == (getattr(pool, field) if wanted is None else wanted)
    assert (changed.name, changed.block_length, changed.mode) == ("p", pool.block_length, pool.mode)


@given(st.data())
def test_blocks_stay_where_they_are_when_a_pool_grows(data: st.DataObject) -> None:
    pool = data.draw(pools())
    grown = changing.apply(data.draw(changes(pool)), pool)
    number = data.draw(st.integers(0, pool.blocks - 1))
    block = pool.block(number)
    assert grown.block(grown.number(block)) == block
    assert grown.block_of(block.nth(block.size - 1)) == block


@given(st.data())
def test_withheld_blocks_are_those_without_a_free_address(data: st.DataObject) -> None:
    pool = data.draw(pools())
    withheld = {number for first, last in pool.withheld() for number in range(first, last + 1)}
    for number in range(pool.blocks):
        block = pool.block(number)
        held = sum(min(item.size, block.size) for item in pool.reserved if item.overlaps(block))
        assert (number in withheld) == (held == block.size)


@given(st.data())
def test_a_pool_that_was_changed_is_still_the_one_that_was_created(data: st.DataObject) -> None:
    pool = data.draw(pools())
    plain = Pool.of("p", pool.prefix, pool.block_length)
    change = replace(data.draw(changes(pool)), unreserve=())
    assert meets(changing.apply(change, plain), plain)
    assert not meets(plain, replace(plain, name="q"))
    assert not meets(plain, replace(plain, block_length=plain.block_length + 1))
    assert not meets(plain, replace(plain, mode=Mode.STATIC, min_free_percent=0))
    assert not meets(plain, replace(plain, on_request=True))
    assert not meets(plain, replace(plain, reserved=(plain.block(0),)))


V4 = Pool.of("v4", Prefix.parse("10.244.0.0/16"), reserved=[Prefix.parse("10.244.0.0/24")])


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"grow_to": "10.244.0.0/17"}, None, ""),  # it has that: done
        ({"grow_to": "10.245.0.0/16"}, "grow_to", "such as 10.244.0.0/15"),
        ({"grow_to": "fd00::/64"}, "grow_to", "leaves out addresses of the pool 10.244.0.0/16"),
        ({"grow_to": "0.0.0.0/0"}, "grow_to", "overlaps 0.0.0.0/8"),
        ({"reserve": "10.0.0.0/8"}, "reserve", "10.0.0.0/8 is not inside the pool"),
        ({"reserve": "fd00::/64"}, "reserve", "fd00::/64 is not inside the pool"),
        ({"reserve": "10.244.0.0/25"}, "reserve", "overlaps 10.244.0.0/24"),
        ({"unreserve": "10.244.0.0/25"}, "unreserve", "give back 10.244.0.0/24"),
        ({"unreserve": "10.244.9.0/25"}, None, ""),  # nothing of it is reserved
    ],
)
def test_a_mistake_names_the_field(fields: dict[str, str], field: str | None, words: str) -> None:
    values = {
        name: Prefix.parse(text) if name == "grow_to" else (Prefix.parse(text),)
        for name, text in fields.items()
    }
    change = Change(name="v4", **values)  # type: ignore[arg-type]
    if field is None:
        assert changing.apply(change, V4) == V4
        return
    with pytest.raises(Invalid) as caught:
        changing.apply(change, V4)
    assert caught.value.field == field
    assert words in caught.value.reason


def test_a_range_is_not_reserved_and_given_back_at_once() -> None:
    held = (Prefix.parse("10.244.0.0/24"),)
    with pytest.raises(Invalid) as caught:
        Change(name="v4", reserve=held, unreserve=held)
    assert caught.value.field == "unreserve"


def test_a_static_pool_has_no_share_of_free_addresses() -> None:
    static = Pool.of("s", Prefix.parse("10.0.0.0/16"), 24, mode=Mode.STATIC)
    with pytest.raises(Invalid) as caught:
        changing.apply(Change(name="s", min_free_percent=10), static)
    assert caught.value.field == "min_free_percent"
    assert changing.apply(Change(name="s", draining=True), static).draining

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from services.ipam.flags import parse_flag
from services.ipam.pools import BLOCK_LENGTHS, UNUSABLE, Mode, Pool, check_overlap


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    size, first = draw(st.sampled_from([(4, 10), (16, 0xFD)]))
    block_length = draw(st.sampled_from(BLOCK_LENGTHS[size]))
    length = draw(st.integers(8, block_length))
    rest = draw(st.integers(0, (1 << (length - 8)) - 1)) << (size * 8 - length)
    address = (first << (size * 8 - 8) | rest).to_bytes(size)
    return Pool(name="p", prefix=Prefix(address, length), block_length=block_length)


@given(pools(), st.data())
def test_blocks_tile_the_pool(pool: Pool, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, pool.blocks - 1))
    block = pool.block(number)
    assert block.length == pool.block_length
    assert pool.prefix.contains(block)
    assert pool.number(block) == number
    assert block.size * pool.blocks == pool.prefix.size
    if number:
        assert pool.block(number - 1).nth(block.size - 1) == (
            int.from_bytes(block.address) - 1
        ).to_bytes(len(block.address))


@given(pools())
def test_a_flag_says_all_of_a_pool(pool: Pool) -> None:
    assert parse_flag(f"p={pool.prefix}:{pool.block_length}") == pool


@pytest.mark.parametrize(
    ("text", "length"),
    [("v4=10.244.0.0/16", 26), ("v6=fd00:10:244::/64", 122), ("v4=10.0.0.0/8/24", 24)],
)
def test_a_flag_may_leave_the_block_length_out(text: str, length: int) -> None:
    assert parse_flag(text).block_length == length


def test_a_flag_may_say_more() -> None:
    text = "edge=10.9.0.0/16:24+static+reserved=10.9.1.0/24+on-request+reserved=10.9.0.0/25"
    assert parse_flag(text) == Pool.of(
        "edge",
        Prefix.parse("10.9.0.0/16"),
        24,
        reserved=[Prefix.parse("10.9.0.0/25"), Prefix.parse("10.9.1.0/24")],
        mode=Mode.STATIC,
        on_request=True,
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("a=10.0.0.0/8+", "pool"),
        ("a=10.0.0.0/8+dynamic", "pool"),
        ("a=10.0.0.0/8+reserved=11.0.0.0/24", "pool.reserved"),
        ("a=10.0.0.0/8+reserved=10.0.0.1/24", "pool.reserved"),
        ("a=10.0.0.0/8+reserved=10.0.0.0/24+reserved=10.0.0.0/16", "pool.reserved"),
        ("", "pool"),
        ("10.0.0.0/8", "pool"),
        ("a=10.0.0.0", "pool"),
        ("a=10.0.0.0/8:", "pool"),
        ("a=10.0.0.1/8", "pool.prefix"),
        ("a=::ffff:10.0.0.0/104", "pool.prefix"),
        ("a=10.0.0.0/8:19", "pool.block_length"),
        ("a=10.0.0.0/8:31", "pool.block_length"),
        ("a=fd00::/64:127", "pool.block_length"),
        ("a=10.0.0.0/27", "pool.block_length"),
        ("A=10.0.0.0/8", "pool.name"),
        *((f"a={unusable}", "pool.prefix") for unusable in UNUSABLE if unusable.is_ipv4),
        ("a=0.0.0.0/0", "pool.prefix"),
        ("a=fe80::/64", "pool.prefix"),
        ("a=::/0", "pool.prefix"),
    ],
)
def test_a_flag_that_is_no_pool_is_refused(text: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_flag(text)
    assert caught.value.field == field


@given(pools(), pools())
def test_overlap_is_symmetric_and_about_addresses(one: Pool, other: Pool) -> None:
    def refused(a: Pool, b: Pool) -> bool:
        try:
            check_overlap(a, [b])
        except Invalid:
            return True
        return False

    first, second = sorted([one.prefix, other.prefix], key=lambda p: (p.length, p.address))
    shared = first.contains(second.address)
    assert refused(one, other) == refused(other, one) == shared


def test_the_overlap_names_the_other_pool() -> None:
    known = parse_flag("known=10.244.0.0/16")
    with pytest.raises(Invalid, match=r"10\.244\.1\.0/24 overlaps pool known \(10\.244\.0\.0/16\)"):
        check_overlap(parse_flag("new=10.244.1.0/24"), [parse_flag("far=10.0.0.0/16"), known])


@pytest.mark.parametrize(("mode", "percent"), [(Mode.STATIC, 10), (Mode.DEMAND, 101)])
def test_an_impossible_share_is_refused(mode: Mode, percent: int) -> None:
    with pytest.raises(Invalid) as caught:
        Pool.of("p", Prefix.parse("10.0.0.0/16"), mode=mode, min_free_percent=percent)
    assert caught.value.field == "pool.min_free_percent"


def test_reserved_ranges_have_a_limit() -> None:
    pool = Pool.of("p", Prefix.parse("10.0.0.0/8"))
    with pytest.raises(Invalid, match="1001 ranges are more than 1000"):
        Pool.of("p", pool.prefix, reserved=[pool.block(number) for number in range(1001)])

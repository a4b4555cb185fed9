from dataclasses import replace

import pytest

from deltaplane.errors import Exhausted, Invalid
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.objects import PoolObject
from nodeagent.pools import NO_WISH, Pool, Request, Wish, requests

V4 = PoolObject(name="a4", prefix=Prefix.parse("10.0.0.0/16"), block_length=26)
V6 = PoolObject(name="b6", prefix=Prefix.parse("fd00::/64"), block_length=122)
POOLS = {
    value.name: Pool(value, 1)
    for value in (
        V4,
        V6,
        replace(V4, name="c4"),
        replace(V4, name="asked4", on_request=True),
        replace(V6, name="asked6", on_request=True),
    )
}
FIXED = parse_address("10.0.0.9")


@pytest.mark.parametrize(
    ("chosen", "wish", "expected"),
    [
        ((), NO_WISH, [(4, ("a4", "c4")), (6, ("b6",))]),
        (("c4",), NO_WISH, [(4, ("c4",))]),
        (("asked4", "b6"), NO_WISH, [(4, ("asked4",)), (6, ("b6",))]),
        (("c4",), Wish(ipv6_pool="asked6"), [(4, ("c4",)), (6, ("asked6",))]),
        ((), Wish(ipv4_pool="asked4"), [(4, ("asked4",)), (6, ("b6",))]),
    ],
)
def test_which_pools(
    chosen: tuple[str, ...], wish: Wish, expected: list[tuple[int, tuple[str, ...]]]
) -> None:
    found = requests(POOLS, chosen, wish)
    assert found == tuple(Request(family=family, pools=names) for family, names in expected)


def test_an_address_takes_precedence_over_a_pool() -> None:
    found = requests(POOLS, (), Wish(ipv4_pool="no-such", addresses=(FIXED,)))
    assert found == (Request(family=4, address=FIXED), Request(family=6, pools=("b6",)))


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (Wish(ipv4_pool="b6"), 'there is no IPv4 pool "b6"; there are a4, asked4, c4'),
        (Wish(ipv6_pool="x"), 'there is no IPv6 pool "x"; there are asked6, b6'),
    ],
)
def test_a_pool_that_cannot_be_used_is_named(wish: Wish, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        requests(POOLS, (), wish)
    assert caught.value.reason == text
    family = 4 if wish.ipv4_pool else 6
    assert caught.value.field == f"deltaplane.dev/ipv{family}-pool"


def test_no_pool_at_all() -> None:
    with pytest.raises(Exhausted, match="--pools names x; there are a4"):
        requests(POOLS, ("x",))
    with pytest.raises(Exhausted, match="there is none"):
        requests({}, ())

import pytest

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix, parse_address
from services.endpoints.blocks import PoolRange
from services.endpoints.wishing import NO_WISH, Wish, check, pool_names, satisfied, wish_of

FOUR, SIX = parse_address("10.244.0.9"), parse_address("fd00::9")
POOL_4 = "deltaplane.dev/ipv4-pool"
POOL_6 = "deltaplane.dev/ipv6-pool"
FIXED = "deltaplane.dev/ip-addresses"
POOLS = (
    PoolRange(Prefix.parse("10.244.0.0/16"), 26, "four"),
    PoolRange(Prefix.parse("fd00::/64"), 122, "six"),
)


@pytest.mark.parametrize(
    ("pod", "namespace", "wish"),
    [
        ({}, {}, NO_WISH),
        ({"deltaplane.dev/x": "y"}, {}, NO_WISH),
        ({POOL_4: "a"}, {}, Wish(ipv4_pool="a")),
        ({}, {POOL_4: "a", POOL_6: "b"}, Wish(ipv4_pool="a", ipv6_pool="b")),
        ({POOL_4: "mine"}, {POOL_4: "a", POOL_6: "b"}, Wish(ipv4_pool="mine", ipv6_pool="b")),
        ({FIXED: "fd00::9, 10.244.0.9"}, {POOL_4: "a"}, Wish(addresses=(FOUR, SIX))),
        (
            {FIXED: "10.244.0.9"},
            {POOL_4: "a", POOL_6: "b"},
            Wish(ipv6_pool="b", addresses=(FOUR,)),
        ),
    ],
)
def test_a_wish_is_the_pod_s_then_the_namespace_s(
    pod: dict[str, str], namespace: dict[str, str], wish: Wish
) -> None:
    assert wish_of(pod, namespace) == wish


def test_an_annotation_from_before_the_checks_is_named() -> None:
    with pytest.raises(Invalid, match='"nonsense" is not valid') as caught:
        wish_of({FIXED: "nonsense"}, {})
    assert caught.value.field == FIXED


@pytest.mark.parametrize(
    ("wish", "pools", "expected"),
    [
        (NO_WISH, {FOUR: "four"}, True),
        (Wish(ipv4_pool="four"), {FOUR: "four", SIX: "six"}, True),
        (Wish(ipv4_pool="blue"), {FOUR: "four", SIX: "six"}, False),
        (Wish(ipv6_pool="six"), {FOUR: "four"}, False),
        (Wish(ipv4_pool="four"), {SIX: "four"}, False),
        (Wish(addresses=(FOUR,)), {FOUR: "", SIX: "six"}, True),
        (Wish(addresses=(FOUR, SIX)), {FOUR: ""}, False),
        (Wish(addresses=(FOUR,), ipv6_pool="blue"), {FOUR: "", SIX: "six"}, False),
    ],
)
def test_addresses_are_what_is_asked_for(
    wish: Wish, pools: dict[bytes, str], expected: bool
) -> None:
    assert satisfied(wish, pools) is expected


def test_a_pool_is_known_by_its_range() -> None:
    elsewhere = parse_address("192.0.2.1")
    assert pool_names([FOUR, SIX, elsewhere], POOLS) == {FOUR: "four", SIX: "six", elsewhere: ""}


def test_without_pools_of_a_family_the_refusal_says_so() -> None:
    check(Wish(ipv4_pool="four", addresses=(SIX,)), POOLS)
    with pytest.raises(Invalid, match='no IPv6 pool "six"; there is none of that family'):
        check(Wish(ipv6_pool="six"), POOLS[:1])

import pytest

from deltaplane.model.addresses import parse_address
from deltaplane.model.annotations import (
    IP_ADDRESSES,
    IPV4_POOL,
    IPV6_POOL,
    fixed_addresses,
    mistake,
)

FOUR, SIX = parse_address("10.244.0.9"), parse_address("fd00::9")


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("10.244.0.9", (FOUR,)),
        ("fd00::9", (SIX,)),
        ("fd00:0:0::9, 10.244.0.9", (FOUR, SIX)),
    ],
)
def test_fixed_addresses_are_one_of_each_family(text: str, addresses: tuple[bytes, ...]) -> None:
    assert fixed_addresses(text) == addresses
    assert mistake(IP_ADDRESSES, text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not valid at ''"),
        ("10.244.0.9,", "is not valid at ''"),
        ("10.244.0.0/24", "is not valid at '10.244.0.0/24'"),
        ("fe80::1%eth0", "is not valid at"),
        ("::ffff:10.0.0.1", "is not valid at"),
        ("10.244.0.9,10.244.0.10", "has two IPv4 addresses"),
        ("fd00::9,fd00::9", "has two IPv6 addresses"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(text: str, reason: str) -> None:
    told = mistake(IP_ADDRESSES, text)
    assert told is not None
    assert told.startswith(reason)
    assert "as in 10.244.0.9,fd00:244::9" in told


@pytest.mark.parametrize("key", [IPV4_POOL, IPV6_POOL])
def test_pools_are_dns_labels(key: str) -> None:
    assert mistake(key, "blue-2") is None
    assert mistake(key, "blue-2", of_namespace=True) is None
    for text in ("", "Blue", "a.b", "x" * 64):
        assert "is no DNS label" in str(mistake(key, text))


def test_a_namespace_has_no_fixed_address() -> None:
    told = mistake(IP_ADDRESSES, "10.244.0.9", of_namespace=True)
    assert "would all ask for the same" in str(told)


def test_other_annotations_are_nobody_s_business() -> None:
    assert mistake("deltaplane.dev/other", "Anything!") is None

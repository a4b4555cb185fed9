"""The order in which addresses and node ports are tried, and which are nobody's."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix, parse_address
from services.endpoints.ranges import PortRange, Ranges, addresses, node_ports, prefixes
from tests.unit.services.endpoints.demands import BOTH, ONLY_V4


@given(
    st.integers(0, 2**32),
    st.sampled_from(["10.0.0.0/29", "10.0.0.0/28", "10.0.0.0/22", "fd::/118"]),
)
def test_every_usable_address_comes_once_the_upper_part_first(seed: int, text: str) -> None:
    prefix = Prefix.parse(text)
    band = {8: 0, 16: 0, 1024: 64}[prefix.size]
    found = list(addresses(prefix, random.Random(seed).randrange))
    offsets = [int.from_bytes(ip) - int.from_bytes(prefix.address) for ip in found]
    last = prefix.size - 1 if prefix.is_ipv4 else prefix.size
    assert sorted(offsets) == list(range(1, last))
    upper = [offset > band for offset in offsets]
    assert upper == sorted(upper, reverse=True)


@given(st.integers(0, 2**32))
def test_node_ports_likewise(seed: int) -> None:
    found = list(node_ports(PortRange(30000, 32767), random.Random(seed).randrange))
    assert sorted(found) == list(range(30000, 32768))
    assert min(found[: 2768 - 86]) == 30086


def test_the_start_is_random_and_a_huge_range_is_not_listed() -> None:
    huge = Prefix.parse("fd00::/48")
    starts = {next(addresses(huge, random.Random(seed).randrange)) for seed in range(20)}
    assert len(starts) == 20


@pytest.mark.parametrize(
    ("ip", "mistake"),
    [
        ("10.96.0.1", None),
        ("10.97.0.1", "outside the service range"),
        ("10.96.0.0", "first or last"),
        ("10.96.255.255", "first or last"),
        ("fd00:10:96::ffff", None),
        ("fd00:10:96::", "first or last"),
    ],
)
def test_addresses_that_somebody_wants(ip: str, mistake: str | None) -> None:
    reason = BOTH.mistake(parse_address(ip))
    assert reason is None if mistake is None else mistake in (reason or "")


def test_a_family_without_range() -> None:
    assert "no range" in (ONLY_V4.mistake(parse_address("fd00::1")) or "")


@pytest.mark.parametrize("texts", [[], ["10.0.0.0/16", "10.1.0.0/16"], ["10.0.0.0/30"], ["x"]])
def test_ranges_that_cannot_be(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"range|addresses|prefix"):
        prefixes(texts)


@pytest.mark.parametrize("text", ["30000", "2-1", "0-9", "1-65536", "a-b"])
def test_node_port_ranges_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|outside"):
        PortRange.parse(text)


def test_families_are_in_the_order_of_the_ranges() -> None:
    ranges = Ranges(prefixes(["fd00::/112", "10.0.0.0/24"]), PortRange(1, 2))
    assert ranges.families == (6, 4)

"""Ranges of ports as sets of ports."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from deltaplane.model.ports import PortRange, Protocol, merge_ranges

TCP, UDP = Protocol.TCP, Protocol.UDP


@st.composite
def ranges(draw: st.DrawFn) -> PortRange:
    first, last = sorted((draw(st.integers(0, 20)), draw(st.integers(0, 20))))
    return PortRange(draw(st.sampled_from((TCP, UDP))), first, last)


def ports(some: tuple[PortRange, ...]) -> list[tuple[Protocol, int]]:
    return [(item.protocol, port) for item in some for port in range(item.first, item.last + 1)]


@given(st.lists(ranges(), max_size=6).map(tuple))
def test_merging_keeps_every_port_once_in_the_fewest_ranges(some: tuple[PortRange, ...]) -> None:
    merged = merge_ranges(some)
    assert ports(merged) == sorted(set(ports(some)))
    gaps = [
        following.first - before.last
        for before, following in pairwise(merged)
        if before.protocol == following.protocol
    ]
    assert all(gap > 1 for gap in gaps)


def test_ranges_that_touch_become_one_and_protocols_stay_apart() -> None:
    assert merge_ranges(
        (PortRange(TCP, 81, 90), PortRange(UDP, 91, 92), PortRange(TCP, 80, 80))
    ) == (
        PortRange(TCP, 80, 90),
        PortRange(UDP, 91, 92),
    )

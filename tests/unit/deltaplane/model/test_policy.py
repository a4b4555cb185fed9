"""Policies that cannot be are not built."""

import pytest

from deltaplane.model.addresses import Prefix
from deltaplane.model.policy import IPBlock, PolicyPeer, PolicyPort
from deltaplane.model.ports import NamedPort, PortRange, Protocol
from deltaplane.model.selector import LabelSelector

TEN = Prefix.parse("10.0.0.0/8")


@pytest.mark.parametrize("hole", ["10.0.0.0/8", "11.0.0.0/16", "0.0.0.0/0", "fd00::/16"])
def test_an_exception_is_a_strict_part_of_its_block(hole: str) -> None:
    IPBlock(TEN, (Prefix.parse("10.1.0.0/16"),))
    with pytest.raises(ValueError, match="strict part"):
        IPBlock(TEN, (Prefix.parse(hole),))


def test_a_peer_is_a_block_or_selectors() -> None:
    PolicyPeer(ip_block=IPBlock(TEN))
    PolicyPeer(pod_selector=LabelSelector(), namespace_selector=LabelSelector())
    with pytest.raises(ValueError, match="either"):
        PolicyPeer()
    with pytest.raises(ValueError, match="either"):
        PolicyPeer(ip_block=IPBlock(TEN), pod_selector=LabelSelector())


@pytest.mark.parametrize(
    ("port", "end_port"),
    [(0, None), (65536, None), (None, 80), ("http", 80), (80, 79), (80, 65536)],
)
def test_a_port_that_cannot_be(port: int | str | None, end_port: int | None) -> None:
    PolicyPort(port=80, end_port=80)
    with pytest.raises(ValueError, match="port"):
        PolicyPort(port=port, end_port=end_port)


def test_ranges_and_named_ports_stay_in_bounds() -> None:
    PortRange(Protocol.TCP, 0, 65535)
    for first, last in ((2, 1), (-1, 1), (1, 65536)):
        with pytest.raises(ValueError, match="range"):
            PortRange(Protocol.TCP, first, last)
    for name, number in (("", 1), ("a", 0), ("a", 65536)):
        with pytest.raises(ValueError, match="port"):
            NamedPort(name, Protocol.TCP, number)

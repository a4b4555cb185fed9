"""Ranges from which services get addresses and node ports.

    |-- band for those who choose themselves --|---------- chosen from first ----------|
    first                                                                           last

As in Kubernetes: what the server chooses comes from the upper part while something is free there,
so that a number out of the lower band, which somebody wants to write into a manifest, is
hardly ever taken. The choice is random, so that replicas seldom choose the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from deltaplane.model.addresses import Prefix, format_address
from deltaplane.model.ports import MAX_PORT

RandomBelow = Callable[[int], int]
"""A random number 0 or more and below the argument."""


@dataclass(frozen=True, slots=True)
class PortRange:
    """Node ports. first, last: 1..65535, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "PortRange":
        """Parses "30000-32767".

        Raises:
            ValueError: no range, or not of ports.
        """
        first, dash, last = text.partition("-")
        if not (dash and first.isdecimal() and last.isdecimal()):
            raise ValueError(f"{text!r} is no range of ports such as {DEFAULT_NODE_PORTS}")
        if not 1 <= int(first) <= int(last) <= MAX_PORT:
            raise ValueError(f"{text!r} is empty or outside 1-{MAX_PORT}")
        return cls(int(first), int(last))

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Ranges:
    """What services are served from.

    Attributes:
        prefixes: at most one of each family, that of the cluster's first family first.
        node_ports: for nodes' addresses.
    """

    prefixes: tuple[Prefix, ...]
    node_ports: PortRange

    @property
    def families(self) -> tuple[int, ...]:
        """4 and 6, as far as there is a prefix, the cluster's first family first."""
        return tuple(4 if prefix.is_ipv4 else 6 for prefix in self.prefixes)

    def prefix(self, family: int) -> Prefix | None:
        """The range of a family; None: there is none."""
        wanted = family == 4
        return next((prefix for prefix in self.prefixes if prefix.is_ipv4 == wanted), None)

    def mistake(self, address: bytes) -> str | None:
        """What is wrong with an address that somebody wants; None: nothing."""
        prefix = self.prefix(4 if len(address) == 4 else 6)
        shown = format_address(address)
        if prefix is None:
            return f"{shown} is of a family that services have no range of here"
        if not prefix.contains(address):
            return f"{shown} is outside the service range {prefix}"
        first, last = _usable(prefix)
        offset = int.from_bytes(address) - int.from_bytes(prefix.address)
        if not first <= offset < last:
            return f"{shown} is the first or last address of the service range {prefix}"
        return None


MIN_ADDRESSES = 8
DEFAULT_PREFIXES = ("10.96.0.0/16", "fd00:10:96::/112")
DEFAULT_NODE_PORTS = PortRange(30000, 32767)
DEFAULT_RANGES = Ranges(tuple(map(Prefix.parse, DEFAULT_PREFIXES)), DEFAULT_NODE_PORTS)
"""What kubeadm and kind take, too."""


def prefixes(texts: Iterable[str]) -> tuple[Prefix, ...]:
    """Reads service ranges, in order.

    Raises:
        ValueError: there is none, one is no prefix or too short, or two are of one family.
    """
    found = tuple(map(Prefix.parse, texts))
    if not found:
        raise ValueError("at least one range is needed")
    if len({prefix.is_ipv4 for prefix in found}) < len(found):
        raise ValueError("at most one range of each family is possible")
    for prefix in found:
        if prefix.size < MIN_ADDRESSES:
            raise ValueError(f"{prefix} has fewer than {MIN_ADDRESSES} addresses")
    return found


def addresses(prefix: Prefix, below: RandomBelow) -> Iterator[bytes]:
    """Every usable address once, in the order in which a server tries them."""
    first, end = _usable(prefix)
    middle = first + _band(prefix.size, step=16, most=256)
    start, lower = below(max(1, end - middle)), below(max(1, middle - first))
    for offset in _order(first, middle, end, start, lower):
        yield prefix.nth(offset)


def node_ports(ports: PortRange, below: RandomBelow) -> Iterator[int]:
    """Every node port once, in the order in which a server tries them."""
    first, end = ports.first, ports.last + 1
    middle = first + _band(end - first, step=32, most=128)
    start, lower = below(max(1, end - middle)), below(max(1, middle - first))
    yield from _order(first, middle, end, start, lower)


def _usable(prefix: Prefix) -> tuple[int, int]:
    """First offset, and the one behind the last: network and broadcast addresses are nobody's."""
    return 1, prefix.size - 1 if prefix.is_ipv4 else prefix.size


def _band(size: int, *, step: int, most: int) -> int:
    """How many numbers at the beginning are left to those who choose themselves."""
    return 0 if size <= 16 else min(max(16, size // step), most)


def _order(first: int, middle: int, end: int, start: int, lower: int) -> Iterator[int]:
    for low, high, offset in ((middle, end, start), (first, middle, lower)):
        # No range(): a prefix may have more addresses than sys.maxsize.
        number = low + offset
        for stop, again in ((high, low), (low + offset, high)):
            while number < stop:
                yield number
                number += 1
            number = again

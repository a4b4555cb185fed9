"""Transport protocols and ports."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PORT = 65535


class Protocol(enum.IntEnum):
    """IP protocol numbers that a policy can name."""

    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58
    SCTP = 132


TRANSPORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
"""Those that have ports. For the others a "port" of a policy is an ICMP type, 0..255."""


@dataclass(frozen=True, slots=True, order=True)
class NamedPort:
    """A container port with a name.

    Attributes:
        name: IANA service name form.
        protocol: transport protocol.
        number: 1..65535.
    """

    name: str
    protocol: Protocol
    number: int

    def __post_init__(self) -> None:
        if not self.name:
            message = "a named port needs a name"
            raise ValueError(message)
        if not 1 <= self.number <= MAX_PORT:
            message = f"port {self.number} is outside 1..{MAX_PORT}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """A range of ports of one protocol, named ports resolved.

    Attributes:
        protocol: transport protocol, or ICMP or ICMPV6, whose "ports" are message types.
        first: first port, 0..65535; 0 with last 65535 means every port.
        last: last port, first..65535.
    """

    protocol: Protocol
    first: int = 0
    last: int = MAX_PORT

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= MAX_PORT:
            message = f"port range {self.first}..{self.last} is outside 0..{MAX_PORT} or empty"
            raise ValueError(message)


def merge_ranges(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """Joins ranges of the same protocol that overlap or touch; ascending."""
    merged: list[PortRange] = []
    for item in sorted(ranges):
        last = merged[-1] if merged else None
        if last and last.protocol == item.protocol and item.first <= last.last + 1:
            merged[-1] = PortRange(last.protocol, last.first, max(last.last, item.last))
        else:
            merged.append(item)
    return tuple(merged)

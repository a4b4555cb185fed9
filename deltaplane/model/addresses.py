"""Addresses and prefixes as bytes in network byte order.

Bytes instead of `ipaddress` objects: they compare, hash and travel ten times faster, and maps want
bytes.
"""

import functools
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

V4_MAPPED = bytes(10) + b"\xff\xff"
"""The first 12 bytes of an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2)."""

V6_LOOPBACK = bytes(15) + b"\x01"


def parse_address(text: str) -> bytes:
    """Turns text into 4 or 16 bytes.

    Raises:
        ValueError: the text is no IP address, carries a zone, or is an IPv4-mapped IPv6 address.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        message = f"{text!r}: neither a zone nor an IPv4-mapped address is accepted"
        raise ValueError(message)
    return address.packed


@functools.lru_cache(maxsize=4096)  # one address comes several times in a row
def format_address(address: bytes) -> str:
    """Turns 4 or 16 bytes into the usual text (RFC 5952 for IPv6)."""
    if len(address) == 4:
        return ".".join(map(str, address))
    return str(ipaddress.ip_address(address))


def to_mapped(address: bytes) -> bytes:
    """Widens an address to 16 bytes, IPv4 as IPv4-mapped: the form of every kernel map key."""
    return address if len(address) == 16 else V4_MAPPED + address


def from_mapped(address: bytes) -> bytes:
    """Undoes `to_mapped`."""
    return address[12:] if address.startswith(V4_MAPPED) else address


def special_mistake(address: bytes) -> str | None:
    """Why nobody else can be reached at an address, as the end of a sentence; None: fine."""
    if not any(address):
        return "is the unspecified address"
    if len(address) == 4:
        is_loopback, is_link_local = address[0] == 127, address[:2] == b"\xa9\xfe"
        is_multicast = 224 <= address[0] < 240
    else:
        is_loopback = address == V6_LOOPBACK
        is_link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
        is_multicast = address[0] == 0xFF
    if is_loopback:
        return "is a loopback address (127.0.0.0/8, ::1)"
    if is_link_local:
        return "is a link-local address (169.254.0.0/16, fe80::/10)"
    return "is a multicast address" if is_multicast else None


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """An IP prefix without host bits.

    Attributes:
        address: network address, 4 or 16 bytes.
        length: prefix length in bits, 0..32 or 0..128.

    Raises:
        ValueError: wrong size, length out of range, or host bits set.
    """

    address: bytes
    length: int

    def __post_init__(self) -> None:
        bits = len(self.address) * 8
        if bits not in (32, 128):
            message = f"an address has 4 or 16 bytes, not {len(self.address)}"
            raise ValueError(message)
        if not 0 <= self.length <= bits:
            message = f"prefix length {self.length} is outside 0..{bits}"
            raise ValueError(message)
        number = int.from_bytes(self.address)
        if host := number & ((1 << (bits - self.length)) - 1):
            network = format_address((number - host).to_bytes(bits // 8))
            message = f"{self} has host bits set; the prefix is {network}/{self.length}"
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str) -> "Prefix":
        """Parses "10.0.0.0/8" or "fd00::/48"; the length is required.

        Raises:
            ValueError: no prefix, or host bits set.
        """
        address, slash, length = text.partition("/")
        if not slash or not length.isdecimal():
            message = f"{text!r} is not an address prefix such as 10.0.0.0/8"
            raise ValueError(message)
        return cls(parse_address(address), int(length))

    @property
    def is_ipv4(self) -> bool:
        """True for IPv4."""
        return len(self.address) == 4

    @property
    def size(self) -> int:
        """Number of addresses."""
        return 1 << (len(self.address) * 8 - self.length)

    @property
    def mapped(self) -> tuple[bytes, int]:
        """(16 bytes, length 0..128) with IPv4 as IPv4-mapped."""
        return to_mapped(self.address), self.length + (96 if self.is_ipv4 else 0)

    def contains(self, other: "bytes | Prefix") -> bool:
        """Whether an address or a whole prefix of the same family lies inside."""
        address = other if isinstance(other, bytes) else other.address
        if len(address) != len(self.address):
            return False
        if isinstance(other, Prefix) and other.length < self.length:
            return False
        shift = len(address) * 8 - self.length
        return int.from_bytes(address) >> shift == int.from_bytes(self.address) >> shift

    def overlaps(self, other: "Prefix") -> bool:
        """Whether the two share an address."""
        return self.contains(other) or other.contains(self)

    def nth(self, offset: int) -> bytes:
        """The address at an offset, 0..size-1.

        Raises:
            ValueError: the offset is out of range.
        """
        if not 0 <= offset < self.size:
            message = f"offset {offset} is outside {self}"
            raise ValueError(message)
        return (int.from_bytes(self.address) + offset).to_bytes(len(self.address))

    def __str__(self) -> str:
        return f"{format_address(self.address)}/{self.length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPair:
    """The addresses of one interface; at least one family is there.

    Attributes:
        ipv4: 4 bytes, or None when there is none.
        ipv6: 16 bytes, or None when there is none.

    Raises:
        ValueError: both are None, or one has the wrong size.
    """

    ipv4: bytes | None = None
    ipv6: bytes | None = None

    def __post_init__(self) -> None:
        if self.ipv4 is None and self.ipv6 is None:
            message = "at least one address is required"
            raise ValueError(message)
        if self.ipv4 is not None and len(self.ipv4) != 4:
            message = f"an IPv4 address has 4 bytes, not {len(self.ipv4)}"
            raise ValueError(message)
        if self.ipv6 is not None and len(self.ipv6) != 16:
            message = f"an IPv6 address has 16 bytes, not {len(self.ipv6)}"
            raise ValueError(message)

    def __iter__(self) -> Iterator[bytes]:
        """IPv4 first, then IPv6; absent ones are left out."""
        if self.ipv4 is not None:
            yield self.ipv4
        if self.ipv6 is not None:
            yield self.ipv6

    def __str__(self) -> str:
        return ", ".join(format_address(address) for address in self)

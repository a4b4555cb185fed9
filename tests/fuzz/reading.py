"""Frames, read as bpf/include/packet.h says: a twin that shares no line with it. Pure."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from tests.bpf.packets import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    ROUTING,
    SCTP,
    TCP,
    UDP,
)

MOST_EXTENSIONS = 6
LINK = 14
"""Bytes of an Ethernet header."""

Address = IPv4Address | IPv6Address


class Reading(Enum):
    """What a frame is."""

    SOUND = "sound"
    NEIGHBOUR = "neighbour"
    ROUTER = "router"
    """Neighbour discovery that only a router may send."""
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A frame as it was read.

    Attributes:
        source, destination: None: it was not read so far.
        sport, dport: None: it has no ports, or is no first fragment. dport: of ICMP its type.
        is_fragment: of several.
    """

    reading: Reading
    source: Address | None = None
    destination: Address | None = None
    protocol: int = 0
    sport: int | None = None
    dport: int | None = None
    is_fragment: bool = False


def read(frame: bytes) -> Packet:
    """Reads a frame of 14 bytes or more."""
    kind = int.from_bytes(frame[12:14])
    if kind == 0x0806:
        return Packet(reading=Reading.NEIGHBOUR)
    if kind == 0x0800:
        return _ipv4(frame[LINK:])
    if kind == 0x86DD:
        return _ipv6(frame[LINK:])
    return Packet(reading=Reading.UNSUPPORTED)


def _ipv4(data: bytes) -> Packet:
    if len(data) < 20 or data[0] >> 4 != 4 or data[0] & 15 < 5:
        return Packet(reading=Reading.MALFORMED)
    source, destination = ip_address(data[12:16]), ip_address(data[16:20])
    position = int.from_bytes(data[6:8])
    return _behind(
        data[(data[0] & 15) * 4 :],
        source,
        destination,
        data[9],
        hops=data[8],
        is_fragment=bool(position & 0x3FFF),
        is_first=not position & 0x1FFF,
    )


def _ipv6(data: bytes) -> Packet:
    if len(data) < 40 or data[0] >> 4 != 6:
        return Packet(reading=Reading.MALFORMED)
    source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    if source.ipv4_mapped or destination.ipv4_mapped:
        return Packet(reading=Reading.MALFORMED)
    at, protocol, is_fragment, is_first = 40, data[6], False, True
    count = 0
    while protocol in (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT, AUTHENTICATION):
        head = data[at : at + 8]
        count += 1
        if count > MOST_EXTENSIONS or len(head) < 8:
            return Packet(reading=Reading.MALFORMED, source=source, destination=destination)
        if protocol == ROUTING and head[3]:
            return Packet(reading=Reading.UNSUPPORTED, source=source, destination=destination)
        if protocol == FRAGMENT:
            position = int.from_bytes(head[2:4])
            is_fragment = is_fragment or bool(position & 0xFFF9)
            is_first = not position & 0xFFF8
        at += {FRAGMENT: 8, AUTHENTICATION: (head[1] + 2) * 4}.get(protocol, (head[1] + 1) * 8)
        protocol = head[0]
        if not is_first:
            break
    rest = data[at:]
    return _behind(
        rest,
        source,
        destination,
        protocol,
        hops=data[7],
        is_fragment=is_fragment,
        is_first=is_first,
    )


def _behind(
    data: bytes,
    source: Address,
    destination: Address,
    protocol: int,
    *,
    hops: int,
    is_fragment: bool,
    is_first: bool,
) -> Packet:
    reading, sport, dport = Reading.SOUND, None, None
    if not is_first:
        pass
    elif protocol in (ICMP, ICMPV6):
        if (protocol == ICMP) != (source.version == 4):
            reading = Reading.UNSUPPORTED
        elif len(data) < 8:
            reading = Reading.MALFORMED
        else:
            dport = data[0]
            if protocol == ICMPV6 and hops == 255 and _is_of_link(destination):
                reading = _neighbour(dport)
    elif protocol in (TCP, UDP, SCTP):
        if len(data) < (14 if protocol == TCP else 8):
            reading = Reading.MALFORMED
        else:
            sport, dport = int.from_bytes(data[:2]), int.from_bytes(data[2:4])
    return Packet(
        reading=reading,
        source=source,
        destination=destination,
        protocol=protocol,
        sport=sport,
        dport=dport,
        is_fragment=is_fragment,
    )


def _neighbour(kind: int) -> Reading:
    if kind in (134, 137):
        return Reading.ROUTER
    return Reading.NEIGHBOUR if 133 <= kind <= 137 else Reading.SOUND


def _is_of_link(address: Address) -> bool:
    return address.is_multicast or (address.version == 6 and address.is_link_local)

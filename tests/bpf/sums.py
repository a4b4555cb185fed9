"""Checksums from scratch, and what a frame says: independent of what the programs do."""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from tests.bpf.packets import ICMP, ICMPV6, SCTP, TCP, UDP, checksum

_OFFSETS = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}
"""Of the checksum in the header."""


@dataclass(frozen=True)
class Seen:
    """What a frame without extension headers says."""

    src: str
    dst: str
    protocol: int
    sport: int
    dport: int
    l4: bytes


def _split(packet: bytes) -> tuple[bytes, int, bytes]:
    """Both addresses, protocol, and what is behind the header of an IP packet."""
    if packet[0] >> 4 == 4:
        return packet[12:20], packet[9], packet[(packet[0] & 15) * 4 :]
    return packet[8:40], packet[6], packet[40:]


def _even(data: bytes) -> bytes:
    return data + bytes(len(data) % 2)


def _sum(addresses: bytes, protocol: int, l4: bytes) -> int:
    """Over all of it: 0 if a checksum inside is right."""
    pseudo = b"" if protocol == ICMP else addresses + struct.pack(">II", len(l4), protocol)
    return checksum(pseudo + _even(l4))


def summed_packet(packet: bytes) -> bytes:
    """An IP packet with the right checksum behind its header; SCTP gets its CRC."""
    addresses, protocol, l4 = _split(packet)
    head = packet[: len(packet) - len(l4)]
    if protocol == SCTP:
        return head + l4[:8] + struct.pack("<I", crc32c(l4[:8] + bytes(4) + l4[12:])) + l4[12:]
    at = _OFFSETS[protocol]
    blank = l4[:at] + bytes(2) + l4[at + 2 :]
    value = _sum(addresses, protocol, blank) or (0xFFFF if protocol == UDP else 0)
    return head + blank[:at] + struct.pack(">H", value) + blank[at + 2 :]


def summed(frame: bytes) -> bytes:
    """A frame with the right checksum behind the IP header."""
    return frame[:14] + summed_packet(frame[14:])


def _fold(addresses: bytes, protocol: int, l4: bytes) -> bool:
    if protocol == SCTP:
        (found,) = struct.unpack("<I", l4[8:12])
        return bool(found == crc32c(l4[:8] + bytes(4) + l4[12:]))
    return _sum(addresses, protocol, l4) == 0


def is_right(frame: bytes) -> bool:
    """Whether every checksum of a whole, unfragmented packet is right."""
    packet = frame[14:]
    if packet[0] >> 4 == 4 and checksum(packet[: (packet[0] & 15) * 4]) != 0:
        return False
    return _fold(*_split(packet))


def read(frame: bytes) -> Seen:
    return read_packet(frame[14:])


def read_packet(packet: bytes) -> Seen:
    addresses, protocol, l4 = _split(packet)
    half = len(addresses) // 2
    src, dst = (str(ip_address(raw)) for raw in (addresses[:half], addresses[half:]))
    sport, dport = struct.unpack(">HH", l4[:4])
    return Seen(src, dst, protocol, sport, dport, l4)


def crc32c(data: bytes) -> int:
    """RFC 9260 appendix A, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF

"""Frames, built header by header. Only the IPv4 header checksum is right: nobody reads others."""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

ETHERNET = bytes.fromhex("02000000000a 02000000000b")
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60


def address(text: str) -> bytes:
    """4 or 16 bytes."""
    return ip_address(text).packed


def mapped(text: str) -> bytes:
    """16 bytes, as in the maps."""
    raw = address(text)
    return raw if len(raw) == 16 else bytes(10) + b"\xff\xff" + raw


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(ethertype: int, payload: bytes) -> bytes:
    return ETHERNET + struct.pack(">H", ethertype) + payload


def tcp(sport: int, dport: int, flags: int = SYN, payload: bytes = b"") -> bytes:
    return struct.pack(">HHIIBBHHH", sport, dport, 1, 0, 5 << 4, flags, 1000, 0, 0) + payload


def udp(sport: int, dport: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def sctp(sport: int, dport: int) -> bytes:
    return struct.pack(">HHII", sport, dport, 7, 0)


def icmp(kind: int, identifier: int = 0, payload: bytes = b"", code: int = 0) -> bytes:
    return struct.pack(">BBHHH", kind, code, 0, identifier, 1) + payload


def ipv4(
    src: str,
    dst: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    options: bytes = b"",
    identification: int = 1,
    fragment: int = 0,
) -> bytes:
    """A packet. fragment: the flags and the offset, 16 bits."""
    words = 5 + len(options) // 4
    head = struct.pack(
        ">BBHHHBBH4s4s",
        4 << 4 | words,
        0,
        words * 4 + len(payload),
        identification,
        fragment,
        ttl,
        protocol,
        0,
        address(src),
        address(dst),
    )
    head += options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(src: str, dst: str, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, ttl)
    return head + address(src) + address(dst) + payload


def extension(following: int, body: bytes = bytes(6)) -> bytes:
    """A hop-by-hop or destination options header of 8 bytes or more."""
    return bytes([following, (len(body) + 2) // 8 - 1]) + body


def fragment_header(following: int, offset: int, identification: int, *, more: bool) -> bytes:
    """offset: in units of 8 bytes."""
    return struct.pack(">BBHI", following, 0, offset << 3 | more, identification)


@dataclass(frozen=True)
class Flow:
    """Two ends; makes packets of either family."""

    src: str
    dst: str
    sport: int = 40000
    dport: int = 80

    @property
    def is_ipv4(self) -> bool:
        return ":" not in self.src

    def reversed(self) -> "Flow":
        return Flow(self.dst, self.src, self.dport, self.sport)

    def ip(self, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
        build = ipv4 if self.is_ipv4 else ipv6
        return build(self.src, self.dst, protocol, payload, ttl=ttl)

    def frame(self, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
        return ethernet(0x0800 if self.is_ipv4 else 0x86DD, self.ip(protocol, payload, ttl=ttl))

    def tcp(self, flags: int = SYN, *, ttl: int = 64, payload: bytes = b"") -> bytes:
        return self.frame(TCP, tcp(self.sport, self.dport, flags, payload), ttl=ttl)

    def udp(self, *, ttl: int = 64, payload: bytes = b"") -> bytes:
        return self.frame(UDP, udp(self.sport, self.dport, payload), ttl=ttl)

    def sctp(self) -> bytes:
        return self.frame(SCTP, sctp(self.sport, self.dport))

    @property
    def icmp_protocol(self) -> int:
        return ICMP if self.is_ipv4 else ICMPV6

    def echo(self, identifier: int = 5, *, ttl: int = 64) -> bytes:
        kind = 8 if self.is_ipv4 else 128
        return self.frame(self.icmp_protocol, icmp(kind, identifier), ttl=ttl)

    def echo_reply(self, identifier: int = 5) -> bytes:
        return self.frame(self.icmp_protocol, icmp(0 if self.is_ipv4 else 129, identifier))

    def icmp_error(self, quoted: bytes) -> bytes:
        """Destination unreachable about a packet (from its IP header on)."""
        kind = 3 if self.is_ipv4 else 1
        return self.frame(self.icmp_protocol, icmp(kind, 0, quoted[:60], code=1))


def ttl_of(frame: bytes) -> int:
    return frame[22] if frame[12:14] == b"\x08\x00" else frame[21]


def header_is_sound(frame: bytes) -> bool:
    """Whether the IPv4 header checksum is right; IPv6 has none."""
    if frame[12:14] != b"\x08\x00":
        return True
    return checksum(frame[14 : 14 + (frame[14] & 15) * 4]) == 0

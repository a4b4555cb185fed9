"""ICMP echo: the first answer of a new pod, to the millisecond."""

import contextlib
import select
import socket
import struct
import time

from lab import netns

HEADER = struct.Struct(">BBHHH")
ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
IPV4_HEADER_BYTES = 20
INTERVAL_SECONDS = 0.001


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(family: int, identifier: int, sequence: int) -> bytes:
    """An echo request. For IPv6 the kernel fills in the checksum."""
    kind = ECHO_REQUEST[socket.AddressFamily(family)]
    blank = HEADER.pack(kind, 0, 0, identifier, sequence)
    if family == socket.AF_INET6:
        return blank
    return HEADER.pack(kind, 0, checksum(blank), identifier, sequence)


def is_reply(family: int, packet: bytes, identifier: int) -> bool:
    """Whether what a raw socket received answers a request. IPv4 comes with its header."""
    message = packet[IPV4_HEADER_BYTES:] if family == socket.AF_INET else packet
    if len(message) < HEADER.size:
        return False
    kind, _, _, found, _ = HEADER.unpack_from(message)
    return (kind, found) == (ECHO_REPLY[socket.AddressFamily(family)], identifier)


def first_answer(namespace: str, target: str, identifier: int, seconds: float) -> float | None:
    """Sends a request every millisecond until one is answered.

    Args:
        namespace: name of the network namespace to send from.
        target: address as text.
        identifier: 0..65535, tells runs apart.
        seconds: when to give up.

    Returns:
        Seconds from the call to the answer, None when there was none.
    """
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    started = time.monotonic()
    with netns.entered(namespace):
        sender = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    with sender:
        sequence = 0
        while (now := time.monotonic()) < started + seconds:
            # No route yet counts as no answer.
            with contextlib.suppress(OSError):
                sender.sendto(request(family, identifier, sequence & 0xFFFF), (target, 0))
            sequence += 1
            while select.select(
                [sender], [], [], max(0, now + INTERVAL_SECONDS - time.monotonic())
            )[0]:
                if is_reply(family, sender.recv(2048), identifier):
                    return time.monotonic() - started
    return None

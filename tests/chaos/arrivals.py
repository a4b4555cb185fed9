"""How many UDP packets have reached a network namespace, and whose, even if nobody listened."""

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import netns

# From linux/if_ether.h and asm-generic/socket.h.
ETH_P_ALL = 0x0003
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_LONGEST = 128
"""Bytes of a packet that are looked at."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A UDP packet. seconds_ago: before it was asked for."""

    source: str
    port: int
    seconds_ago: float

    def __str__(self) -> str:
        return f"from {self.source} to port {self.port} {self.seconds_ago:.2f} s ago"


class Ear:
    """Notes what comes into a network namespace, without taking it from anybody."""

    def __init__(self, namespace: str) -> None:
        """Listens from now on.

        Raises:
            OSError: there is no such namespace.
        """
        with netns.entered(namespace):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL)
            )
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def heard(self) -> list[Arrival]:
        """What came since the last time, as far as the kernel had room for it."""
        return list(self._heard())

    def _heard(self) -> Iterator[Arrival]:
        now = time.time()
        with contextlib.suppress(BlockingIOError):
            while True:
                data, extra, _, address = self._socket.recvmsg(_LONGEST, 64)
                source = _source(address[1], data)
                if address[2] == socket.PACKET_OUTGOING or source is None:
                    continue
                seconds, nanoseconds = _TIMESPEC.unpack(extra[0][2][: _TIMESPEC.size])
                yield Arrival(*source, now - seconds - nanoseconds / 1e9)

    def close(self) -> None:
        """Listens no more."""
        self._socket.close()


def _source(protocol: int, data: bytes) -> tuple[str, int] | None:
    """Address and destination port of a UDP packet, without extension headers; None: it is none."""
    if protocol == ETH_P_IP and data[9] == socket.IPPROTO_UDP:
        source, start = data[12:16], (data[0] & 15) * 4
    elif protocol == ETH_P_IPV6 and data[6] == socket.IPPROTO_UDP:
        source, start = data[8:24], 40
    else:
        return None
    return str(ipaddress.ip_address(source)), int.from_bytes(data[start + 2 : start + 4])


def arrivals(namespace: str) -> int:
    """Packets of both families since the namespace was made.

    Raises:
        OSError: there is no such namespace.
    """
    with netns.entered(namespace):
        ipv4 = Path("/proc/thread-self/net/snmp").read_text()
        ipv6 = Path("/proc/thread-self/net/snmp6").read_text()
    return _ipv4(ipv4) + _ipv6(ipv6)


def _ipv4(text: str) -> int:
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp: "))
    found = dict(zip(names, values, strict=True))
    return int(found["InDatagrams"]) + int(found["NoPorts"])


def _ipv6(text: str) -> int:
    found = dict(line.split() for line in text.splitlines())
    return int(found["Udp6InDatagrams"]) + int(found["Udp6NoPorts"])

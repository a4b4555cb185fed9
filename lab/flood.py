"""Sends pings at a constant rate from one pod and counts those that do not come back.

ICMP echo, because the kernel of the other pod answers: what is lost was lost by the data path and
not by a server that waited for a CPU. The identifier changes every 200 packets, so new connections
are judged all the time and not only an old one tracked.

A process of its own, told by lines on standard input: "mark NAME" begins a segment, "end" ends the
flood. It prints {"event": "ready"} at the start and its result, a JSON object, at the end.
"""

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from lab import netns

RATE = 1000
PACKETS_PER_IDENTIFIER = 200
LINGER_SECONDS = 2.0
"""How long after the last packet a reply still counts."""

CATCH_UP = 100
"""Packets sent at once, at most, after the process had to wait for a CPU."""

BUFFER_BYTES = 8 << 20
SO_RCVBUFFORCE = 33  # asm-generic/socket.h

MAGIC = b"deltapln"
PADDING = bytes(32)
ECHO = {socket.AF_INET: 8, socket.AF_INET6: 128}
ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return int(~total & 0xFFFF)


def echo_request(family: int, identifier: int, number: int) -> bytes:
    """An echo request that carries its number; the kernel fills in the checksum of ICMPv6."""
    rest = struct.pack(">HH", identifier & 0xFFFF, number & 0xFFFF)
    payload = MAGIC + struct.pack(">Q", number) + PADDING
    kind = bytes((ECHO[socket.AddressFamily(family)], 0))
    value = checksum(kind + b"\0\0" + rest + payload) if family == socket.AF_INET else 0
    return kind + value.to_bytes(2) + rest + payload


def reply_number(family: int, packet: bytes) -> int | None:
    """The number in an echo reply; None for any other packet. IPv4 comes with its header."""
    body = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
    if len(body) < 24 or body[0] != ECHO_REPLY[socket.AddressFamily(family)]:
        return None
    return int(struct.unpack_from(">Q", body, 16)[0]) if body[8:16] == MAGIC else None


@dataclass(slots=True)
class Stream:
    """The pings to one address."""

    address: str
    connection: socket.socket
    sent_at: "array[float]" = field(default_factory=lambda: array("d"))
    round_trip: "array[float]" = field(default_factory=lambda: array("d"))
    refused: int = 0

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.connection.family

    def send(self, now: float) -> None:
        """Sends the next packet. One that the kernel refuses stays unanswered: lost."""
        number = len(self.sent_at)
        self.sent_at.append(now)
        self.round_trip.append(-1.0)
        identifier = os.getpid() + number // PACKETS_PER_IDENTIFIER
        try:
            self.connection.send(echo_request(self.family, identifier, number))
        except OSError:
            self.refused += 1

    def receive(self, now: float) -> None:
        """Takes every reply that waits."""
        while True:
            try:
                packet = self.connection.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error was queued on the socket: the packet it is about stays unanswered.
                continue
            number = reply_number(self.family, packet)
            if number is not None and number < len(self.sent_at) and self.round_trip[number] < 0:
                self.round_trip[number] = now - self.sent_at[number]


def open_stream(namespace: str, address: str) -> Stream:
    """A raw socket in the pod's namespace. Needs CAP_NET_RAW."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    with netns.entered(namespace):
        connection = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    connection.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    connection.connect((address, 0))
    return Stream(address, connection)


def summary(name: str, streams: Iterable[Stream], start: int, end: int) -> dict[str, object]:
    """What happened to the packets start..end-1 of every stream."""
    times = [stream.round_trip[start:end] for stream in streams]
    return {
        "name": name,
        "sent": sum(len(part) for part in times),
        "lost": sum(sum(value < 0 for value in part) for part in times),
        "worst_ms": round(1000 * max((max(part) for part in times if part), default=0.0), 2),
    }


class Flood:
    """The loop: sends on time, takes replies, follows commands."""

    def __init__(self, streams: list[Stream]) -> None:
        self._streams = streams
        self._sent = 0
        self._marks: list[tuple[str, int]] = [("start", 0)]
        self._commands = b""
        self._started = time.monotonic()
        self._ending: float | None = None
        self._poller = select.poll()
        self._poller.register(sys.stdin, select.POLLIN)
        for stream in streams:
            self._poller.register(stream.connection, select.POLLIN)

    def run(self) -> dict[str, object]:
        """Floods until told to end and all replies had their time; returns the result."""
        while self._ending is None or time.monotonic() < self._ending:
            ready = self._poller.poll(self._wait_ms())
            now = time.monotonic()
            for stream in self._streams:
                stream.receive(now)
            if self._ending is None:
                self._send_due()
                if any(descriptor == sys.stdin.fileno() for descriptor, _ in ready):
                    self._obey(os.read(sys.stdin.fileno(), 4096) or b"end\n")
        borders = [start for _, start in self._marks[1:]] + [self._sent]
        return {
            "segments": [
                summary(name, self._streams, start, end)
                for (name, start), end in zip(self._marks, borders, strict=True)
            ],
            "refused": sum(stream.refused for stream in self._streams),
        }

    def _wait_ms(self) -> float:
        if self._ending is not None:
            return 50.0
        return max(0.0, (self._started + self._sent / RATE - time.monotonic()) * 1000)

    def _send_due(self) -> None:
        due = int((time.monotonic() - self._started) * RATE) + 1
        for _ in range(min(due - self._sent, CATCH_UP)):
            for stream in self._streams:
                stream.send(time.monotonic())
            self._sent += 1

    def _obey(self, data: bytes) -> None:
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            word, _, name = line.decode().partition(" ")
            if word == "mark":
                self._marks.append((name, self._sent))
            elif word == "end":
                self._ending = time.monotonic() + LINGER_SECONDS
                self._poller.unregister(sys.stdin)


def main(arguments: Iterable[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m lab.flood", description=__doc__)
    parser.add_argument("--netns", required=True, help="network namespace to send from")
    parser.add_argument("addresses", nargs="+", help="where to")
    options = parser.parse_args(None if arguments is None else list(arguments))
    streams = [open_stream(options.netns, address) for address in options.addresses]
    sys.stdout.write('{"event": "ready"}\n')
    sys.stdout.flush()
    sys.stdout.write(json.dumps(Flood(streams).run()) + "\n")


if __name__ == "__main__":
    main()

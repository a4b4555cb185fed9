"""Transfers between network namespaces, and what the kernel counts meanwhile."""

import socket
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lab import netns

MEBIBYTE = 1 << 20
PATIENCE_SECONDS = 60.0
"""Until a transfer that does not move counts as stalled; seen is well below one."""

FRAGMENTS = (
    *("Ip.FragCreates", "Ip.FragOKs", "Ip.FragFails", "Ip.ReasmReqds"),
    *("Ip6FragCreates", "Ip6FragOKs", "Ip6FragFails", "Ip6ReasmReqds"),
)


def opened(
    namespace: str, family: socket.AddressFamily, kind: socket.SocketKind, text: str = ""
) -> socket.socket:
    """A socket of a namespace, bound to an address if there is one."""
    with netns.entered(namespace):
        made = socket.socket(family, kind)
    made.settimeout(PATIENCE_SECONDS)
    if text:
        made.bind((text, 0))
    return made


class Sink(threading.Thread):
    """Takes one connection to its end. received: bytes; peer: who connected."""

    def __init__(self, namespace: str, family: socket.AddressFamily, text: str) -> None:
        super().__init__()
        self._listener = opened(namespace, family, socket.SOCK_STREAM, text)
        self._listener.listen()
        self.where = self._listener.getsockname()[:2]
        self.received = 0
        self.peer = ""
        self.start()

    def run(self) -> None:
        with self._listener:
            connection, (self.peer, *_) = self._listener.accept()
        with connection:
            connection.settimeout(PATIENCE_SECONDS)
            while got := len(connection.recv(MEBIBYTE)):
                self.received += got


def transfer(source: str, sink: Sink, family: socket.AddressFamily, octets: int) -> int:
    """Sends so much from a namespace; the size of full segments, bytes of payload."""
    with opened(source, family, socket.SOCK_STREAM) as client:
        client.connect(sink.where)
        piece = bytes(MEBIBYTE)
        for _ in range(octets // MEBIBYTE):
            client.sendall(piece)
        segment = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    sink.join(PATIENCE_SECONDS)
    assert not sink.is_alive()
    assert sink.received == octets
    return segment


def counters(namespaces: Iterable[str]) -> Counter[str]:
    """Fragment and TCP counters, summed over namespaces."""
    total: Counter[str] = Counter()
    for namespace in namespaces:
        with netns.entered(namespace):
            here = Path("/proc/thread-self/net")
            tables = [
                line
                for name in ("snmp", "netstat")
                for line in (here / name).read_text().splitlines()
            ]
            ipv6 = (here / "snmp6").read_text().splitlines()
        for names, values in zip(tables[::2], tables[1::2], strict=True):
            table, *columns = names.replace(":", "").split()
            numbers = values.split()[1:]
            total.update({f"{table}.{c}": int(n) for c, n in zip(columns, numbers, strict=True)})
        total.update({name: int(value) for name, value in map(str.split, ipv6)})
    return total


def fragments(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """Counters of fragments that moved."""
    return {name: after[name] - before[name] for name in FRAGMENTS if after[name] != before[name]}

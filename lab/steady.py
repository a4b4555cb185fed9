"""A pod that never stops sending, the socket it sends to, and what the kernel of its node says.

Packets carry numbers. The source writes a number down before it sends the packet: what carries a
number above one that was read was sent after it was read, whatever clocks say.
"""

import argparse
import contextlib
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import netns
from nodeagent.dataplane import abi, loader, maps, records

NUMBER = struct.Struct("=Q")
PER_SECOND = 2000
FRESH_PACKETS = 8
"""Packets of a connection that does not stand; then comes one with another source port."""

SO_RCVBUFFORCE = 33
"""From asm-generic/socket.h; Python does not know it."""

_BUFFER_BYTES = 4 << 20
"""Room for what arrives in two seconds, so that nothing is lost while nobody looks."""

_LONGEST = 64


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Packets that a node's programs let through to its pods, and that its policies denied."""

    allowed: int
    denied: int


class Judge:
    """Reads what the programs of one node count, past its agent. Close it."""

    def __init__(self, pin_dir: Path) -> None:
        """Opens the pinned map of an agent that runs, or did."""
        path = loader.schema_folder(pin_dir) / "outcomes"
        self._outcomes = maps.KernelMap("outcomes", maps.open_pinned(path))

    def verdicts(self) -> Verdicts:
        """As counted now, between pods of this node."""
        return Verdicts(
            allowed=self._packets(abi.Outcome.PASS_LOCAL),
            denied=self._packets(abi.Outcome.DROP_EGRESS_POLICY)
            + self._packets(abi.Outcome.DROP_INGRESS_POLICY),
        )

    def _packets(self, outcome: abi.Outcome) -> int:
        values = self._outcomes.per_cpu(records.number_key(outcome))
        return sum(abi.Count.unpack(value).packets for value in values)

    def close(self) -> None:
        """Closes the map."""
        self._outcomes.close()


class Sink:
    """A UDP socket of a pod, both families. It answers nothing."""

    def __init__(self, namespace: str, port: int) -> None:
        with netns.entered(namespace):
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind(("::", port))
        self._socket.settimeout(0)

    def take(self) -> list[int]:
        """Numbers of the packets that have arrived since it was asked before."""
        found: list[int] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found += NUMBER.unpack(self._socket.recv(_LONGEST))
        return found

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class Source:
    """A process in a pod that sends numbered packets until it is closed."""

    def __init__(self, namespace: str, addresses: Sequence[str], port: int) -> None:
        """Sends to each of the addresses in turn."""
        command = [sys.executable, "-m", "lab.steady", namespace, str(port), *addresses]
        with tempfile.TemporaryFile() as file:
            file.truncate(NUMBER.size)
            self._said = mmap.mmap(file.fileno(), NUMBER.size)
            self._process = subprocess.Popen(command, stdout=file.fileno())

    @property
    def number(self) -> int:
        """The last number it has written down; its packet may not have been sent yet.

        Raises:
            RuntimeError: the process has ended.
        """
        if self._process.poll() is not None:
            message = f"the source has ended with {self._process.returncode}"
            raise RuntimeError(message)
        return int(NUMBER.unpack(self._said[:])[0])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._said.close()


def send(addresses: Sequence[str], port: int, said: mmap.mmap) -> None:
    """Sends to each address on a connection that stands and on one that is new, like this for ever.

    It ends with the process that has started it.
    """
    parent = os.getppid()
    standing = [_opened(address, port) for address in addresses]
    fresh = [_opened(address, port) for address in addresses]
    sent = 0
    while os.getppid() == parent:
        for position in range(2 * len(addresses)):
            which, is_fresh = position // 2, position % 2
            sent += 1
            said[:] = NUMBER.pack(sent)
            with contextlib.suppress(OSError):  # a full queue, say: the number is lost
                (fresh if is_fresh else standing)[which].send(NUMBER.pack(sent))
            time.sleep(1 / PER_SECOND)
        if sent % (2 * len(addresses) * FRESH_PACKETS) == 0:
            for old in fresh:
                old.close()
            fresh = [_opened(address, port) for address in addresses]


def _opened(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.connect((address, port))
    return made


@contextlib.contextmanager
def traffic(
    source: str, destination: str, addresses: Sequence[str], port: int
) -> Iterator[tuple[Source, Sink]]:
    """From one pod's namespace to another's, for as long as the block."""
    sink = Sink(destination, port)
    try:
        sending = Source(source, addresses, port)
        try:
            yield sending, sink
        finally:
            sending.close()
    finally:
        sink.close()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("namespace")
    parser.add_argument("port", type=int)
    parser.add_argument("addresses", nargs="+")
    given = parser.parse_args()
    said = mmap.mmap(1, NUMBER.size)  # the file that is our standard output
    netns.enter(netns.path(given.namespace))
    send(given.addresses, given.port, said)


if __name__ == "__main__":
    _main()

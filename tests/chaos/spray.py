"""Sends UDP packets all the time, from many pods to many addresses: does one get through?

A process of its own. Each line on its standard input is a JSON list of [network namespace, address]
and replaces what was sent to before. It ends with its standard input.
"""

import argparse
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab import netns

PORT = 9
PER_SECOND = 800
FRESH_AFTER = 20
"""Packets that a socket sends before it gives way to one with another source port."""

Pair = tuple[str, str]
"""(network namespace to send from, address to send to)."""


class _Sender:
    """Two sockets to one address: one that stays and one that is replaced."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._standing = _opened(pair)
        self._fresh = _opened(pair)
        self._sent = 0

    def send(self) -> None:
        self._sent += 1
        if self._sent % FRESH_AFTER == 0:
            self._replace()
        for connection in (self._standing, self._fresh):
            # A full queue, no route yet, an answer that nobody listens: the packet is lost.
            with contextlib.suppress(OSError):
                connection.send(b"may I come in?")

    def _replace(self) -> None:
        # The pod may have gone meanwhile, and what is sent to be told of it later.
        with contextlib.suppress(OSError):
            fresh = _opened(self._pair)
            self._fresh.close()
            self._fresh = fresh

    def close(self) -> None:
        self._standing.close()
        self._fresh.close()


def _opened(pair: Pair) -> socket.socket:
    namespace, address = pair
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(namespace):
        made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with contextlib.suppress(OSError):
        made.connect((address, PORT))
    return made


def serve() -> None:
    """Sends until standard input ends."""
    senders: dict[Pair, _Sender] = {}
    turn = 0
    buffer = b""
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 2 / PER_SECOND if senders else None)
        if ready:
            data = os.read(0, 1 << 20)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                _agree(senders, {(namespace, address) for namespace, address in json.loads(line)})
                sys.stdout.write("\n")
                sys.stdout.flush()
        if senders:
            turn += 1
            list(senders.values())[turn % len(senders)].send()


def _agree(senders: dict[Pair, _Sender], wanted: set[Pair]) -> None:
    for pair in senders.keys() - wanted:
        senders.pop(pair).close()
    for pair in sorted(wanted - senders.keys()):
        with contextlib.suppress(OSError):  # the pod has gone meanwhile
            senders[pair] = _Sender(pair)


class Spray:
    """The process, as who starts it sees it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def aim(self, pairs: Sequence[Pair]) -> None:
        """Sends along these from now on and no others.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(pairs) + "\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            message = "the sending process has ended"
            raise RuntimeError(message)


@contextmanager
def spraying() -> Iterator[Spray]:
    """Runs the process for as long as the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.spray"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Spray(process)
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m tests.chaos.spray", description=__doc__).parse_args()
    serve()

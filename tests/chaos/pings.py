"""Pings between pods that stay, and whether one was lost that no fault can excuse."""

import argparse
import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab.flood import LINGER_SECONDS, Stream, open_stream

ROUND_SECONDS = 0.05
"""Between two pings of a path."""

BEFORE_SECONDS = 1.0
"""A ping that was sent so long before a cut may still have been on its way."""

AFTER_SECONDS = 4.0
"""A neighbour that was asked for during a cut is asked again after a second, three times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way between two pods. nodes: theirs; namespace: where pings are sent from."""

    nodes: tuple[str, str]
    namespace: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A node's uplink was cut, by time.monotonic()."""

    node: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of all pings.

    Attributes:
        sent: pings.
        excused: lost ones, on paths of a node whose uplink was cut just then.
        lost: the others that were lost, for people.
    """

    sent: int
    excused: int
    lost: tuple[str, ...]


def judge(
    paths: Sequence[Path], results: Iterable[Mapping[str, list[float]]], cuts: Sequence[Cut]
) -> Verdict:
    """Tells excused losses from the others. Pure.

    Args:
        paths: in the order of the results.
        results: for each path "sent" and "lost": when, by time.monotonic().
        cuts: of uplinks.
    """
    sent = excused = 0
    lost: list[str] = []
    for path, result in zip(paths, results, strict=True):
        mine = [cut for cut in cuts if cut.node in path.nodes]
        sent += len(result["sent"])
        for when in result["lost"]:
            if any(cut.begin - BEFORE_SECONDS <= when <= cut.end + AFTER_SECONDS for cut in mine):
                excused += 1
            else:
                lost.append(f"{when:.3f}: {path.nodes[0]} to {path.nodes[1]} ({path.address})")
    return Verdict(sent=sent, excused=excused, lost=tuple(lost))


class Pings:
    """The process that pings, as who starts it sees it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def end(self) -> list[Mapping[str, list[float]]]:
        """Ends it; what became of the pings of each path."""
        text, _ = self._process.communicate()
        found: list[Mapping[str, list[float]]] = json.loads(text)
        return found


@contextmanager
def pinging(paths: Sequence[Path]) -> Iterator[Pings]:
    """Pings along all paths until the end of the block, or of the pings."""
    arguments = [word for path in paths for word in (path.namespace, path.address)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.pings", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            message = "the pings did not start"
            raise RuntimeError(message)
        yield Pings(process)
    finally:
        process.kill()
        process.wait()


def run(streams: Sequence[Stream]) -> list[Mapping[str, list[float]]]:
    """Pings until standard input ends, and waits for the last answers."""
    poller = select.poll()
    poller.register(sys.stdin, select.POLLIN | select.POLLHUP)
    due = time.monotonic()
    while not any(event for _, event in poller.poll(max(0.0, 1000 * (due - time.monotonic())))):
        for stream in streams:
            stream.send(time.monotonic())
        _take(streams)
        due = max(due + ROUND_SECONDS, time.monotonic())
    ending = time.monotonic() + LINGER_SECONDS
    while time.monotonic() < ending:
        _take(streams)
        time.sleep(0.01)
    return [
        {
            "sent": list(stream.sent_at),
            "lost": [
                when
                for when, took in zip(stream.sent_at, stream.round_trip, strict=True)
                if took < 0
            ],
        }
        for stream in streams
    ]


def _take(streams: Sequence[Stream]) -> None:
    now = time.monotonic()
    for stream in streams:
        stream.receive(now)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.pings", description=__doc__)
    parser.add_argument("paths", nargs="+", help="network namespace and address, by turns")
    words = parser.parse_args().paths
    streams = [open_stream(*pair) for pair in zip(words[::2], words[1::2], strict=True)]
    sys.stdout.write("\n")
    sys.stdout.flush()
    json.dump(run(streams), sys.stdout)
    for stream in streams:
        stream.connection.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _main()

"""HTTP requests from and to network namespaces, by calls.c, which is compiled for one run."""

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import IO

from bench.datapath.generator import compiled
from deltaplane.errors import Internal
from lab import netns

SOURCE = Path(__file__).with_name("calls.c")
ANY_CPU = -1

STEPS = ("", "connect", "send", "receive", "status")
"""How far a call came: enum step of calls.c."""

_CALL = Struct("=HBBIQ")
_READ_BYTES = 1 << 16
_END_SECONDS = 10.0

Target = tuple[str, int]
"""Textual address and port."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        target: place of its target.
        failed: what failed and errno, as in "connect 111"; empty: it went well.
        ended_ms: milliseconds since the first call began.
        took_ns: nanoseconds from before the connection is opened to the end of the answer.
    """

    target: int
    failed: str
    ended_ms: int
    took_ns: int


def decode(data: bytes) -> Iterator[Call]:
    """Calls as calls.c writes them; a part of one at the end is left out."""
    whole = memoryview(data)[: len(data) // _CALL.size * _CALL.size]
    for target, step, error, ended, took in _CALL.iter_unpack(whole):
        failed = f"{STEPS[step]} {error}" if step else ""
        yield Call(target, failed, ended, took)


class Caller:
    """A process that calls until it is closed, or the end of the block."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self._process = process
        self._data = bytearray()
        self._reader = threading.Thread(target=self._read, args=(process.stdout,))
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while read := os.read(stream.fileno(), _READ_BYTES):
                self._data += read

    @property
    def count(self) -> int:
        """Calls so far, also those that failed.

        Raises:
            Internal: the process has ended.
        """
        if self._process.poll() is not None:
            raise Internal(f"the caller has ended with {self._process.returncode}")
        return len(self._data) // _CALL.size

    def calls(self, start: int = 0) -> list[Call]:
        """The calls so far, from a number on."""
        return list(decode(bytes(self._data[start * _CALL.size :])))

    def close(self) -> None:
        """Ends the process after the call that it is at; what was called stays to be read."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


@contextmanager
def calling(
    program: Path,
    namespace: str,
    targets: Sequence[Target],
    *,
    interval_us: int,
    cpu: int = ANY_CPU,
    cgroup: str = "",
) -> Iterator[Caller]:
    """Calls targets in turn until the end of the block.

    Args:
        program: see `build`.
        namespace: name of the network namespace that they come from.
        targets: up to 64.
        interval_us: microseconds from the beginning of a call to that of the next one.
        cpu: processor of the process; ANY_CPU: any.
        cgroup: folder of the group that it runs in; empty: this process's.
    """
    command = [str(program), "ask", str(netns.path(namespace)), str(cpu), str(interval_us)]
    command += [str(item) for target in targets for item in target]
    if cgroup:
        # In the group from its first instruction on.
        command = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', f"{cgroup}/cgroup.procs", *command]
    caller = Caller(subprocess.Popen(command, stdout=subprocess.PIPE))
    try:
        yield caller
    finally:
        caller.close()


@contextmanager
def serving(
    program: Path, namespaces: Sequence[str], port: int, *, cpu: int = ANY_CPU
) -> Iterator[None]:
    """Answers on a port of network namespaces until the end of the block; one process for all.

    Raises:
        Internal: it cannot, for example because a port is taken.
    """
    names = [str(netns.path(namespace)) for namespace in namespaces]
    command = [str(program), "serve", str(cpu), str(port), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise Internal(f"the server has ended with {process.wait()}")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def build(folder: Path) -> Path:
    """Compiles the program into a folder. Raises Refused or Internal: see `compiled`."""
    return compiled(SOURCE, folder / "calls")


def failures(calls: Sequence[Call]) -> Counter[str]:
    """How many calls failed, by what failed."""
    return Counter(call.failed for call in calls if call.failed)

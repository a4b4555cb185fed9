"""Runs programs the cheapest way that a container runtime could: posix_spawn, files for streams.

The cost of starting a process is in every figure and the same for every plugin; `true` measures it
alone. Standard input and output are memory files: nobody has to pump pipes while the time runs.
"""

import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. It inherits the calling thread's network namespace."""

    program: Path
    environment: Mapping[str, str]
    stdin: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that has ended.

    Attributes:
        code: exit code; negative for a signal.
        stdout: all of it.
        seconds: from before the start to after its end was seen.
        cpu_seconds: its own and those of children that it waited for, user and system.
    """

    code: int
    stdout: bytes
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class _Running:
    pid: int
    output: int
    started: float


def run(command: Command) -> Finished:
    """Runs a program to its end."""
    with _streams([command]) as [(stdin, stdout)]:
        return _collect(_start(command, stdin, stdout))


def run_together(commands: Sequence[Command]) -> tuple[list[Finished], float]:
    """Starts all before it waits for any; also the seconds from the first start to the last end."""
    found: list[Finished | None] = [None] * len(commands)
    with _streams(commands) as streams:
        begun = time.perf_counter()
        running = [_start(command, *pair) for command, pair in zip(commands, streams, strict=True)]
        ended = select.poll()
        numbers = {}
        for number, process in enumerate(running):
            numbers[descriptor := os.pidfd_open(process.pid)] = number
            ended.register(descriptor, select.POLLIN)
        while numbers:
            for descriptor, _ in ended.poll():
                number = numbers.pop(descriptor)
                found[number] = _collect(running[number])
                ended.unregister(descriptor)
                os.close(descriptor)
        took = time.perf_counter() - begun
    return [finished for finished in found if finished is not None], took


@contextmanager
def _streams(commands: Sequence[Command]) -> Iterator[list[tuple[int, int]]]:
    """A full standard input and an empty standard output for each."""
    made: list[tuple[int, int]] = []
    try:
        for command in commands:
            made.append((os.memfd_create("stdin"), os.memfd_create("stdout")))
            os.write(made[-1][0], command.stdin)
            os.lseek(made[-1][0], 0, os.SEEK_SET)
        yield made
    finally:
        for pair in made:
            for descriptor in pair:
                os.close(descriptor)


def _start(command: Command, stdin: int, stdout: int) -> _Running:
    started = time.perf_counter()
    pid = os.posix_spawn(
        command.program,
        [str(command.program)],
        command.environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)],
    )
    return _Running(pid, stdout, started)


def _collect(process: _Running) -> Finished:
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - process.started
    size = os.fstat(process.output).st_size
    return Finished(
        code=os.waitstatus_to_exitcode(status),
        stdout=os.pread(process.output, size, 0),
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
    )

"""The processes of a run: etcd, the server under test, the registry, the agents."""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaplane.errors import Internal, Unavailable

READY_SECONDS = 120.0
"""A slicer lists and compiles everything before it serves."""

STOP_SECONDS = 30.0
ANSWER_SECONDS = 900.0
LINE_BYTES = 1 << 30
"""Longest answer of a process of agents."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running server. target: host:port of its gRPC."""

    pid: int
    target: str


def environment() -> dict[str, str]:
    """Of every process: somebody's DELTAPLANE_* must not configure ours. In plain text."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DELTAPLANE_")}
    return {**kept, "DELTAPLANE_INSECURE": "1"}


@contextlib.asynccontextmanager
async def program(module: str, *flags: str, log: Path) -> AsyncIterator[Program]:
    """Runs a server from its ready line on.

    Raises:
        Internal: it ended before; its log says why.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *flags),
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            env=environment(),
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise Internal(f"{module} ended at once: {_tail(log)}")
        yield Program(process.pid, json.loads(line)["listen"][0])
    finally:
        await _end(process)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def understands(module: str, flag: str) -> bool:
    """Whether a program has a flag."""
    found = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    return flag in found.stdout


class Agents:
    """One process of agents. It answers one command after another."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def ask(self, what: str, **arguments: object) -> Mapping[str, Any]:
        """The answer to a command; see `bench.scale.commands`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise Unavailable("a process of agents has ended")
        answer: Mapping[str, Any] = json.loads(line)
        return answer


@contextlib.asynccontextmanager
async def agents(modules: Sequence[str], log: Path) -> AsyncIterator[list[Agents]]:
    """Runs processes of agents."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    running = []
    try:
        with log.open("ab") as output:
            for module in modules:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", module),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=output,
                    limit=LINE_BYTES,
                    env=environment(),
                )
                running.append(process)
        found = [Agents(process) for process in running]
        await asyncio.gather(*(one.ask("stats") for one in found))  # they have started
        yield found
    finally:
        for process in running:
            await _end(process)

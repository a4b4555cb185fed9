"""Kills every process of a lab, one after another, under a flood of pings."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from deltaplane.errors import Internal, Refused
from lab.cluster import Lab
from lab.pods import Pod
from lab.programs import agent_name

SETTLE_SECONDS = 0.5
"""Packets to count before the first kill and after each return."""

END_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One process killed.

    Attributes:
        process: its name.
        away_seconds: from the signal until it served again; 0 for the calm at the start.
        sent: packets from this kill to the next.
        lost: packets of those that never came back.
        worst_ms: longest round trip among them.
    """

    process: str
    away_seconds: float
    sent: int
    lost: int
    worst_ms: float


class Flood:
    """A running flood; see `lab.flood`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def _say(self, line: str) -> None:
        _pipe(self._process.stdin).write(f"{line}\n")
        _pipe(self._process.stdin).flush()

    def mark(self, name: str) -> None:
        """Begins a segment."""
        self._say(f"mark {name}")

    def end(self) -> Mapping[str, Any]:
        """Ends the flood and gives its result.

        Raises:
            Internal: the flood died.
        """
        self._say("end")
        text, errors = self._process.communicate(timeout=END_SECONDS)
        if self._process.returncode != 0:
            raise Internal(f"the flood died: {errors.strip()}")
        result: Mapping[str, Any] = json.loads(text)
        return result


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextmanager
def flooding(namespace: str, addresses: Sequence[str]) -> Iterator[Flood]:
    """Floods from a network namespace to addresses inside the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.flood", "--netns", namespace, *addresses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if not _pipe(process.stdout).readline():
            raise Internal(f"the flood did not start: {_pipe(process.stderr).read().strip()}")
        yield Flood(process)
    finally:
        process.kill()
        process.communicate()


def victims(lab: Lab) -> tuple[str, ...]:
    """Every process that the data path must do without: slicer and services, etcd, the agents."""
    agents = (agent_name(node.name) for node in lab.topology.nodes)
    return ("slicer", "ipam", "endpoints", "etcd", *agents)


def choose_pair(pods: Sequence[Pod], source: str) -> tuple[Pod, tuple[Pod, ...]]:
    """The source, and of every other node the first pod that is not of the source's namespace.

    Raises:
        Refused: there is no such pod: a flood within one node would show little.
    """
    sender = next(pod for pod in pods if pod.reference == source)
    chosen: dict[str, Pod] = {}
    for pod in pods:
        if pod.node != sender.node and pod.namespace != sender.namespace:
            chosen.setdefault(pod.node, pod)
    if not chosen:
        raise Refused(f"no pod of another namespace runs on another node than {source}")
    return sender, tuple(chosen.values())


def kill_all(lab: Lab, source: Pod, destinations: Sequence[Pod]) -> tuple[Kill, ...]:
    """Kills every victim in turn, waiting until it is back; the first entry is the calm before.

    Raises:
        Unavailable: a process did not come back.
    """
    addresses = [address for pod in destinations for address in pod.addresses]
    away = [0.0]
    names = ["(calm)"]
    with flooding(lab.pod_namespace(source), addresses) as flood:
        time.sleep(SETTLE_SECONDS)
        for name in victims(lab):
            flood.mark(name)
            started = time.monotonic()
            before = lab.kill(name)
            lab.await_restart(name, before)
            away.append(time.monotonic() - started)
            names.append(name)
            time.sleep(SETTLE_SECONDS)
        result = flood.end()
    return tuple(
        Kill(
            process=name,
            away_seconds=seconds,
            sent=segment["sent"],
            lost=segment["lost"],
            worst_ms=segment["worst_ms"],
        )
        for name, seconds, segment in zip(names, away, result["segments"], strict=True)
    )

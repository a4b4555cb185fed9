"""Load between two pods, by load.c, which is compiled for one run."""

import enum
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.datapath.network import CLIENT_NODE, SERVER_NODE, Network, addresses
from deltaplane.errors import Internal, Refused
from lab import netns

SOURCE = Path(__file__).with_name("load.c")
COMPILE = ("gcc", "-O2", "-Wall", "-Werror", "-pthread")
GRACE_SECONDS = 30.0
"""For a load to end by itself after its time, on a machine that is busy."""


class Load(enum.StrEnum):
    """What is measured; load.c says how."""

    UDP = "udp"
    RR = "rr"
    CRR = "crr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One turn of a load.

    Attributes:
        count: packets' bursts, transactions or connections that went well.
        failures: packets that were lost, transactions or connections that failed.
        p50_ns: median, nanoseconds: CPU time of a packet (UDP), time of a transaction.
        p99_ns: the same, 99 % are shorter.
        mean_ns: the same, mean.
    """

    count: int
    failures: int
    p50_ns: float
    p99_ns: float
    mean_ns: float


@dataclass(frozen=True, slots=True)
class Generator:
    """The compiled program, and the two processors that its ends get."""

    program: Path
    cpus: tuple[int, int]

    def run(
        self,
        network: Network,
        load: Load,
        family: str,
        seconds: float,
        *,
        target: tuple[str, int] | None = None,
        cgroup: Path | None = None,
    ) -> Sample:
        """Loads a network for so long.

        Args:
            network: its pods are the ends.
            load: what to send.
            family: ipv4 or ipv6.
            seconds: for how long.
            target: address and port that the client connects to, not for UDP; None: the server's.
            cgroup: folder of the one that the program runs in; None: this process's.

        Raises:
            Internal: the program says what went wrong.
        """
        ends = (CLIENT_NODE, SERVER_NODE)
        command = [
            str(self.program),
            load.value,
            *(str(netns.path(network.pod(node))) for node in ends),
            *(addresses(node)[family] for node in ends),
            str(round(seconds * 1000)),
            *map(str, self.cpus),
            *map(str, target or ()),
        ]
        if cgroup is not None:
            # The program is in the cgroup from its first instruction on.
            command = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', f"{cgroup}/cgroup.procs", *command]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + GRACE_SECONDS
        )
        if ended.returncode != 0:
            raise Internal(f"{' '.join(command)}: {ended.stderr.strip()}")
        return Sample(**json.loads(ended.stdout))


def build(folder: Path) -> Generator:
    """Compiles the program into a folder.

    Raises:
        Refused: there is no compiler, or only one processor.
        Internal: it does not compile.
    """
    program = compiled(SOURCE, folder / "load")
    return Generator(program, two_of(sorted(os.sched_getaffinity(0))))


def compiled(source: Path, program: Path) -> Path:
    """Makes a program of one file in C; returns it.

    Raises:
        Refused: there is no compiler.
        Internal: it does not compile.
    """
    if shutil.which(COMPILE[0]) is None:
        raise Refused(f"{COMPILE[0]} is not installed; `make setup` does it")
    command = [*COMPILE, str(source), "-o", str(program)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise Internal(ended.stderr.strip())
    return program


def two_of(cpus: Sequence[int]) -> tuple[int, int]:
    """The processors of the two ends.

    Raises:
        Refused: there are not two.
    """
    if len(cpus) < 2:
        raise Refused("the two ends need a processor each, and there is one")
    return cpus[0], cpus[1]

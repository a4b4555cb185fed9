"""The turns: every variant with every load, round by round."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.datapath import comparing
from bench.datapath.comparing import PLAIN
from bench.datapath.generator import Load, Sample, build
from bench.datapath.network import Network, judged, plain
from nodeagent.dataplane import bpffs

FAMILIES = ("ipv4", "ipv6")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        name: what the names of the namespaces begin with.
        rounds: in each, every variant has a turn with every load.
        seconds: of a turn.
        entries: numbers of policy entries.
        families: some of FAMILIES.
        loads: what to send.
    """

    name: str
    rounds: int
    seconds: float
    entries: Sequence[int]
    families: Sequence[str] = FAMILIES
    loads: Sequence[Load] = tuple(Load)


@dataclass(frozen=True, slots=True)
class Turns:
    """One load in one family: a sample by variant for each round."""

    load: Load
    family: str
    rounds: list[dict[int, Sample]]


def measure(plan: Plan, progress: Callable[[str], None]) -> list[Turns]:
    """Makes the nodes, measures, and removes them.

    Raises:
        DeltaplaneError: something is missing, or nothing passes.
        OSError: no privilege, or the kernel refuses.
    """
    found = [Turns(load, family, []) for load in plan.loads for family in plan.families]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deltaplane-bench-")))
        generator = build(folder)
        networks = _networks(plan, folder / "bpffs", stack)
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            for turns in found:
                turns.rounds.append({})
                for variant in comparing.turns(list(networks), number):
                    turns.rounds[-1][variant] = generator.run(
                        networks[variant], turns.load, turns.family, plan.seconds
                    )
    return found


def _networks(plan: Plan, mount: Path, stack: ExitStack) -> dict[int, Network]:
    """One for each variant; the stack removes them."""
    mount.mkdir()
    bpffs.ensure(mount)
    stack.callback(bpffs.release, mount)
    networks = {PLAIN: stack.enter_context(plain(f"{plan.name}-plain"))}
    for entries in plan.entries:
        network = judged(f"{plan.name}-{entries}", mount, entries)
        networks[entries] = stack.enter_context(network)
    return networks

"""ADD on a full node, in rounds: ours with a known and a new identity, and the reference, in turn.

Before a round its pods get records and namespaces, after it they are deleted: while the time runs,
nothing is made ready and nothing is cleaned up. Before each ADD the machine comes to rest, so that
what one leaves behind is not charged to the next.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import reference, scraping
from bench.adding import Adder, BenchPod
from bench.reference import ReferenceNode, ReferencePod
from bench.spawning import Command, run, run_together
from deltaplane.errors import Internal
from lab import cni, netns
from lab.cluster import Lab
from lab.programs import agent_name

NODE = "node-1"
FULL = 250
"""Pods on the node before anything is measured: kubelet's usual limit."""

ROUND = 10
"""ADDs of each kind in a round."""

REST_SECONDS = 0.02
"""Before each ADD; what follows an ADD (the barrier on other nodes, a checkpoint) takes less."""

TRUE = Path("/bin/true")
CALL = ("cni_call_seconds", "ADD")
WAITS = ("waiting", "policy")
PROCESSES = ("endpoints", "slicer", "etcd")


@dataclass(slots=True)
class Kind:
    """The ADDs of one kind.

    Attributes:
        seconds: from the start of the binary to its end, one for each ADD.
        local: the same without the waits for the registry and for the policies.
        cpu: CPU seconds of all processes that take part, one for each ADD.
        stages: seconds inside the agent by stage, one for each ADD.
        failures: ADDs that ended with an error; they are in no list.
    """

    seconds: list[float] = field(default_factory=list)
    local: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    failures: int = 0


@dataclass(slots=True)
class Together:
    """Concurrent ADDs. seconds: of each; total: from the first start to the last end."""

    seconds: list[float] = field(default_factory=list)
    total: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Full:
    """A full node, and a full node of the reference if that is installed."""

    lab: Lab
    adder: Adder
    other: ReferenceNode | None

    def add(self, pod: BenchPod, kind: Kind) -> None:
        """Adds a pod of ours and says where the time went."""
        admin = self.lab.layout.node(NODE).agent_admin
        pids = self._pids()
        time.sleep(REST_SECONDS)
        before, cpu = scraping.histogram_sums(admin), _cpu(pids)
        finished = run(pod.command("ADD"))
        spent = _cpu(pids) - cpu
        after = scraping.histogram_sums(admin)
        if finished.code:
            kind.failures += 1
            return
        stages = _stages(before, after)
        waited = sum(stages.get(stage, 0.0) for stage in WAITS)
        kind.seconds.append(finished.seconds)
        kind.local.append(finished.seconds - waited)
        kind.cpu.append(finished.cpu_seconds + spent)
        stages["shim"] = finished.seconds - (after.get(CALL, 0.0) - before.get(CALL, 0.0))
        for stage, seconds in stages.items():
            kind.stages.setdefault(stage, []).append(seconds)

    def add_reference(self, pod: ReferencePod, kind: Kind) -> None:
        """Adds a pod of the reference."""
        time.sleep(REST_SECONDS)
        with self._at_reference():
            finished = run(pod.command("ADD"))
        if finished.code:
            kind.failures += 1
            return
        kind.seconds.append(finished.seconds)
        kind.cpu.append(finished.cpu_seconds)

    def together(self, pods: Sequence[BenchPod]) -> Together:
        """Adds pods of ours at the same time."""
        return _together([pod.command("ADD") for pod in pods])

    def together_at_reference(self, pods: Sequence[ReferencePod]) -> Together:
        """Adds pods of the reference at the same time."""
        with self._at_reference():
            return _together([pod.command("ADD") for pod in pods])

    def delete_reference(self, pods: Sequence[ReferencePod]) -> None:
        """Deletes pods of the reference, so that the node has as many as before."""
        with self._at_reference():
            for pod in pods:
                run(pod.command("DEL"))

    @contextmanager
    def _at_reference(self) -> Iterator[None]:
        assert self.other is not None
        with netns.entered(self.other.netns):
            yield

    def _pids(self) -> list[int]:
        states = self.lab.status().processes
        running = (states[name].process for name in (*PROCESSES, agent_name(NODE)))
        return [process.pid for process in running if process is not None]


@contextmanager
def full_node(lab: Lab) -> Iterator[Full]:
    """Fills a node of a lab, and one of the reference.

    Raises:
        Internal: a pod could not be added.
    """
    adder = Adder(lab)
    with ExitStack() as stack:
        other = None
        if reference.is_installed():
            other = stack.enter_context(reference.node(f"dp-{lab.layout.lab}"))
        for pod in stack.enter_context(adder.pods(NODE, FULL, distinct=False)):
            cni.add(pod.attachment)
        full = Full(lab, adder, other)
        if other is not None:
            filled = Kind()
            for reference_pod in other.pods(FULL):
                full.add_reference(reference_pod, filled)
            if filled.failures:
                raise Internal(f"{filled.failures} of {FULL} pods of the reference failed")
        yield full


def measure(full: Full, count: int) -> Mapping[str, Kind]:
    """Measures so many ADDs of each kind, one after another."""
    known, new, other = Kind(), Kind(), Kind()
    for start in range(0, count, ROUND):
        size = min(ROUND, count - start)
        theirs = full.other.pods(size) if full.other else []
        with (
            full.adder.pods(NODE, size, distinct=False) as same,
            full.adder.pods(NODE, size, distinct=True) as distinct,
        ):
            for number in range(size):
                full.add(same[number], known)
                if theirs:
                    full.add_reference(theirs[number], other)
                full.add(distinct[number], new)
        if theirs:
            full.delete_reference(theirs)
    kinds = {"known": known, "new": new}
    return kinds | ({"reference": other} if full.other else {})


def measure_together(full: Full, count: int) -> Mapping[str, Together]:
    """Measures so many ADDs at the same time."""
    found = {}
    for name, distinct in (("known", False), ("new", True)):
        with full.adder.pods(NODE, count, distinct=distinct) as pods:
            time.sleep(REST_SECONDS)
            found[name] = full.together(pods)
    if full.other:
        found["reference"] = full.together_at_reference(full.other.pods(count))
    return found


def floor(count: int) -> list[float]:
    """What starting a process costs alone, seconds."""
    command = Command(program=TRUE, environment={})
    return [run(command).seconds for _ in range(count)]


def _together(commands: Sequence[Command]) -> Together:
    finished, total = run_together(commands)
    good = [process.seconds for process in finished if not process.code]
    return Together(seconds=good, total=total, failures=len(finished) - len(good))


def _stages(before: scraping.Sums, after: scraping.Sums) -> dict[str, float]:
    """Seconds by stage between two readings."""
    return {
        stage: total - before.get((name, stage), 0.0)
        for (name, stage), total in after.items()
        if name == "cni_add_stage_seconds"
    }


def _cpu(pids: Sequence[int]) -> float:
    return sum(map(scraping.cpu_seconds, pids))

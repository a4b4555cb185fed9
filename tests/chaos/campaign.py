"""One campaign: a lab, a story of faults, churn meanwhile, and the checks at the end."""

import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from deltaplane.errors import DeltaplaneError
from lab import Lab, LabConfig
from tests.chaos import checks, clocks, pings, world
from tests.chaos.churn import Churn
from tests.chaos.disk import small_disk
from tests.chaos.faults import Faults, cast_of, play
from tests.chaos.spray import spraying
from tests.chaos.story import BRISK, Event, Pace, events

REPLICAS = 2
HEALED_SECONDS = 90.0
"""How long everything may take to be as it should once nothing fails any more."""

POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What to do.

    Attributes:
        seed: decides the order of faults and of changes.
        nodes: of the lab.
        seconds: how long faults begin; None: until `faults` have been.
        logs: folder for the logs of the lab; None: they go with it.
        tls: processes show each other certificates.
    """

    seed: int
    name: str
    nodes: int = 5
    seconds: float | None = None
    faults: int | None = None
    pace: Pace = field(default_factory=Pace)
    logs: Path | None = None
    tls: bool = False

    @classmethod
    def short(cls, seed: int, name: str) -> "Campaign":
        """All kinds of faults once, on as few nodes as show anything."""
        return cls(seed=seed, name=name, nodes=2, faults=10, pace=BRISK)

    def story(self, lab: Lab) -> Iterator[Event]:
        """What happens."""
        pace = replace(self.pace, jumps_end=self.tls)
        return events(self.seed, cast_of(lab), pace, self.faults, self.seconds)


@dataclass(slots=True)
class Outcome:
    """What came of it. problems: what did not hold; measured: what was counted, for people."""

    problems: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)


class Log:
    """Tells what happens, with the seconds since the beginning."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        self._write(f"{time.monotonic() - self._began:8.2f}  {text}")


def run(campaign: Campaign, write: Callable[[str], None]) -> Outcome:
    """Carries out a campaign. Leaves nothing behind, whatever happens."""
    tell = Log(write)
    tell(f"seed {campaign.seed}")
    outcome = Outcome()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dp-chaos-")))
        with clocks.movable(folder):
            config = LabConfig(
                name=campaign.name, nodes=campaign.nodes, replicas=REPLICAS, tls=campaign.tls
            )
            lab = stack.enter_context(Lab.up(config))
        tell(f"{len(lab.status().processes)} processes serve")
        try:
            _on(lab, folder, campaign, tell, outcome)
        except DeltaplaneError as error:
            outcome.problems.append(f"it broke off: {error}")
        if campaign.logs is not None:
            shutil.copytree(lab.layout.logs, campaign.logs, dirs_exist_ok=True)
    for text in (*outcome.measured, *outcome.problems):
        tell(text)
    tell(
        f"seed {campaign.seed}: "
        + (f"{len(outcome.problems)} problems" * bool(outcome.problems) or "all of it held")
    )
    return outcome


def _on(lab: Lab, folder: Path, campaign: Campaign, tell: Log, outcome: Outcome) -> None:
    others = tuple(Lab(lab.layout, lab.topology, replica) for replica in range(2, REPLICAS + 1))
    nodes = tuple(node.name for node in lab.topology.nodes)
    with ExitStack() as stack:
        for other in others:
            stack.callback(other.client.close)
        disk = stack.enter_context(small_disk(lab, nodes[-1]))
        spray = stack.enter_context(spraying())
        churn = Churn((lab, *others), spray, tell)
        stack.callback(churn.close)
        churn.begin()
        paths = list(_paths(lab))
        pinging = stack.enter_context(pings.pinging(paths))
        faults = Faults(lab, disk, folder)
        stack.callback(faults.heal)
        changing = threading.Thread(target=churn.run, args=(world.steps(campaign.seed, nodes),))
        changing.start()
        try:
            play(faults, campaign.story(lab), tell)
        finally:
            faults.heal()
            tell("every fault has ended")
            churn.stop()
            changing.join(HEALED_SECONDS)
        if changing.is_alive():
            outcome.problems.append(f"a change was refused for {HEALED_SECONDS:g} s without faults")
            return
        _conclude(lab, churn, tell, outcome)
        verdict = pings.judge(paths, pinging.end(), faults.cuts)
    outcome.problems += [f"a ping was lost at {text}" for text in verdict.lost]
    outcome.measured.append(
        f"pings: {verdict.sent}, lost {len(verdict.lost)}, "
        f"and {verdict.excused} on paths of nodes whose uplink was cut"
    )


def _conclude(lab: Lab, churn: Churn, tell: Log, outcome: Outcome) -> None:
    started = time.monotonic()
    if waiting := _await_serving(lab):
        outcome.problems.append(f"not back after {HEALED_SECONDS:g} s: {', '.join(waiting)}")
        return
    churn.settle()
    outcome.problems += churn.problems
    outcome.measured.append(
        f"churn: {churn.done} steps, {churn.received} packets received where that is allowed"
    )
    if not churn.received:
        outcome.problems.append(
            "nobody was reached at all: that nobody was who must not shows nothing"
        )
    outcome.measured.append(f"whole again {time.monotonic() - started:.1f} s after the last fault")
    for name, found in (
        ("agents", checks.agents(lab)),
        ("addresses", checks.addresses(lab)),
        ("kernels", checks.kernels(lab)),
        ("services", checks.services(lab, churn.world)),
        ("packets", checks.packets(lab, outcome.measured)),
    ):
        problems = list(found)
        tell(f"check {name}: " + (f"{len(problems)} problems" if problems else "holds"))
        outcome.problems += problems


def _await_serving(lab: Lab) -> tuple[str, ...]:
    """Waits until all processes serve; those that do not."""
    deadline = time.monotonic() + HEALED_SECONDS
    while time.monotonic() < deadline:
        if lab.status().ready:
            return ()
        time.sleep(POLL_SECONDS)
    return lab.status().waiting_for


def _paths(lab: Lab) -> Iterator[pings.Path]:
    """Between any two of those who stay, both families."""
    still = [pod for pod in lab.pods if pod.namespace == world.STILL]
    for source, target in itertools.combinations(still, 2):
        for address in target.addresses:
            yield pings.Path(
                nodes=(source.node, target.node),
                namespace=lab.pod_namespace(source),
                address=address,
            )

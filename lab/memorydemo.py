"""The demonstration where no packet can be sent: the same cluster, its tables judged instead.

Every line of it carries its label, or stands under a heading that does. What it shows is that the
control plane came to the right tables on every node, not that a kernel enforces them.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from deltaplane.cli import output
from deltaplane.cli.output import Record, table_of
from deltaplane.errors import DeltaplaneError
from deltaplane.store.embedded import find_etcd
from lab import manifests
from lab.cluster import LabConfig
from lab.demo import DENIALS_SHOWN, WIDTH, DemoConfig
from lab.expectation import World
from lab.inmemory import MemoryLab
from lab.judging import Outcome
from lab.probing import Question
from lab.telling import Teller, Words

LABEL = "in memory"
VICTIMS = (("slicer", "ipam", "endpoints"), ("etcd",), ("agent-node-1",))
"""Killed one group after the other, each at once."""

SPARED = "{path} is not killed: it can lose the last writes that it has answered"

NO_PACKET = "no packet is sent and none is stopped"


def run(config: DemoConfig, lacks: Sequence[str] = (), console: Console | None = None) -> bool:
    """Tells the story; returns whether all of it held.

    Args:
        config: what to show; name and number of nodes count.
        lacks: why it is in memory, one sentence each; none: it was asked for.
        console: to print on; None: standard output.

    Raises:
        DeltaplaneError: there is no etcd, or something broke on the way.
    """
    words = Words(
        label=LABEL,
        adding="Pods, added on the agents' CNI sockets",
        added="CNI ADD on the agent's socket, no link made",
        enforced="policies in the tables of all nodes",
        asked="verdicts",
    )
    teller = Teller(console or output.console(WIDTH), words)
    teller.line(f"{NO_PACKET}: verdicts are computed from the tables that the agents keep")
    _say_why(teller, lacks)
    began = time.monotonic()
    shop = manifests.read([config.shop])
    lab = MemoryLab.up(LabConfig(name=config.name, nodes=config.nodes), teller.step)
    teller.found.note("lab up", f"{time.monotonic() - began:.1f} s")
    try:
        teller.story(
            lab,
            shop,
            denials=lambda: _denials(lab, teller),
            kills=lambda: _kills(lab, teller),
        )
    except DeltaplaneError as error:
        teller.found.problems.append(str(error))
    finally:
        lab.down(teller.step)
    teller.found.note("whole demonstration", f"{time.monotonic() - began:.1f} s")
    held = teller.conclude()
    if held:
        teller.line("everything held; no packet was sent", "bold green")
    else:
        teller.line("FAILED; no packet was sent", "bold red")
    return held


def _say_why(teller: Teller, lacks: Sequence[str]) -> None:
    if not lacks:
        teller.line("as --in-memory asks for")
        return
    teller.line("for packets this machine lacks:")
    for line in lacks:
        teller.line(f"  - {escape(line)}")


def _denials(lab: MemoryLab, teller: Teller) -> None:
    denied = denied_pairs(lab.outcomes(), lab.world())
    teller.found.expect(held=bool(denied), problem="the policies deny nothing")
    shown = denied[:DENIALS_SHOWN]
    if shown:
        teller.line(f"Who would deny what ({len(shown)} of {len(denied)} pairs):")
        teller.out.print(table_of(shown))


def denied_pairs(outcomes: Mapping[Question, Outcome], world: World) -> list[Record]:
    """What policies would stop, by owner of the pods and port, the most frequent first. Pure."""
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for question, outcome in outcomes.items():
        if outcome not in (Outcome.EGRESS, Outcome.INGRESS):
            continue
        ends = (world.pods[question.source], world.pods[question.destination])
        is_ingress = outcome is Outcome.INGRESS
        policies = ", ".join(world.closing(ends[is_ingress], ingress=is_ingress))
        source, destination = (f"{pod.namespace}/{pod.owner or pod.name}" for pod in ends)
        traffic = f"{question.protocol}/{question.port}"
        direction = "ingress" if is_ingress else "egress"
        counted[source, destination, traffic, f"{direction}: {policies}"] += 1
    return [
        {"from": source, "to": to, "verdicts": count, "traffic": traffic, "denied by": by}
        for (source, to, traffic, by), count in sorted(
            counted.items(), key=lambda item: (-item[1], item[0])
        )
    ]


class Watcher:
    """Looks at the tables while a process is away."""

    def __init__(self, lab: MemoryLab) -> None:
        self._lab = lab
        self._written = lab.written()
        self._before = lab.outcomes(self._written)
        self.looks = 0
        self.changed = 0

    def look(self) -> None:
        """Counts verdicts that are no longer what they were."""
        self.looks += 1
        written = self._lab.written()
        # The same tables give the same verdicts.
        if written != self._written:
            self._written = written
            now = self._lab.outcomes(written)
            self.changed += sum(now[question] is not was for question, was in self._before.items())


def victims(*, spares_etcd: bool) -> tuple[tuple[str, ...], ...]:
    """Who is killed; an etcd that forgets would show what is not ours to mend."""
    return tuple(group for group in VICTIMS if not (spares_etcd and group == ("etcd",)))


def _kills(lab: MemoryLab, teller: Teller) -> None:
    teller.heading("Killing one process of each kind, the tables under watch")
    rows: list[Record] = []
    looks = changed = 0
    etcd = find_etcd()
    if etcd.forgets:
        teller.line(escape(SPARED.format(path=etcd.path)))
    groups = victims(spares_etcd=etcd.forgets)
    for names in groups:
        watcher = Watcher(lab)
        started = time.monotonic()
        before = {name: lab.kill(name) for name in names}
        for name, was in before.items():
            lab.await_restart(name, was, meanwhile=watcher.look)
        away = time.monotonic() - started
        watcher.look()
        looks, changed = looks + watcher.looks, changed + watcher.changed
        rows.append(
            {
                "kill -9": ", ".join(names),
                "serves again after": f"{away:.2f} s",
                "looks at the tables": watcher.looks,
                "verdicts changed": watcher.changed,
            }
        )
    teller.out.print(table_of(rows))
    kills = sum(map(len, groups))
    teller.found.note(f"verdicts changed through {kills} kills", f"{changed} in {looks} looks")
    teller.found.expect(held=changed == 0, problem=f"{changed} verdicts changed during the kills")

"""The demonstration: a web shop, its policies, and no packet lost while everything dies.

Nothing is printed that was not measured, and it succeeds only if all of it held. Where the machine
cannot do it, `lab.memorydemo` shows what can be shown without packets; `choose` decides.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deltaplane.cli import output
from deltaplane.cli.output import table_of
from deltaplane.errors import DeltaplaneError, Refused
from lab import binaries, denials, killing, manifests, preflight
from lab.cluster import Lab, LabConfig
from lab.killing import Kill
from lab.telling import Teller, Words
from lab.topology import DEFAULT_MTU

SHOP = binaries.shop()
FLOOD_SOURCE = "monitoring/prober-1"
DENIALS_SHOWN = 20
WIDTH = 120
"""Columns where the output is no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """What to show. keep: leave the lab running; shop: the manifests; the rest as in LabConfig."""

    name: str = "demo"
    nodes: int = 3
    routing: str = "native"
    mtu: int = DEFAULT_MTU
    keep: bool = False
    tls: bool = False
    shop: Path = SHOP

    @property
    def needs_packets(self) -> tuple[str, ...]:
        """Options that mean nothing in memory."""
        given = {
            "--keep": self.keep,
            "--tls": self.tls,
            f"--routing {self.routing}": self.routing != "native",
            f"--mtu {self.mtu}": self.mtu != DEFAULT_MTU,
        }
        return tuple(option for option, is_given in given.items() if is_given)


def choose(config: DemoConfig, lacks: Sequence[str], *, asked: bool | None = None) -> bool:
    """Whether to run in memory. Pure.

    Args:
        config: what to show.
        lacks: what the machine lacks for packets, one sentence each.
        asked: for one or the other; None: whatever the machine can do.

    Raises:
        Refused: it cannot be shown as it was asked for.
    """
    wanted = bool(lacks) if asked is None else asked
    if not wanted:
        if lacks:
            raise Refused(preflight.complaint(lacks))
        return False
    if unmet := config.needs_packets:
        reason = f"{', '.join(unmet)}: not in memory, where there are no links and no packets"
        raise Refused(f"{reason}; {preflight.complaint(lacks)}" if lacks else reason)
    return True


def run(config: DemoConfig, console: Console | None = None) -> bool:
    """Tells the whole story; returns whether all of it held.

    Raises:
        DeltaplaneError: the machine cannot run a lab, or something broke on the way.
    """
    teller = Teller(console or output.console(WIDTH), Words())
    found = teller.found
    began = time.monotonic()
    shop = manifests.read([config.shop])
    lab = Lab.up(
        LabConfig(
            name=config.name,
            nodes=config.nodes,
            routing=config.routing,
            mtu=config.mtu,
            tls=config.tls,
        ),
        teller.step,
    )
    found.note("lab up", f"{time.monotonic() - began:.1f} s")
    try:
        teller.story(
            lab,
            shop,
            denials=lambda: _denials(lab, teller),
            kills=lambda: _kills(lab, teller),
        )
    except DeltaplaneError as error:
        found.problems.append(str(error))
    finally:
        if config.keep:
            teller.line(f"\nthe lab keeps running: deltaplane lab status --name {config.name}")
        else:
            lab.down(teller.step)
    found.note("whole demonstration", f"{time.monotonic() - began:.1f} s")
    held = teller.conclude()
    teller.line("everything held" if held else "FAILED", "bold green" if held else "bold red")
    return held


def _denials(lab: Lab, teller: Teller) -> None:
    denied = denials.grouped(denials.collect(lab))
    teller.found.expect(
        held=bool(denied), problem="the policies denied packets but no agent counted one"
    )
    shown = denied[:DENIALS_SHOWN]
    if shown:
        teller.line(f"Who denied what ({len(shown)} of {len(denied)} pairs):")
        teller.out.print(
            table_of(
                [
                    {
                        "from": item.source,
                        "to": item.destination,
                        "packets": item.packets,
                        "traffic": item.traffic,
                        "denied by": f"{item.direction}: {', '.join(item.policies)}",
                    }
                    for item in shown
                ]
            )
        )


def _kills(lab: Lab, teller: Teller) -> None:
    source, destinations = killing.choose_pair(lab.pods, FLOOD_SOURCE)
    teller.heading("Killing every process under pings at 1 kHz")
    teller.line(
        f"{source.reference} on {source.node} pings "
        + ", ".join(f"{pod.reference} on {pod.node}" for pod in destinations)
        + ", IPv4 and IPv6"
    )
    kills = killing.kill_all(lab, source, destinations)
    teller.out.print(table_of([_kill_row(kill) for kill in kills]))
    sent, lost = sum(kill.sent for kill in kills), sum(kill.lost for kill in kills)
    teller.found.note(f"packets lost through {len(kills) - 1} kills", f"{lost} of {sent}")
    teller.found.expect(held=lost == 0, problem=f"{lost} of {sent} packets lost during the kills")


def _kill_row(kill: Kill) -> dict[str, str | int | float]:
    return {
        "kill -9": kill.process,
        "packets": kill.sent,
        "lost": kill.lost,
        "serves again after": f"{kill.away_seconds:.2f} s" if kill.away_seconds else "",
        "worst round trip": f"{kill.worst_ms:.1f} ms",
    }

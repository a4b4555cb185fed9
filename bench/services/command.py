"""`python -m bench services`: the options, the report."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.datapath.command import Family, Format
from bench.datapath.generator import Load
from bench.services.measuring import FAMILIES, LOADS, Plan, measure
from bench.services.network import Proxy
from bench.services.report import Comparison, compare
from deltaplane.errors import DeltaplaneError

EPILOG = """Examples:

python -m bench services

python -m bench services --proxy deltaplane --proxy iptables-nft --family ipv4

python -m bench services --rounds 30 -o json
"""

TITLES = {Load.CRR: "TCP_CRR", Load.RR: "TCP_RR"}


def services(
    *,
    rounds: Annotated[
        int, typer.Option(min=2, help="in each, every proxy has a turn with every service and load")
    ] = 10,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="of a turn")] = 0.2,
    proxy: Annotated[
        list[Proxy] | None, typer.Option(help="besides direct; may be repeated")
    ] = None,
    family: Annotated[list[Family] | None, typer.Option(help="may be repeated")] = None,
    load: Annotated[list[Load] | None, typer.Option(help="crr or rr; may be repeated")] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="for people or for machines")
    ] = Format.TABLE,
) -> None:
    """What a connection to a service costs, beside a direct one and kube-proxy's rules.

    The published shape: one service with 4000 backends, 800 with 20. Both ends have a processor
    each; all proxies have their turns right after each other. Fails if a transaction does.
    """
    # Ended from outside, it still takes its namespaces and its cgroup down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chosen = dict.fromkeys((Proxy.DIRECT, *(proxy or Proxy)))
    plan = Plan(
        name=f"dpb{os.getpid()}",
        rounds=rounds,
        seconds=seconds,
        proxies=tuple(chosen),
        families=tuple(map(str, family or ())) or tuple(FAMILIES),
        loads=[wanted for wanted in (load or LOADS) if wanted in LOADS],
    )
    try:
        found = list(map(compare, measure(plan, _progress)))
    except (DeltaplaneError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    if output is Format.JSON:
        print(json.dumps(list(map(asdict, found)), indent=2))
    else:
        # Piped, a console takes itself for narrow.
        Console(width=None if sys.stdout.isatty() else 120).print(_table(found, rounds))
    if any(comparison.failures for comparison in found):
        print("transactions failed", file=sys.stderr)
        raise typer.Exit(1)


def _progress(text: str) -> None:
    print(text, file=sys.stderr)


def _table(found: Sequence[Comparison], rounds: int) -> Table:
    made = Table(title=f"801 services, 20,000 backends, {rounds} rounds")
    made.add_column("what", no_wrap=True)
    made.add_column("", no_wrap=True)
    for heading in ("p50 us", "p99 us", "failed", "of direct", "95 % interval"):
        made.add_column(heading, justify="right")
    for comparison in found:
        title = f"{TITLES[Load(comparison.load)]}, {comparison.service}, {comparison.family}"
        for line in comparison.lines:
            ratio = line.of_direct
            made.add_row(
                title,
                line.proxy,
                f"{line.p50_us:.1f}",
                f"{line.p99_us:.1f}",
                str(line.failures),
                f"{ratio.mean:.2f}" if ratio else "",
                f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "",
            )
            title = ""
        made.add_section()
    return made

"""`python -m bench pinger`: the options, the report."""

import json
import signal
import statistics
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.datapath.command import Format
from bench.services.pinger_report import Ratio, Row, ratio, rows
from bench.services.pinging import Found, Plan, ping
from deltaplane.errors import DeltaplaneError


def pinger(
    *,
    rounds: Annotated[int, typer.Option(min=2, help="turns of each place")] = 10,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="of a turn")] = 5.0,
    per_second: Annotated[
        int, typer.Option(min=1, max=1000, help="pods that are replaced, and services updated")
    ] = 100,
    nodes: Annotated[int, typer.Option(min=2, max=20, help="of the lab")] = 3,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="for people or for machines")
    ] = Format.TABLE,
) -> None:
    """HTTP requests to a service each 10 ms while pods come and go and 801 services are updated.

    Beside requests straight to its backends, and kube-proxy's rules in iptables-nft, which are
    written anew for as many changes. Fails if a request does.
    """
    # Ended from outside, it still takes its lab and namespaces down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plan = Plan(rounds=rounds, seconds=seconds, per_second=per_second, nodes=nodes)
    try:
        found = ping(plan, lambda text: print(text, file=sys.stderr))
    except (DeltaplaneError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    lines = [row for pings in found.pings for row in rows(pings)]
    ratios = [ratio(pings) for pings in found.pings]
    if output is Format.JSON:
        document = {"rows": list(map(asdict, lines)), "ratios": list(map(asdict, ratios))}
        print(json.dumps({**document, "changes": changes(found)}, indent=2))
    else:
        # Piped, a console takes itself for narrow.
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(_table(lines))
        console.print(_ratio_table(ratios))
        for text in changes(found):
            console.print(text)
    if any(one.failed for one in ratios):
        print("requests failed", file=sys.stderr)
        raise typer.Exit(1)


def changes(found: Found) -> list[str]:
    """What happened meanwhile."""
    texts = [
        f"{place.value}: {found.replaced[place] / found.seconds[place]:.0f} pods replaced a second"
        for place in found.replaced
    ]
    texts[0] += f", {found.late} of the tenths of a second began late"
    if found.syncs:
        median = statistics.median(found.syncs)
        texts[1] += f", {len(found.syncs)} syncs took {median:.2f} s each (median)"
    return texts


def _table(lines: list[Row]) -> Table:
    made = Table(title="HTTP requests, microseconds")
    for heading in ("place", "family", "to"):
        made.add_column(heading, no_wrap=True)
    for heading in ("n", "p50", "p90", "p99", "p99.9", "max"):
        made.add_column(heading, justify="right")
    for row in lines:
        figures = (row.p50_us, row.p90_us, row.p99_us, row.p999_us, row.max_us)
        made.add_row(
            row.place,
            f"IPv{row.family}",
            row.what,
            str(row.count),
            *(f"{figure:.0f}" for figure in figures),
        )
    return made


def _ratio_table(ratios: list[Ratio]) -> Table:
    made = Table(title="The service as a multiple of its backends (95 % interval)")
    for heading in ("place", "family", "p50", "p99", "failed"):
        made.add_column(heading, no_wrap=True)
    for one in ratios:
        texts = (f"{it.mean:.2f} ({it.low:.2f} to {it.high:.2f})" for it in (one.p50, one.p99))
        made.add_row(one.place, f"IPv{one.family}", *texts, str(one.failed or 0))
    return made

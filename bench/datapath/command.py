"""`python -m bench datapath`: the options, the report."""

import enum
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.datapath.comparing import Interval
from bench.datapath.generator import Load
from bench.datapath.measuring import FAMILIES, Plan, measure
from bench.datapath.report import LIMIT, Comparison, Line, compare
from deltaplane.errors import DeltaplaneError

EPILOG = """Examples:

python -m bench datapath

python -m bench datapath --entries 1 --entries 10000 --load udp --family ipv6

python -m bench datapath --rounds 40 -o json
"""

ENTRIES = (1, 100, 10_000)
COLUMNS = 110
TITLES = {
    Load.UDP: "CPU of a packet",
    Load.RR: "TCP_RR, p50",
    Load.CRR: "TCP_CRR, p50",
}


class Format(enum.StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"


class Family(enum.StrEnum):
    """Address families."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"


def datapath(
    *,
    rounds: Annotated[
        int, typer.Option(min=2, help="in each, every variant has a turn with every load")
    ] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="of a turn")] = 0.2,
    entries: Annotated[
        list[int] | None,
        typer.Option(min=1, max=50_000, help="of each policy set; may be repeated"),
    ] = None,
    family: Annotated[list[Family] | None, typer.Option(help="may be repeated")] = None,
    load: Annotated[list[Load] | None, typer.Option(help="may be repeated")] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="for people or for machines")
    ] = Format.TABLE,
) -> None:
    """What a packet between two nodes costs, as a multiple of what plain kernel routing costs.

    Two nodes with a pod each, with our programs and without, in turn; for each number of policy
    entries a pair of its own. Fails if a packet, a transaction or a connection does.
    """
    # Ended from outside, it still takes its namespaces down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plan = Plan(
        name=f"dpb{os.getpid()}",
        rounds=rounds,
        seconds=seconds,
        entries=sorted(set(entries or ENTRIES)),
        families=tuple(map(str, family or ())) or FAMILIES,
        loads=tuple(load or Load),
    )
    try:
        found = list(map(compare, measure(plan, _progress)))
    except (DeltaplaneError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    if output is Format.JSON:
        print(json.dumps(list(map(asdict, found)), indent=2))
    else:
        # A row that is wrapped cannot be read.
        Console(width=max(Console().width, COLUMNS)).print(_table(found, rounds))
    if any(comparison.failures for comparison in found):
        print("packets were lost, or transactions failed", file=sys.stderr)
        raise typer.Exit(1)


def _progress(text: str) -> None:
    print(text, file=sys.stderr)


def _table(found: Sequence[Comparison], rounds: int) -> Table:
    made = Table(title=f"Between two nodes, {rounds} rounds", caption=f"within: at most {LIMIT}")
    made.add_column("what", no_wrap=True)
    made.add_column("", no_wrap=True)
    for heading in ("rounds", "us", "failed", "of plain", "95 % interval", "within"):
        made.add_column(heading, justify="right", no_wrap=True)
    for comparison in found:
        title = f"{TITLES[Load(comparison.load)]}, {comparison.family}"
        for row in _rows(comparison):
            made.add_row(title, *row)
            title = ""
        made.add_section()
    return made


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    plain = comparison.plain
    yield (
        "plain routing",
        str(comparison.rounds),
        f"{plain.median_ns / 1000:.2f}",
        str(plain.failures),
    )
    for line in comparison.lines:
        yield _row(line)
    if comparison.tenfold is not None:
        yield "ten times the entries", "", "", "", *_ratio(comparison.tenfold)


def _row(line: Line) -> tuple[str, ...]:
    of_plain = line.of_plain
    assert of_plain is not None, "only the plain line has none"
    return (
        f"{line.entries} entries",
        "",
        f"{line.median_ns / 1000:.2f}",
        str(line.failures),
        *_ratio(of_plain),
        "yes" if of_plain.high <= LIMIT else "no",
    )


def _ratio(interval: Interval) -> tuple[str, str]:
    return f"{interval.mean:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"

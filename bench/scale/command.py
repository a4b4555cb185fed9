"""`python -m bench scale`: the options, the progress, the output."""

import enum
import json
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.scale import plots
from bench.scale.decoding import Level
from bench.scale.plane import has_span
from bench.scale.report import tables
from bench.scale.runs import Load, Options, modes_of, run, wrong

EPILOG = """Examples:

python -m bench scale

python -m bench scale --nodes 20 --seconds 5

python -m bench scale --mode slice --mode delta --load batches -o json

python -m bench scale --load registered --load reconnect --mode delta --out results
"""

MODES = ("endpoint", "slice", "delta")
SPANS = ("all", "scoped")


class ModeChoice(enum.StrEnum):
    """Ways of delivery."""

    ALL = "all"
    ENDPOINT = "endpoint"
    SLICE = "slice"
    DELTA = "delta"


class SpanChoice(enum.StrEnum):
    """What an agent gets in mode delta."""

    BOTH = "both"
    ALL = "all"
    SCOPED = "scoped"


class Format(enum.StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"


def scale(
    *,
    nodes: Annotated[int, typer.Option(min=2, max=10_000, help="agents")] = 1000,
    connected: Annotated[
        int, typer.Option(min=0, max=10_000, help="agents of the first nodes; 0: of all")
    ] = 0,
    pods_per_node: Annotated[int, typer.Option(min=1, max=200, help="at the start")] = 20,
    mode: Annotated[
        list[ModeChoice] | None, typer.Option(help="ways of delivery; repeatable")
    ] = None,
    span: Annotated[
        SpanChoice, typer.Option(help="what an agent gets in mode delta")
    ] = SpanChoice.BOTH,
    load: Annotated[
        list[Load] | None,
        typer.Option(help="what to measure; repeatable; shape is churn, rolling and startup"),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=1, help="changes a second; a replaced pod is two")
    ] = 100.0,
    seconds: Annotated[float, typer.Option(min=1, help="of churn and of the replay")] = 20.0,
    startups: Annotated[int, typer.Option(min=1, help="pods whose start is measured")] = 20,
    processes: Annotated[int, typer.Option(min=1, max=16, help="of raw agents")] = 2,
    controls: Annotated[int, typer.Option(min=1, max=200, help="agents on grpc.aio")] = 20,
    decode: Annotated[
        Level, typer.Option(help="what every agent decodes itself; see the how-to")
    ] = Level.PARSED,
    seed: Annotated[int, typer.Option(help="of the loads")] = 0,
    cl2: Annotated[
        Path, typer.Option(help="generator of ClusterLoader2's trace, for --load cl2")
    ] = Path("../shared/oracles/load/cl2_load.py"),
    folder: Annotated[Path | None, typer.Option(help="for the data of etcd")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for report.json and plots")] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="for people or for machines")
    ] = Format.TABLE,
    fsync: Annotated[bool, typer.Option(help="etcd waits for the disk")] = True,
) -> None:
    """The delta stream beside one object per endpoint and whole slices, with simulated agents."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chosen = [one.value for one in mode or (ModeChoice.ALL,)]
    names = MODES if "all" in chosen else [name for name in MODES if name in chosen]
    options = Options(
        nodes=nodes,
        connected=min(connected, nodes),
        pods_per_node=pods_per_node,
        modes=modes_of(names, _spans(span)),
        loads=frozenset(load or (Load.SHAPE,)),
        rate=rate,
        seconds=seconds,
        startups=startups,
        fleets=processes,
        controls=controls,
        level=decode,
        seed=seed,
        cl2=cl2,
        folder=folder,
        fsync=fsync,
    )
    began = time.monotonic()
    report = run(options, lambda text: _progress(began, text))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for text in plots.draw(report, out):
            _progress(began, text)
    if output is Format.JSON:
        print(json.dumps(report, indent=2))
    else:
        console = Console()
        for table in tables(report):
            console.print(table)
    if mistakes := list(wrong(report)):
        for mistake in mistakes:
            print(mistake, file=sys.stderr)
        raise typer.Exit(1)


def _spans(choice: SpanChoice) -> tuple[str, ...]:
    if choice is SpanChoice.ALL:
        return ("all",)
    if not has_span():
        if choice is SpanChoice.SCOPED:
            raise typer.BadParameter("this slicer knows no span")
        return ("all",)
    return ("scoped",) if choice is SpanChoice.SCOPED else SPANS


def _progress(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr)

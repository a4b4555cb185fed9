"""`python -m bench`: what ADD costs, how soon a new pod answers, how soon an address is free again.

The first two are measured on a lab of their own.
"""

import asyncio
import enum
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from bench.adding import Adder, Samples, measure_adds
from bench.echo import first_answer
from bench.reuse import measure
from bench.summary import Summary, rows, summarize, table
from lab import cni
from lab.cluster import Lab, LabConfig

app = typer.Typer(help=__doc__, no_args_is_help=False, add_completion=False)

ANSWER_SECONDS = 5.0
WARM_UP = 3
"""ADDs that are made and not counted: the first one on a node loads what later ones find loaded."""


class Output(enum.StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"


Count = Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="pods to measure")]
Format = Annotated[Output, typer.Option("--output", "-o", help="for people or for machines")]


@contextmanager
def _lab(nodes: int) -> Iterator[Lab]:
    with Lab.up(LabConfig(name=f"bench{os.getpid() % 100000}", nodes=nodes)) as lab:
        yield lab


def _report(title: str, summaries: Sequence[Summary], output: Output) -> None:
    match output:
        case Output.JSON:
            print(json.dumps({"title": title, "rows": rows(summaries)}, indent=2))
        case Output.TABLE:
            Console().print(table(title, summaries))


def _adds(lab: Lab, count: int) -> list[Summary]:
    adder, summaries = Adder(lab), []
    with adder.pods("node-1", WARM_UP, distinct=False) as pods:
        measure_adds(pods, Samples())
        for name, distinct in (("known identity", False), ("new identity", True)):
            samples = Samples()
            with adder.pods("node-1", count, distinct=distinct) as measured:
                measure_adds(measured, samples)
            summaries.append(summarize(f"ADD, {name}", samples.seconds, samples.failures))
    return summaries


def _first_pings(lab: Lab, count: int) -> list[Summary]:
    adder = Adder(lab)
    samples = {"IPv4": Samples(), "IPv6": Samples()}
    with (
        adder.pods("node-2", 1, distinct=True) as [client],
        adder.pods("node-1", count, distinct=True) as pods,
    ):
        cni.add(client.attachment)
        for number, pod in enumerate(pods):
            # One family each: the second one would find the path warm.
            family = ("IPv4", "IPv6")[number % 2]
            added = cni.add(pod.attachment)
            target = next(a for a in added.addresses if (":" in a) == (family == "IPv6"))
            took = first_answer(client.netns, target, number + 1, ANSWER_SECONDS)
            if took is None:
                samples[family].failures += 1
            else:
                samples[family].seconds.append(took)
    return [
        summarize(f"first answer, {family}", found.seconds, found.failures)
        for family, found in samples.items()
        if found.seconds or found.failures
    ]


@app.command()
def add(count: Count = 100, output: Format = Output.TABLE) -> None:
    """Time of CNI ADD, from the start of the binary to its result, the pod's policies in force."""
    with _lab(nodes=1) as lab:
        _report("CNI ADD on one node", _adds(lab, count), output)


@app.command(name="first-ping")
def first_ping(count: Count = 40, output: Format = Output.TABLE) -> None:
    """Time from the end of ADD to the first echo reply to a pod on another node."""
    with _lab(nodes=2) as lab:
        _report("After ADD, from another node", _first_pings(lab, count), output)


@app.command()
def reuse(
    count: Count = 200,
    nodes: Annotated[int, typer.Option(min=1, max=1000, help="agents")] = 32,
    slicers: Annotated[int, typer.Option(min=1, max=8, help="replicas")] = 2,
    output: Format = Output.TABLE,
) -> None:
    """Time from the release of an address until its node may hand it out again, all agents live."""
    samples = asyncio.run(measure(nodes=nodes, slicers=slicers, count=count))
    name = f"release to free, {nodes} agents, {slicers} slicers"
    summary = summarize(name, samples.seconds, samples.failures)
    _report("Reuse of addresses", [summary], output)


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Without a command: all measurements, as tables."""
    if context.invoked_subcommand is None:
        with _lab(nodes=2) as lab:
            _report("CNI ADD on one node", _adds(lab, 100), Output.TABLE)
            _report("After ADD, from another node", _first_pings(lab, 40), Output.TABLE)


if __name__ == "__main__":
    app()

"""`python -m bench`: what ADD costs, how soon a new pod answers, how soon policies are in force.

Each on a lab of its own. `compile` is about many policies, `scale` about many agents, `datapath`
about what a packet costs, `services` about connections to services.
"""

import asyncio
import enum
import json
import os
import random
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import bridging, claiming, compiling, programming, registering, sealing
from bench.adding import Adder, Samples
from bench.datapath.command import EPILOG as DATAPATH_EPILOG
from bench.datapath.command import datapath
from bench.echo import first_answer
from bench.enforcing import enforce as measure_enforcing
from bench.fanning import fan_out
from bench.following import follow as follow_changes
from bench.reuse import measure as measure_reuse
from bench.rounds import FULL, Kind, Together, floor, full_node, measure, measure_together
from bench.scale.command import EPILOG, scale
from bench.services.command import EPILOG as SERVICES_EPILOG
from bench.services.command import services
from bench.services.pinger_command import pinger
from bench.services.programming import program as program_backends
from bench.summary import Summary, rows, summarize, table
from lab import cni
from lab.cluster import Lab, LabConfig
from lab.tightening import in_lab

app = typer.Typer(help=__doc__, no_args_is_help=False, add_completion=False)

ANSWER_SECONDS = 5.0
TOGETHER = 50
"""ADDs at once: a node that comes back with all its pods."""

FLOOR = 100
TITLES = {
    "known": "identity on the node",
    "new": "new identity",
    "reference": "ptp + host-local",
}


class Output(enum.StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"


Count = Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="pods to measure")]
Format = Annotated[Output, typer.Option("--output", "-o", help="for people or for machines")]


@contextmanager
def _lab(nodes: int) -> Iterator[Lab]:
    # Ended from outside, it still takes its lab down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Traced as in production, not as a lab by default.
    config = LabConfig(name=f"bench{os.getpid() % 100000}", nodes=nodes, trace_ratio=0.01)
    with Lab.up(config) as lab:
        yield lab


def _report(title: str, summaries: Sequence[Summary], output: Output) -> None:
    match output:
        case Output.JSON:
            print(json.dumps({"title": title, "rows": rows(summaries)}, indent=2))
        case Output.TABLE:
            # Piped, a console takes itself for narrow.
            Console(width=None if sys.stdout.isatty() else 120).print(table(title, summaries))


def _add_rows(kinds: Mapping[str, Kind]) -> list[Summary]:
    rows_ = [summarize("starting a process (true)", floor(FLOOR))]
    for name, title in TITLES.items():
        if (kind := kinds.get(name)) is not None:
            rows_.append(summarize(f"ADD, {title}", kind.seconds, kind.failures))
            if kind.local:
                rows_.append(summarize(f"  of it local, {title}", kind.local))
    return rows_


def _cpu_rows(kinds: Mapping[str, Kind]) -> list[Summary]:
    return [summarize(title, kinds[name].cpu) for name, title in TITLES.items() if name in kinds]


def _stage_rows(kinds: Mapping[str, Kind]) -> list[Summary]:
    return [
        summarize(f"{stage}, {TITLES[name]}", seconds)
        for name, kind in kinds.items()
        for stage, seconds in sorted(kind.stages.items())
    ]


def _together_rows(found: Mapping[str, Together]) -> list[Summary]:
    made = []
    for name, title in TITLES.items():
        if (result := found.get(name)) is not None:
            made.append(summarize(title, result.seconds, result.failures))
            made.append(summarize("  until the last one", [result.total]))
    return made


def _ratios(kinds: Mapping[str, Kind]) -> list[str]:
    """Ours against the reference: both medians and what one is of the other."""
    other = kinds.get("reference")
    if other is None or not other.seconds:
        return ["ptp and host-local are not installed: nothing to compare with"]
    theirs = summarize("", other.seconds).p50_ms
    lines = []
    for name in ("known", "new"):
        ours = summarize("", kinds[name].seconds).p50_ms
        lines.append(
            f"{TITLES[name]} : ptp + host-local = {ours:.2f} ms : {theirs:.2f} ms"
            f" = {ours / theirs:.2f}"
        )
    return lines


def _measure_adds(lab: Lab, count: int, output: Output) -> None:
    with full_node(lab) as full:
        kinds = measure(full, count)
        together = measure_together(full, TOGETHER)
    where = f"at {FULL} pods on the node"
    _report(f"CNI ADD {where}", _add_rows(kinds), output)
    _report(f"CPU of an ADD {where}, all processes", _cpu_rows(kinds), output)
    _report(f"Stages of an ADD {where}", _stage_rows(kinds), output)
    _report(f"{TOGETHER} ADDs at once {where}", _together_rows(together), output)
    if output is Output.TABLE:
        for line in _ratios(kinds):
            print(line)


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
        _measure_adds(lab, count, output)


@app.command(name="first-ping")
def first_ping(count: Count = 40, output: Format = Output.TABLE) -> None:
    """Time from the end of ADD to the first echo reply to a pod on another node."""
    with _lab(nodes=2) as lab:
        _report("After ADD, from another node", _first_pings(lab, count), output)


def _enforcing(lab: Lab, count: int, output: Output) -> None:
    with in_lab(lab) as (ground, pair):
        found = measure_enforcing(ground, pair, count)
    _report(
        "A policy is written, under traffic",
        [
            summarize("tighter: first packet denied", found.denied),
            summarize("looser: first packet let through", found.allowed),
            summarize("receipt complete", found.receipts),
        ],
        output,
    )


@app.command()
def enforce(count: Count = 300, output: Format = Output.TABLE) -> None:
    """Time from the call that writes a policy to the first packet that the kernel judges by it."""
    with _lab(nodes=1) as lab:
        _enforcing(lab, count, output)


def _programming(lab: Lab, count: int, seed: int, output: Output) -> None:
    found = program_backends(
        lab, count, random.Random(seed), lambda text: print(text, file=sys.stderr)
    )
    _report(
        f"A backend of 801 services comes or goes, {len(lab.topology.nodes)} nodes, seed {seed}",
        [
            summarize("a service with 20: last node's kernel", found.small),
            summarize("the one with 4000: last node's kernel", found.large),
            summarize("written, the call returns", found.written),
            summarize("all services, cold", [found.fill]),
        ],
        output,
    )


@app.command()
def backends(
    count: Count = 100,
    nodes: Annotated[int, typer.Option(min=1, max=20)] = 3,
    seed: int = 1,
    output: Format = Output.TABLE,
) -> None:
    """Time from the call that changes a backend of a service to the kernel of the last node.

    Each of so many backends goes and comes back: two changes, both families in one call.
    """
    with _lab(nodes=nodes) as lab:
        _programming(lab, count, seed, output)


@app.command()
def claims(  # noqa: PLR0917 - options, by name
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="claims to make")] = 20_000,
    nodes: Annotated[int, typer.Option(min=1, max=5000, help="nodes that claim")] = 64,
    at_once: Annotated[int, typer.Option(min=1, help="requests that a node has under way")] = 2,
    per_request: Annotated[
        list[int] | None,
        typer.Option("--per-request", min=1, max=64, help="claims of a request; may be repeated"),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="for the data of etcd")] = None,
    output: Format = Output.TABLE,
) -> None:
    """Block claims per second, on an etcd and with a service of its own.

    A request asks for what a node wants when it starts, a block of each family, unless
    --per-request says something else.
    """
    sizes = per_request or [len(claiming.POOLS)]
    results = [
        claiming.measure(
            claiming.Load(nodes=nodes, at_once=at_once, per_request=size, claims=count), folder
        )
        for size in sizes
    ]
    if output is Output.JSON:
        print(json.dumps(list(map(claiming.record, results)), indent=2))
    else:
        for result in results:
            for name, text in claiming.lines(result):
                print(f"{name:15} {text}")


@app.command()
def registrations(
    nodes: Annotated[int, typer.Option(min=1, max=5000)] = 1000,
    at_once: Annotated[
        list[int] | None, typer.Option(min=1, max=20_000, help="may be repeated")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Endpoints registered at once, each with a call of its own: time, CPU, transactions."""
    found = registering.measure(nodes=nodes, at_once=at_once or [1, 50, 500, 2000], rounds=rounds)
    print("\n".join(map(json.dumps, found)))


@app.command()
def repair(
    nodes: Annotated[int, typer.Option(min=1, max=5000)] = 1000,
    pods_per_node: Annotated[int, typer.Option(min=1, max=200)] = 20,
) -> None:
    """One round of the registry's repair over endpoints that are all right."""
    print(json.dumps(registering.measure_repair(nodes=nodes, pods_per_node=pods_per_node)))


@app.command()
def bridge(  # noqa: PLR0917 - options, by name
    nodes: Annotated[int, typer.Option(min=1, max=10_000)] = 1000,
    pods: Annotated[int, typer.Option(min=100, max=200_000)] = 20_000,
    slices: Annotated[int, typer.Option(min=1, help="of 100 endpoints")] = 200,
    rate: Annotated[float, typer.Option(min=1, help="changes of pods a second")] = 100,
    slice_rate: Annotated[float, typer.Option(min=0.1, help="changes of slices a second")] = 10,
    seconds: Annotated[float, typer.Option(min=1, help="that changes last")] = 20,
) -> None:
    """The bridge from Kubernetes: a start, changes of pods, and a leader that is killed."""
    load = bridging.Load(
        nodes=nodes, pods=pods, slices=slices, rate=rate, slice_rate=slice_rate, seconds=seconds
    )
    print(json.dumps(asdict(bridging.measure(load))))


@app.command()
def reuse(
    count: Count = 200,
    nodes: Annotated[int, typer.Option(min=1, max=1000, help="agents")] = 32,
    slicers: Annotated[int, typer.Option(min=1, max=8, help="replicas")] = 2,
    output: Format = Output.TABLE,
) -> None:
    """Time from the release of an address until its node may hand it out again, all agents live."""
    samples = asyncio.run(measure_reuse(nodes=nodes, slicers=slicers, count=count))
    name = f"release to free, {nodes} agents, {slicers} slicers"
    summary = summarize(name, samples.seconds, samples.failures)
    _report("Reuse of addresses", [summary], output)


@app.command()
def fanout(
    nodes: Annotated[int, typer.Option(min=1, help="agents")] = 1000,
    pods: Annotated[int, typer.Option(min=1, help="pods on each node")] = 20,
    ticks: Annotated[int, typer.Option(min=1)] = 100,
    per_tick: Annotated[int, typer.Option(min=2, help="changes in a tick")] = 10,
    output: Format = Output.TABLE,
) -> None:
    """CPU of a change in the slicer's core, for all agents, with span on and off."""
    found = [
        fan_out(nodes=nodes, pods=pods, ticks=ticks, per_tick=per_tick, is_scoped=is_scoped)
        for is_scoped in (True, False)
    ]
    if output is Output.JSON:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        span = "on" if one.is_scoped else "off"
        print(
            f"span {span}: {one.change_us:.0f} us a change, {one.touched:.1f} of {nodes} agents "
            f"touched by a tick, {one.bytes_per_change:.2f} bytes a change and agent, "
            f"{one.snapshot_ms:.2f} ms a snapshot"
        )


@app.command()
def follow(
    nodes: Annotated[int, typer.Option(min=1, help="nodes")] = 300,
    pods: Annotated[int, typer.Option(min=1, help="pods on each node")] = 20,
    rate: Annotated[float, typer.Option(min=1, help="changes a second")] = 100,
    seconds: Annotated[float, typer.Option(min=1)] = 10,
    output: Format = Output.TABLE,
) -> None:
    """CPU of a change in a slicer without agents, from etcd's watch to the view."""
    found = follow_changes(nodes=nodes, pods=pods, rate=rate, seconds=seconds)
    if output is Output.JSON:
        print(json.dumps(asdict(found), indent=2))
        return
    print(
        f"{found.changes} changes in {found.transactions} transactions, {found.per_second:.0f} a "
        f"second: {found.main_us:.0f} us a change, {found.others_us:.0f} us in other threads"
    )


@app.command()
def tls(
    agents: Annotated[int, typer.Option(min=1, max=500, help="streams")] = 50,
    messages: Annotated[int, typer.Option(min=1, help="to each agent in a round")] = 100,
    sizes: Annotated[
        list[int] | None, typer.Option("--size", min=1, help="bytes of a message; repeatable")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="of each way, in turn")] = 5,
    output: Format = Output.TABLE,
) -> None:
    """CPU of a message on the stream and its acknowledgement, with TLS and without."""
    shapes = [
        sealing.Shape(agents=agents, size=size, messages=messages)
        for size in sizes or sealing.SIZES
    ]
    found = sealing.measure(shapes, rounds)
    if output is Output.JSON:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        print(
            f"{one.shape.size} B to {agents} agents: plain {one.plain.server_us:.0f} + "
            f"{one.plain.client_us:.0f} us, TLS {one.sealed.server_us:.0f} + "
            f"{one.sealed.client_us:.0f} us (server + agent): "
            f"{one.ratio('server_us'):.2f} times at the server, "
            f"{one.ratio('both_us'):.2f} times in all"
        )


def _compile(size: compiling.Size, changes: int, output: Output) -> None:
    found = compiling.measure(size, changes)
    if output is Output.JSON:
        print(json.dumps(asdict(found), indent=2))
        return
    _report(
        f"Compiler: {size.policies} policies, {size.identities} identities of {size.pods} pods",
        [
            summarize(f"{title}{clock}", getattr(times, kind))
            for title, times in (
                ("everything at once", found.full),
                ("a policy replaced", found.policy),
                ("an admin policy replaced", found.cluster_policy),
                ("first pod of an identity", found.new_pod),
                ("last pod of an identity", found.last_pod),
            )
            for clock, kind in (("", "wall"), (", CPU", "cpu"))
        ],
        output,
    )
    print(
        f"{found.subjects} subject policies of {found.rules} rules, {found.peer_sets} peer sets; "
        f"{found.max_rss / 1e6:.0f} MB with the input"
    )


@app.command(name="compile")
def compile_(
    identities: Annotated[int, typer.Option(min=20)] = compiling.Size.identities,
    policies: Annotated[int, typer.Option(min=100)] = compiling.Size.policies,
    changes: Annotated[int, typer.Option(min=1, help="of each sort")] = 500,
    output: Format = Output.TABLE,
) -> None:
    """Time and memory of the policy compiler: all at once, and one change after another."""
    size = compiling.Size(identities=identities, pods=5 * identities, policies=policies)
    _compile(size, changes, output)


def _programming_rows(found: programming.Programming) -> list[Summary]:
    title = f"IPv{found.family}{', node ports' if found.node_ports else ''}"
    return [
        summarize(f"{title}: {what}{clock}", getattr(times, kind))
        for what, times in (
            ("all, from nothing", found.cold),
            ("all, after a restart", found.warm),
            ("a backend of 4,000 goes", found.removed),
            ("it comes back", found.added),
            ("  of either: choosing what to write", found.plan),
        )
        for clock, kind in (("", "wall"), (", CPU", "cpu"))
    ]


def _table_rows(family: int, rounds: int) -> list[Summary]:
    found = programming.measure_tables(family, rounds)
    title = f"{found.count} tables, IPv{family}"
    return [
        summarize(title, found.first.cpu),
        summarize(f"{title}, backends known", found.again.cpu),
    ]


@app.command(name="services-cold")
def services_cold(
    rounds: Annotated[int, typer.Option(min=1, help="times that everything is written")] = 5,
    changes: Annotated[int, typer.Option(min=1, max=4000, help="backends that go")] = 50,
    family: Annotated[list[int] | None, typer.Option(help="4 or 6; may be repeated")] = None,
    output: Format = Output.TABLE,
) -> None:
    """What 801 services with 20,000 backends cost an agent, all at once and by single changes.

    Through the kernel's maps, as root; no lab. Table rows are CPU time.
    """
    families = family or [4, 6]
    found = [
        programming.measure(family=one, node_ports=node_ports, rounds=rounds, changes=changes)
        for one in families
        for node_ports in (False, True)
    ]
    if output is Output.JSON:
        print(json.dumps(list(map(asdict, found)), indent=2))
        return
    rows_ = [row for one in found for row in _programming_rows(one)]
    _report(
        "Services on a node",
        [*rows_, *(r for one in families for r in _table_rows(one, rounds))],
        output,
    )
    for one in found:
        ports = "with node ports" if one.node_ports else "cluster addresses only"
        writes = " or ".join(map(str, one.writes))
        print(
            f"IPv{one.family}, {ports}: {one.frontends} frontends, {one.slots} places, "
            f"{one.tables} tables; a backend that goes or comes: {writes} entries"
        )


app.command(epilog=EPILOG)(scale)
app.command(epilog=DATAPATH_EPILOG)(datapath)
app.command(epilog=SERVICES_EPILOG)(services)
app.command()(pinger)


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Without a command: all measurements, as tables."""
    if context.invoked_subcommand is None:
        # First: its memory is that of the process.
        _compile(compiling.Size(), 500, Output.TABLE)
        with _lab(nodes=2) as lab:
            _measure_adds(lab, 100, Output.TABLE)
            _report("After ADD, from another node", _first_pings(lab, 40), Output.TABLE)
            _enforcing(lab, 300, Output.TABLE)
        datapath()
        services()


if __name__ == "__main__":
    app()

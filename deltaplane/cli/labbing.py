"""`deltaplane lab` and `deltaplane demo`: a cluster of network namespaces on this machine."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.options import ExternalMode, Files, LabName, Mtu, Options, Output, Routing, Tls

if TYPE_CHECKING:
    from lab.cluster import Applied, Lab

app = typer.Typer(
    help="Run a cluster of network namespaces on this machine (as root).", no_args_is_help=True
)


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _lab_option(context: typer.Context) -> str:
    """What stood behind the global --lab; empty when it was not given."""
    options: Options = context.find_root().obj
    return options.lab


def _chosen(context: typer.Context, name: str) -> str:
    from deltaplane.cli.context import lab_name

    return lab_name(name or _lab_option(context))


def _attach(context: typer.Context, name: str) -> "Lab":
    from lab.cluster import Lab

    return Lab.attach(_chosen(context, name))


@app.command()
def up(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(help="Number of nodes, 1 to 200.")] = 3,
    name: Annotated[str, typer.Option(help="Name of the lab.", show_default="lab")] = "",
    routing: Routing = "native",
    mtu: Mtu = 1500,
    *,
    external_mode: ExternalMode = "snat",
    tls: Tls = False,
    zones: Annotated[int, typer.Option(help="Spread the nodes over so many zones.", min=0)] = 0,
    trace: Annotated[
        float, typer.Option(help="Part of the ADDs that is traced.", min=0.0, max=1.0)
    ] = 1.0,
) -> None:
    """Start a lab: etcd, the services, and one agent per node, each node a network namespace.

    Labs of other names may run at the same time; they share nothing but the machine.

    Example: deltaplane lab up --nodes 3 --routing vxlan --mtu 9000
    """
    from lab.cluster import Lab, LabConfig

    chosen = name or _lab_option(context) or "lab"
    config = LabConfig(
        name=chosen,
        nodes=nodes,
        routing=routing,
        external_mode=external_mode,
        mtu=mtu,
        trace_ratio=trace,
        zones=zones,
        tls=tls,
    )
    lab = Lab.up(config, _tell)
    typer.echo(
        f"lab {lab.layout.lab} is up: {nodes} nodes; end it with "
        f"`deltaplane lab down --name {lab.layout.lab}`"
    )


@app.command()
def down(
    context: typer.Context,
    name: LabName = "",
    everything: Annotated[
        bool, typer.Option("--all", help="All labs of this machine, whoever started them.")
    ] = False,
) -> None:
    """End a lab and remove everything that it made; other labs go on.

    Example: deltaplane lab down --all
    """
    from deltaplane.errors import Invalid, NotFound
    from lab import lifecycle

    if everything and (name or _lab_option(context)):
        raise Invalid("--all", "ends every lab; name one, or say --all")
    chosen = lifecycle.labs() if everything else (_chosen(context, name),)
    for lab in chosen:
        try:
            lifecycle.down(lab, _tell)
        except NotFound:
            if not everything:
                raise
            continue  # somebody else has ended it meanwhile
        typer.echo(f"lab {lab} is gone")
    if not chosen:
        typer.echo("there is no lab")


@app.command("list")
def list_(output: Output = "table") -> None:
    """List the labs of this machine.

    Example: deltaplane lab list -o json
    """
    from deltaplane.cli import output as out
    from lab import lifecycle

    form = out.choose(output)
    records: list[out.Record] = [
        {
            "name": found.lab,
            "nodes": found.nodes,
            "pods": found.pods,
            "routing": found.routing,
            "state": found.state,
        }
        for found in lifecycle.overview()
    ]
    out.show(records, form, empty="there is no lab; start one with `deltaplane lab up`")


@app.command("apply")
def apply_(context: typer.Context, files: Files, name: LabName = "") -> None:
    """Create or change namespaces, pods, deployments, stateful sets, services and policies.

    With the first service comes the name server: a pod, and the service kube-system/kube-dns.

    Example: deltaplane lab apply -f examples/shop.yaml
    """
    lab = _attach(context, name)
    _report(lab.apply([Path(file) for file in files], _tell), "applied")


@app.command()
def delete(context: typer.Context, files: Files, name: LabName = "") -> None:
    """Delete what files name; what is not there is fine.

    Example: deltaplane lab delete -f examples/shop.yaml
    """
    lab = _attach(context, name)
    _report(lab.delete([Path(file) for file in files], _tell), "deleted")


def _report(done: "Applied", verb: str) -> None:
    from deltaplane.cli.policies import title

    for namespace in done.namespaces:
        typer.echo(f"namespace {namespace} {verb}")
    for service in done.services:
        typer.echo(f"service {service} {verb}")
    for name in done.slices:
        typer.echo(f"endpoint slice {name} {verb}")
    for pod in done.pods.removed:
        typer.echo(f"pod {pod.reference} deleted")
    for pod in done.pods.updated:
        typer.echo(f"pod {pod.reference} changed")
    for pod in done.pods.added:
        typer.echo(f"pod {pod.reference} added on {pod.node}: {', '.join(pod.addresses)}")
    for policy in done.policies:
        typer.echo(f"{title(policy)} {verb}")


@app.command()
def probe(context: typer.Context, name: LabName = "", output: Output = "table") -> None:
    """Try every pod against every other pod's ports, both protocols and families.

    Repeats until two rounds agree. Exit code 1 when they never do, or when the wrong pod answered.

    Example: deltaplane lab probe -o json
    """
    from deltaplane.cli import output as out
    from lab import matrix

    form = out.choose(output)
    lab = _attach(context, name)
    pods = lab.pods
    result = lab.probe()
    if form is out.Format.TABLE:
        out.console().print(matrix.table(result.rows, pods, "who reaches whom"))
    elif form is out.Format.JSON:
        sys.stdout.write(json.dumps([row.as_json() for row in result.rows]) + "\n")
    else:
        out.show([row.as_json() for row in result.rows], form)
    _tell(
        f"{len(result.rows)} probes, {result.allowed} allowed, "
        f"{result.rounds} rounds in {result.seconds:.1f} s"
    )
    for line in result.wrong:
        _tell(f"wrong answer: {line}")
    if not result.stable:
        _tell("the last two rounds differ: something is still changing")
    if result.wrong or not result.stable:
        raise typer.Exit(1)


@app.command(name="exec", context_settings={"ignore_unknown_options": True})
def exec_(
    context: typer.Context,
    pod: Annotated[str, typer.Argument(metavar="POD", help="NAMESPACE/NAME, or NAME.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND")],
    name: LabName = "",
) -> None:
    """Run a command in a pod: its network and host name, and names of services are found.

    Example: deltaplane lab exec shop/frontend-1 -- ping -c 3 10.244.0.2
    """
    from lab import podshell

    lab = _attach(context, name)
    found = lab.pod(pod)
    lab.client.close()
    podshell.run(lab.layout, lab.topology, found, command)


@app.command()
def logs(
    context: typer.Context,
    process: Annotated[str, typer.Argument(help="For example slicer or agent-node-1.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-l", help="How many of the last lines.")] = 100,
    name: LabName = "",
) -> None:
    """Show the log of a process, or which there are."""
    from deltaplane.errors import NotFound
    from lab import lifecycle
    from lab.layout import Layout

    layout = Layout(lab=_chosen(context, name))
    lifecycle.topology_of(layout)
    known = sorted(file.stem for file in layout.logs.glob("*.log"))
    if not process:
        typer.echo("\n".join(known))
        return
    if process not in known:
        raise NotFound(f"no log of {process!r}; there are {', '.join(known)}")
    typer.echo(lifecycle.log_tail(layout, process, lines))


@app.command()
def status(context: typer.Context, name: LabName = "", output: Output = "table") -> None:
    """Show the processes of a lab. Exit code 1 when one does not serve."""
    from deltaplane.cli import output as out
    from deltaplane.errors import NotFound
    from lab import lifecycle, supervision
    from lab.layout import Layout

    form = out.choose(output)
    layout = Layout(lab=_chosen(context, name))
    network = lifecycle.topology_of(layout)
    state = supervision.read(layout)
    if state is None:
        raise NotFound(f"the supervisor of lab {layout.lab} has written no state")
    alive = lifecycle.is_running(layout)
    records: list[out.Record] = [
        {
            "process": process,
            "pid": known.process.pid if known.process else 0,
            "serves": known.ready,
            "restarts": known.restarts,
            "last_exit": "" if known.last_exit is None else str(known.last_exit),
            "listen": list(known.listen),
        }
        for process, known in state.processes.items()
    ]
    out.show(records, form)
    _tell(
        f"{len(network.nodes)} nodes, {network.routing} routing, "
        f"uplinks with an MTU of {network.mtu} bytes"
    )
    if not alive:
        _tell(f"the supervisor is dead; clean up: deltaplane lab down --name {layout.lab}")
    if not alive or not state.ready:
        raise typer.Exit(1)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", envvar="KEEP", help="Leave the lab running.")
    ] = False,
    nodes: Annotated[int, typer.Option(help="Number of nodes, 2 or more.", min=2)] = 3,
    name: Annotated[str, typer.Option(help="Name of the lab.")] = "demo",
    routing: Routing = "native",
    mtu: Mtu = 1500,
    *,
    tls: Tls = False,
    in_memory: Annotated[
        bool | None,
        typer.Option(
            "--in-memory/--real",
            help="Without packets and privileges, or not at all if packets cannot be sent. "
            "Default: with packets where this machine can.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show all of it: a web shop, its policies, and no packet lost while everything is killed.

    Takes about half a minute, as root. Where the machine cannot do it, says what is missing and
    shows the same cluster in memory, without packets. Exit code 0 only if everything held.
    """
    from lab import demo as story
    from lab import memorydemo, preflight

    config = story.DemoConfig(name=name, nodes=nodes, keep=keep, routing=routing, mtu=mtu, tls=tls)
    # What is missing does not matter to who asks for memory.
    lacks = () if in_memory else preflight.missing()
    if story.choose(config, lacks, asked=in_memory):
        held = memorydemo.run(config, lacks)
    else:
        held = story.run(config)
    if not held:
        raise typer.Exit(1)

"""`deltaplane bridge`: what the bridge from Kubernetes does, and sweeps that it holds back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.output import Value
    from deltaplane.v1 import bridge_pb2, bridge_pb2_grpc

app = typer.Typer(
    help="Look at the bridge from Kubernetes; confirm what it does not dare to remove.",
    no_args_is_help=True,
)

Target = Annotated[
    str,
    typer.Option(
        "--bridge",
        help="gRPC target of a replica of services/kubernetes.",
        metavar="TARGET",
        envvar="DELTAPLANE_BRIDGE",
    ),
]


@app.command()
def status(context: typer.Context, bridge: Target, output: Output = "table") -> None:
    """Show what a replica of the bridge knows of each kind, and what cannot be programmed.

    Example: deltaplane bridge status --bridge 127.0.0.1:4004
    """
    from deltaplane.cli import output as out
    from deltaplane.v1 import bridge_pb2

    form = out.choose(output)
    with _connected(context, bridge) as stub:
        answer = stub.GetStatus(bridge_pb2.BridgeGetStatusRequest())
    kinds = [_row(item) for item in answer.kinds]
    if form is not out.Format.TABLE:
        problems = [
            {"kind": it.kind, "object": it.object, "reason": it.reason} for it in answer.problems
        ]
        out.show_one(
            {
                "active": answer.active,
                "leader": answer.leader,
                "kinds": kinds,
                "problems": problems,
            },
            form,
        )
        return
    typer.echo("active" if answer.active else f"standby; {answer.leader or 'nobody'} writes")
    out.show(kinds, form, empty="no kind is watched")
    for item in answer.problems:
        typer.echo(f"not programmed: {item.kind} {item.object}: {item.reason}")


@app.command()
def sweep(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="As in the field kind: Pod.")],
    bridge: Target,
    *,
    confirm: Annotated[bool, typer.Option("--confirm", help="Remove them.")] = False,
) -> None:
    """Show how many records of a kind the bridge would remove; with --confirm, let it.

    The bridge holds a sweep when a whole new list of the cluster lacks more than 100 records and
    more than 10 % of those that the registry has. Exit code 3 while it does and nothing was
    confirmed.

    Example: deltaplane bridge sweep Pod --bridge 127.0.0.1:4004 --confirm
    """
    from deltaplane.errors import Invalid
    from deltaplane.v1 import bridge_pb2

    with _connected(context, bridge) as stub:
        answer = stub.GetStatus(bridge_pb2.BridgeGetStatusRequest())
        known = next((item for item in answer.kinds if item.kind == kind), None)
        if known is None:
            words = ", ".join(item.kind for item in answer.kinds)
            raise Invalid("KIND", f'"{kind}" is none of {words}')
        if not known.held:
            typer.echo(f"nothing of {kind} is held back")
            return
        what = f"{known.held} entries of {kind}"
        if not confirm:
            typer.echo(f"{what} would be removed; --confirm lets it")
            raise typer.Exit(3)
        stub.ConfirmSweep(bridge_pb2.BridgeConfirmSweepRequest(kind=kind, entries=known.held))
        typer.echo(f"{what} are removed")


@contextmanager
def _connected(context: typer.Context, target: str) -> "Iterator[bridge_pb2_grpc.BridgeStub]":
    import os

    from deltaplane.cli.client import Client, Targets
    from deltaplane.cli.context import certificate

    tls_dir = certificate(context.obj, os.environ)
    # Only the bridge is asked.
    with Client(Targets(registry="", ipam="", slicer="", tls_dir=tls_dir)) as client:
        yield client.bridge(target)


def _row(item: "bridge_pb2.BridgeKind") -> "dict[str, Value]":
    state = "held" if item.held else "listed" if item.listed else "unknown"
    return {
        "kind": item.kind,
        "state": state,
        "objects": item.objects,
        "records": item.records,
        "pending": item.pending,
        "refused": item.refused,
        "held": item.held,
    }

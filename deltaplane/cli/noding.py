"""`deltaplane node`: take nodes out of the cluster, and let them sweep what they hold back."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected

if TYPE_CHECKING:
    from deltaplane.cli.client import Client

app = typer.Typer(
    help="Remove nodes that are gone for good; confirm what a node does not dare to remove.",
    no_args_is_help=True,
)

POLL_SECONDS = 0.2


@app.command()
def delete(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the node.")],
    force: Annotated[
        bool, typer.Option("--force", help="Even though its agent is connected.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until its addresses may be handed out again.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)] = 120.0,
) -> None:
    """Remove a node with its endpoints, and give its blocks back. Fine if there is none.

    The node must be gone: what its kernel still holds stays as it is. With an agent that runs,
    `python -m nodeagent.uninstall` on the node comes first.

    Example: deltaplane node delete worker-7 --wait
    """
    from deltaplane.v1 import registry_pb2

    with connected(context) as client:
        if not force:
            _refuse_if_connected(client, name)
        deadline = time.monotonic() + timeout
        answer = client.registry.DeleteNode(registry_pb2.DeleteNodeRequest(name=name))
        typer.echo(f"node {name} deleted, with {answer.endpoints_removed} endpoints")
        if wait:
            _wait_until_free(client, deadline)


@app.command()
def sweep(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the node.")],
    *,
    confirm: Annotated[bool, typer.Option("--confirm", help="Remove them.")] = False,
    agent: Annotated[
        str,
        typer.Option(
            help="The agent's gRPC target, as a rule unix:/path on the node itself. "
            "Default: that of the lab.",
            metavar="TARGET",
        ),
    ] = "",
) -> None:
    """Show how many entries a braked node would remove; with --confirm, let it.

    A node is braked when a whole new view lacks more than 100 entries and more than 10 % of those
    in its kernel: it adds what is new, removes nothing, and acknowledges nothing newer. Exit code 3
    while it is and nothing was confirmed.

    Example: deltaplane node sweep worker-7 --confirm
    """
    from deltaplane.cli.context import agents
    from deltaplane.errors import Invalid, Refused
    from deltaplane.v1 import agent_pb2

    target = agent or agents(context.obj).get(name, "")
    if not target:
        raise Invalid("--agent", f"name the target of {name}'s agent")
    with connected(context) as client:
        stub = client.agent(target)
        status = stub.GetStatus(agent_pb2.GetStatusRequest())
        if status.node != name:
            raise Refused(f"the agent at {target} is that of node {status.node}")
        if not status.held_entries:
            typer.echo(f"node {name} holds nothing back")
            return
        what = f"{status.held_entries} of {status.held_of} entries"
        if not confirm:
            typer.echo(f"node {name} is braked: it would remove {what}; --confirm lets it")
            raise typer.Exit(3)
        stub.ConfirmSweep(agent_pb2.ConfirmSweepRequest(entries=status.held_entries))
        typer.echo(f"node {name} has removed {what}")


def _refuse_if_connected(client: "Client", name: str) -> None:
    from deltaplane.errors import Refused
    from deltaplane.v1 import slicer_pb2

    agents = client.slicer.ListAgents(slicer_pb2.ListAgentsRequest()).agents
    if any(agent.node == name for agent in agents):
        raise Refused(
            f"the agent of node {name} is connected; stop it first (on the node: python -m "
            "nodeagent.uninstall), or --force to cut its pods off"
        )


def _wait_until_free(client: "Client", deadline: float) -> None:
    """Waits until the watermark has passed the deletion.

    Raises:
        Unavailable: it did not in time.
    """
    from deltaplane.errors import Unavailable
    from deltaplane.v1 import registry_pb2, slicer_pb2

    # Linearisable, and later than the deletion.
    revision = client.registry.ListNodes(registry_pb2.ListNodesRequest()).revision
    request = slicer_pb2.GetQuarantineRequest(limit=1)
    while (found := client.slicer.GetQuarantine(request)).watermark_revision < revision:
        if time.monotonic() > deadline:
            behind = ", ".join(f"{h.node} ({h.reason})" for h in found.holders if not h.fenced)
            raise Unavailable(
                f"its addresses wait at revision {found.watermark_revision} of {revision}"
                + (f" for {behind}" if behind else "")
                + "; see `deltaplane get quarantine`"
            )
        time.sleep(POLL_SECONDS)
    typer.echo(f"its addresses are free at revision {revision}")

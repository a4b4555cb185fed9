"""`deltaplane policy audit`: what would policies under audit have denied?"""

from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaplane.cli.client import Client
    from deltaplane.cli.output import Record
    from deltaplane.cli.suspicions import Suspicion
    from deltaplane.v1 import agent_pb2


def audit(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="NAME, NAMESPACE/NAME or KIND:[NAMESPACE/]NAME; default: all under audit.",
        ),
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of a NAME alone.", metavar="NAME")
    ] = "default",
    *,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent",
            help="An agent's gRPC target, repeatable. Default: all of the lab.",
            metavar="TARGET",
        ),
    ] = None,
    output: Output = "table",
) -> None:
    """List connections that passed and that a policy under audit would have denied.

    A policy is under audit while it has the annotation deltaplane.dev/audit: "true". Nodes count
    each connection at its first packet, by identities and port, since their agent started. Exit
    code 3 when an agent does not answer.

    Example: deltaplane policy audit default-deny -n shop
    """
    from deltaplane.cli import output as out
    from deltaplane.cli import world
    from deltaplane.cli.context import agents
    from deltaplane.cli.references import policy_reference
    from deltaplane.cli.suspicions import suspicions
    from deltaplane.errors import Invalid, NotFound

    form = out.choose(output)
    reference = policy_reference(name, namespace) if name else ""
    targets = {target: target for target in agent} if agent else agents(context.obj)
    if not targets:
        raise Invalid("--agent", "name the agents to ask")
    with connected(context) as client:
        known = world.load(client)
        denials, silent = _ask(client, targets)
    there = {policy.reference: policy.audit for policy in known.policies}
    if reference and reference not in there:
        raise NotFound(f"there is no policy {reference!r}")
    if reference and not there[reference]:
        raise Invalid("", f"{reference} is not under audit: what it denies is dropped")
    found = [s for s in suspicions(known, denials) if reference in ("", s.policy)]
    out.show([row(item) for item in found], form, empty="nothing would have been denied")
    for complaint in silent:
        typer.echo(complaint, err=True)
    if silent:
        raise typer.Exit(3)


def _ask(
    client: "Client", targets: "Mapping[str, str]"
) -> "tuple[list[agent_pb2.Denial], list[str]]":
    """What the agents counted, and who did not say."""
    from deltaplane.errors import DeltaplaneError
    from deltaplane.v1 import agent_pb2

    denials: list[agent_pb2.Denial] = []
    silent: list[str] = []
    for node, target in targets.items():
        try:
            denials += client.agent(target).ListDenials(agent_pb2.ListDenialsRequest()).denials
        except DeltaplaneError as error:
            silent.append(f"{node}: {error}")
    return denials, silent


def row(item: "Suspicion") -> "Record":
    """One line."""
    return {
        "policy": item.policy or "none that is there now",
        "side": "ingress" if item.ingress else "egress",
        "from": item.source,
        "to": item.destination,
        "traffic": item.traffic,
        "connections": item.connections,
    }

"""`deltaplane service`: who answers at an address, and deleting services."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.cli.output import Format
    from deltaplane.cli.servicetrace import Answer, Target

app = typer.Typer(
    help="Trace and delete services; `deltaplane get services` lists them.", no_args_is_help=True
)


@app.command()
def delete(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAMESPACE/NAME...")],
) -> None:
    """Delete services; absent ones are fine.

    Slices that the lab has made go with them, those that somebody else has made stay.

    Example: deltaplane service delete shop/frontend
    """
    from deltaplane.cli import services
    from deltaplane.cli.context import lab_of
    from deltaplane.v1 import registry_pb2

    references = [services.split(name) for name in names]
    with connected(context) as client:
        client.registry.DeleteServices(
            registry_pb2.DeleteServicesRequest(
                services=[
                    registry_pb2.ServiceRef(namespace=ns, name=name) for ns, name in references
                ]
            )
        )
    if lab := lab_of(context.obj):
        from lab.cluster import Lab

        Lab.attach(lab).agree()
    for name in names:
        typer.echo(f"service {name} deleted")


@app.command()
def trace(
    context: typer.Context,
    where: Annotated[
        str, typer.Argument(metavar="ADDRESS:PORT", help="An IPv6 address in brackets.")
    ],
    *,
    protocol: Annotated[str, typer.Option(help="TCP, UDP or SCTP.")] = "TCP",
    node: Annotated[str, typer.Option(help="Only this node.", metavar="NODE")] = "",
    source: Annotated[
        str, typer.Option("--from", help="A client: its node, inside.", metavar="NAMESPACE/POD")
    ] = "",
    agent: Annotated[
        list[str] | None,
        typer.Option(help="Agent to ask, NODE=TARGET; repeatable.", metavar="NODE=TARGET"),
    ] = None,
    output: Output = "table",
) -> None:
    """Show which service answers at an address and port, whom clients are given, and why.

    What nodes do is read from their kernels. Exit code 1 when no service answers there.

    Example: deltaplane service trace 10.96.0.7:80 --from shop/frontend-1

    Example: deltaplane service trace '[fd00:10:96::7]:53' --protocol UDP --node node-1
    """
    from deltaplane import servicewire
    from deltaplane.cli import output as out
    from deltaplane.cli import services, servicetrace

    form = out.choose(output)
    target = servicetrace.read_target(where, protocol)
    targets = _agents(context, agent or ())
    with connected(context) as client:
        known = [servicewire.service_from_proto(it) for it in services.list_services(client)]
        nodes = _node_names(client)
        match = servicetrace.matches(target, known, nodes)
        if match is None:
            _tell_none(
                servicetrace.why_none(target, known, nodes, _pod_names(client)), form, target
            )
            raise typer.Exit(1)
        if source:
            node = services.pod(client, source).node
        slices = services.list_slices(
            client, namespace=match.service.namespace, service=match.service.name
        )
        is_node = target.address in nodes
        answers = {
            name: _ask(client, agent_target, target, on_node=is_node)
            for name, agent_target in targets.items()
            if node in ("", name)
        }
    record = servicetrace.trace(
        target,
        match,
        [servicewire.slice_from_proto(item) for item in slices],
        answers,
        inside_only=bool(source),
    )
    out.show_one(record, form)


def _tell_none(why: str, form: "Format", target: "Target") -> None:
    from deltaplane.cli import output as out

    out.show_one({"target": str(target), "service": "none", "meaning": why}, form)


def _agents(context: typer.Context, given: "list[str] | tuple[str, ...]") -> Mapping[str, str]:
    """Targets by node: those given, else those of the lab.

    Raises:
        Invalid: one is no NODE=TARGET.
    """
    from deltaplane.cli.context import agents
    from deltaplane.errors import Invalid

    if not given:
        return agents(context.obj)
    pairs = [text.partition("=") for text in given]
    for text, (name, equals, target) in zip(given, pairs, strict=True):
        if not (name and equals and target):
            raise Invalid("--agent", f"{text!r}: write it as NODE=TARGET")
    return {name: target for name, _, target in pairs}


def _node_names(client: "Client") -> dict[bytes, str]:
    """Names of nodes by their addresses."""
    from deltaplane.v1 import registry_pb2

    known = client.registry.ListNodes(registry_pb2.ListNodesRequest()).nodes
    return {
        address: item.name
        for item in known
        for address in (item.addresses.ipv4, item.addresses.ipv6)
        if address
    }


def _pod_names(client: "Client") -> dict[bytes, str]:
    """Names of pods by their addresses."""
    from deltaplane.cli.getting import list_endpoints

    return {
        address: f"{item.namespace}/{item.pod}"
        for item in list_endpoints(client)
        for address in (item.addresses.ipv4, item.addresses.ipv6)
        if address
    }


def _ask(client: "Client", agent: str, target: "Target", *, on_node: bool) -> "Answer | str | None":
    """What a node's kernel holds of the target; a text: why that is not known."""
    from deltaplane import wire
    from deltaplane.cli.servicetrace import Answer
    from deltaplane.errors import DeltaplaneError
    from deltaplane.v1 import agent_pb2

    address = bytes(len(target.address)) if on_node else target.address
    request = agent_pb2.ListFrontendsRequest(addresses=[address], port=target.port)
    try:
        found = client.agent(agent).ListFrontends(request).frontends
    except DeltaplaneError as error:
        return str(error)
    wanted = wire.protocol_to_proto(target.protocol)
    for item in found:
        if item.protocol == wanted:
            outside = tuple((one.address, one.port) for one in item.outside_backends)
            return Answer(
                service=item.service,
                inside=tuple((one.address, one.port) for one in item.backends),
                outside=outside if item.outside else None,
                check_source=item.check_source,
            )
    return None

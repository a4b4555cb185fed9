"""`deltaplane get`: tables of what there is."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.v1 import registry_pb2

app = typer.Typer(
    help="List nodes, pods, endpoints, identities, slices, policies, services, endpoint slices, "
    "receipts, blocks, pools, quarantined addresses.",
    no_args_is_help=True,
)

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Only this namespace.", metavar="NAME")
]

ENDPOINTS_PER_PAGE = 5000
SLICES_PER_PAGE = 1000


@contextmanager
def connected(context: typer.Context) -> "Iterator[Client]":
    """Clients of the services that the command line means."""
    from deltaplane.cli.client import Client
    from deltaplane.cli.context import targets

    with Client(targets(context.obj)) as client:
        yield client


@app.command()
def nodes(context: typer.Context, output: Output = "table") -> None:
    """List registered nodes and how far their agents are."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import registry_pb2, slicer_pb2

    form = out.choose(output)
    with connected(context) as client:
        known = client.registry.ListNodes(registry_pb2.ListNodesRequest())
        agents = client.slicer.ListAgents(slicer_pb2.ListAgentsRequest()).agents
    records = rows.nodes(known.nodes, agents, known.fences)
    out.show(records, form, empty="no node is registered")


@app.command()
def namespaces(context: typer.Context, output: Output = "table") -> None:
    """List namespaces with their labels."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import registry_pb2

    form = out.choose(output)
    with connected(context) as client:
        answer = client.registry.ListNamespaces(registry_pb2.ListNamespacesRequest())
    out.show([rows.namespace(item) for item in answer.namespaces], form, empty="no namespace")


@app.command()
def pods(context: typer.Context, namespace: Namespace = "", output: Output = "table") -> None:
    """List pod records with node, addresses and identity."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import registry_pb2

    form = out.choose(output)
    with connected(context) as client:
        answer = client.registry.ListPods(registry_pb2.ListPodsRequest(namespace=namespace))
        known = list_endpoints(client, namespace=namespace)
    records = [
        rows.pod(item, [e for e in known if e.namespace == item.namespace]) for item in answer.pods
    ]
    out.show(records, form, empty="no pod")


@app.command()
def endpoints(context: typer.Context, namespace: Namespace = "", output: Output = "table") -> None:
    """List endpoints: pod interfaces with addresses and identity."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows

    form = out.choose(output)
    with connected(context) as client:
        known = list_endpoints(client, namespace=namespace)
    out.show([rows.endpoint(item) for item in known], form, empty="no endpoint")


def list_endpoints(
    client: "Client", *, namespace: str = "", pod: str = ""
) -> "list[registry_pb2.Endpoint]":
    """All pages of endpoints."""
    from deltaplane.v1 import registry_pb2

    found: list[registry_pb2.Endpoint] = []
    token = ""
    while True:
        answer = client.registry.ListEndpoints(
            registry_pb2.ListEndpointsRequest(
                namespace=namespace, pod=pod, page_size=ENDPOINTS_PER_PAGE, page_token=token
            )
        )
        found += answer.endpoints
        token = answer.next_page_token
        if not token:
            return found


@app.command()
def identities(context: typer.Context, output: Output = "table") -> None:
    """List identities: numbers and the labels they stand for."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import registry_pb2

    form = out.choose(output)
    with connected(context) as client:
        answer = client.registry.ListIdentities(registry_pb2.ListIdentitiesRequest())
    out.show([rows.identity(item) for item in answer.identities], form, empty="no identity")


@app.command()
def slices(
    context: typer.Context,
    identity: Annotated[int, typer.Option(help="Only slices of this identity.")] = 0,
    output: Output = "table",
) -> None:
    """List slices: the endpoints of one identity, in parts."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import slicer_pb2

    form = out.choose(output)
    records = []
    token = ""
    with connected(context) as client:
        while True:
            request = slicer_pb2.ListSlicesRequest(
                identity=identity, page_size=SLICES_PER_PAGE, page_token=token
            )
            answer = client.slicer.ListSlices(request)
            records += [rows.slice_(item) for item in answer.slices]
            token = answer.next_page_token
            if not token:
                break
    out.show(records, form, empty="no slice")


@app.command()
def services(context: typer.Context, namespace: Namespace = "", output: Output = "table") -> None:
    """List services: addresses, and ports as PORT:NODEPORT/PROTOCOL.

    Example: deltaplane get services -n shop -o json
    """
    from deltaplane import servicewire
    from deltaplane.cli import output as out
    from deltaplane.cli import servicerows
    from deltaplane.cli.services import list_services

    form = out.choose(output)
    with connected(context) as client:
        known = list_services(client, namespace=namespace)
    records = [servicerows.service(servicewire.service_from_proto(item)) for item in known]
    out.show(records, form, empty="no service")


@app.command()
def endpointslices(
    context: typer.Context,
    service: Annotated[
        str, typer.Option(help="Only slices of this service.", metavar="NAMESPACE/NAME")
    ] = "",
    namespace: Namespace = "",
    output: Output = "table",
) -> None:
    """List endpoint slices: the addresses behind services.

    Example: deltaplane get endpointslices --service shop/frontend
    """
    from deltaplane import servicewire
    from deltaplane.cli import output as out
    from deltaplane.cli import servicerows
    from deltaplane.cli.services import list_slices, split

    form = out.choose(output)
    name = ""
    if service:
        namespace, name = split(service)
    with connected(context) as client:
        known = list_slices(client, namespace=namespace, service=name)
    records = [servicerows.slice_(servicewire.slice_from_proto(item)) for item in known]
    out.show(records, form, empty="no endpoint slice")


@app.command()
def policies(context: typer.Context, namespace: Namespace = "", output: Output = "table") -> None:
    """List policies of every kind."""
    from deltaplane.cli import output as out
    from deltaplane.cli import policies as known
    from deltaplane.v1 import registry_pb2

    form = out.choose(output)
    with connected(context) as client:
        answer = client.registry.ListPolicies(registry_pb2.ListPoliciesRequest(namespace=namespace))
    out.show([known.row(item) for item in known.listed(answer)], form, empty="no policy")


@app.command()
def policy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME, KIND/NAME or NAMESPACE/NAME.")],
    namespace: Namespace = "default",
    output: Output = "table",
) -> None:
    """Show one policy; with -o yaml as Kubernetes YAML that can be applied again.

    Example: deltaplane get policy default-deny -n shop -o yaml
    """
    from deltaplane.cli import output as out
    from deltaplane.cli import policies as known

    form = out.choose(output)
    with connected(context) as client:
        found = known.find(client, name, namespace)
    match form:
        case out.Format.YAML:
            sys.stdout.write(known.as_yaml(found))
        case out.Format.JSON:
            sys.stdout.write(json.dumps(known.as_object(found), indent=2) + "\n")
        case out.Format.TABLE:
            out.show([known.row(found)], form)


@app.command()
def receipts(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(metavar="[policy|endpoint|revision]", help="Default: all policies.")
    ] = "",
    name: Annotated[str, typer.Argument(metavar="[NAMESPACE/NAME|NUMBER]", help="Of what.")] = "",
    *,
    namespace: Namespace = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until every node enforces it.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)] = 30.0,
    output: Output = "table",
) -> None:
    """List on how many nodes each policy is enforced, or one policy, endpoint or revision.

    Waiting shows progress: a bar on a terminal, a line for each receipt elsewhere, with -o json a
    line of JSON for each. Exit code 3 when it is not enforced in time.

    Example: deltaplane get receipts policy shop/default-deny --wait
    """
    from deltaplane.cli import receipting

    if kind or wait:
        receipting.one(context, kind, name, output, wait=wait, timeout=timeout)
    else:
        _all_receipts(context, namespace, output)


def _all_receipts(context: typer.Context, namespace: str, output: str) -> None:
    from deltaplane.cli import output as out
    from deltaplane.cli import policies, rows
    from deltaplane.cli.client import translated
    from deltaplane.v1 import receipts_pb2, registry_pb2

    form = out.choose(output)
    records = []
    with connected(context) as client:
        request = registry_pb2.ListPoliciesRequest(namespace=namespace)
        for item in policies.listed(client.registry.ListPolicies(request)):
            subject = policies.reference(item)
            with translated("the slicer", client.targets.slicer, client.targets.hint):
                answers = client.receipts.Watch(
                    receipts_pb2.WatchRequest(policy=subject), timeout=5
                )
                records += [rows.receipt(subject, answer) for answer in answers]
    out.show(records, form, empty="no policy")


@app.command()
def blocks(context: typer.Context, output: Output = "table") -> None:
    """List address blocks and the nodes that own them."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import ipam_pb2

    form = out.choose(output)
    with connected(context) as client:
        answer = client.ipam.ListBlocks(ipam_pb2.ListBlocksRequest())
        known = list_endpoints(client)
    by_node = rows.by_node(known)
    records = [rows.block(item, by_node.get(item.node, ())) for item in answer.blocks]
    out.show(records, form, empty="no block is claimed")


@app.command()
def pools(context: typer.Context, output: Output = "table") -> None:
    """List address pools and how full they are."""
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import ipam_pb2

    form = out.choose(output)
    with connected(context) as client:
        answer = client.ipam.ListPools(ipam_pb2.ListPoolsRequest())
        known = list_endpoints(client)
    out.show([rows.pool(item, known) for item in answer.pools], form, empty="no pool")


@app.command()
def quarantine(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="Most addresses to list.", min=1, max=10_000)] = 1000,
    output: Output = "table",
) -> None:
    """List released addresses that nobody may have yet, and the nodes that they wait for.

    It asks one slicer, which knows the releases since it started.
    """
    from deltaplane.cli import output as out
    from deltaplane.cli import rows
    from deltaplane.v1 import slicer_pb2

    form = out.choose(output)
    with connected(context) as client:
        answer = client.slicer.GetQuarantine(slicer_pb2.GetQuarantineRequest(limit=limit))
    if form is not out.Format.TABLE:
        out.show_one(rows.quarantine(answer), form)
        return
    out.show(rows.quarantined(answer), form, empty="no released address waits")
    if answer.total > len(answer.addresses):
        typer.echo(f"and {answer.total - len(answer.addresses)} more")
    if answer.holders:
        typer.echo("nodes behind the newest release:")
        out.show(rows.holders(answer), form)

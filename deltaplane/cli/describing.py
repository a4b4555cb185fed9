"""`deltaplane describe`: everything about one thing."""

from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected, list_endpoints
from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.cli.output import Record, Value
    from deltaplane.v1 import registry_pb2

app = typer.Typer(help="Show everything about one pod or service.", no_args_is_help=True)


@app.command()
def pod(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME")],
    output: Output = "table",
) -> None:
    """Show a pod: node, addresses, identity, the policies that isolate it, and where it is known.

    Example: deltaplane describe pod shop/frontend-1
    """
    from deltaplane.cli import output as out
    from deltaplane.errors import Invalid, NotFound
    from deltaplane.v1 import registry_pb2

    form = out.choose(output)
    namespace, slash, pod_name = name.partition("/")
    if not slash:
        raise Invalid("", f"{name!r}: write it as NAMESPACE/NAME")
    with connected(context) as client:
        known = client.registry.ListPods(registry_pb2.ListPodsRequest(namespace=namespace)).pods
        found = [item for item in known if item.name == pod_name]
        if not found:
            raise NotFound(f"there is no pod {name}; see `deltaplane get pods`")
        out.show_one(_describe(client, found[0]), form)


@app.command()
def service(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME")],
    output: Output = "table",
) -> None:
    """Show a service: where it answers, who is behind it, and what becomes of clients.

    Example: deltaplane describe service shop/frontend
    """
    from deltaplane import servicewire
    from deltaplane.cli import output as out
    from deltaplane.cli import servicerows, services

    form = out.choose(output)
    with connected(context) as client:
        found = services.find(client, name)
        slices = services.list_slices(client, namespace=found.namespace, service=found.name)
    record = servicerows.describe(
        servicewire.service_from_proto(found),
        [servicewire.slice_from_proto(item) for item in slices],
    )
    out.show_one(record, form)


def _describe(client: "Client", known: "registry_pb2.Pod") -> "Record":
    from deltaplane.cli import policies, rows
    from deltaplane.v1 import registry_pb2

    endpoints = list_endpoints(client, namespace=known.namespace, pod=known.name)
    identities = client.registry.ListIdentities(registry_pb2.ListIdentitiesRequest()).identities
    about, unreadable = policies.read(policies.about(client, known.namespace))
    namespaces = client.registry.ListNamespaces(registry_pb2.ListNamespacesRequest()).namespaces
    labels = next((dict(it.labels) for it in namespaces if it.name == known.namespace), {})
    identity = next((item for item in identities for e in endpoints if item.id == e.identity), None)
    record: dict[str, Value] = {
        "pod": f"{known.namespace}/{known.name}",
        "uid": known.uid,
        "node": known.node,
        "labels": rows.labels(known.labels),
        "named ports": [
            f"{port.name}:{port.number}/{rows.protocol(port.protocol)}"
            for port in known.named_ports
        ],
        "endpoints": [_interface(client, item) for item in endpoints]
        or "none: the CNI has not run",
        "identity": identity.id if identity else "none",
        "identity labels": rows.labels(identity.labels) if identity else {},
        "policies": policies.applying(about, known, labels) or "none: everything is allowed",
        "isolated for ingress by": policies.applying(about, known, labels, isolating="ingress")
        or "nothing: what no policy denies is allowed",
        "isolated for egress by": policies.applying(about, known, labels, isolating="egress")
        or "nothing: what no policy denies is allowed",
    }
    if unreadable:
        record["policies that cannot be read, and may isolate it, too"] = unreadable
    return record


def _interface(client: "Client", item: "registry_pb2.Endpoint") -> "Record":
    from deltaplane.cli import rows
    from deltaplane.cli.client import translated
    from deltaplane.errors import NotFound
    from deltaplane.v1 import receipts_pb2

    request = receipts_pb2.WatchRequest(endpoint=f"{item.namespace}/{item.pod}")
    known = "on no node yet"
    try:
        with translated("the slicer", client.targets.slicer, client.targets.hint):
            for receipt in client.receipts.Watch(request, timeout=5):
                known = f"{receipt.nodes_enforced}/{receipt.nodes_total} nodes"
    except NotFound:
        # Registered a moment ago: the slicer has not read it.
        pass
    record = rows.endpoint(item)
    return {
        "interface": item.owner.interface,
        **{key: record[key] for key in ("addresses", "state", "incarnation", "generation")},
        "known": known,
    }

"""`deltaplane status`: is it all there, and is it all in force?"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.cli.output import Record, Value


def status(context: typer.Context, output: Output = "table") -> None:
    """Show services, nodes and enforcement. Exit code 3 when a service is not reachable.

    Example: deltaplane status -o json
    """
    from deltaplane.cli import output as out
    from deltaplane.cli.getting import connected

    form = out.choose(output)
    with connected(context) as client:
        checks = [_registry, _ipam, _slicer]
        found = [_check(client, check) for check in checks]
    record: dict[str, Value] = {}
    for part, _ in found:
        record |= part
    out.show_one(record, form)
    if not all(reachable for _, reachable in found):
        raise typer.Exit(3)


def _check(client: "Client", check: "Callable[[Client], Record]") -> "tuple[Record, bool]":
    """What a service says, or why it does not."""
    from deltaplane.errors import DeltaplaneError

    try:
        return check(client), True
    except DeltaplaneError as error:
        return {check.__name__.strip("_"): str(error)}, False


def _registry(client: "Client") -> "Record":
    from deltaplane.cli.getting import list_endpoints
    from deltaplane.v1 import registry_pb2

    nodes = client.registry.ListNodes(registry_pb2.ListNodesRequest())
    pods = client.registry.ListPods(registry_pb2.ListPodsRequest()).pods
    identities = client.registry.ListIdentities(registry_pb2.ListIdentitiesRequest()).identities
    known = client.registry.ListPolicies(registry_pb2.ListPoliciesRequest())
    return {
        "registry": f"serves at {client.targets.registry}",
        "store revision": nodes.revision,
        "nodes": len(nodes.nodes),
        "pods": len(pods),
        "endpoints": len(list_endpoints(client)),
        "identities": len(identities),
        "policies": len(known.policies) + len(known.others),
    }


def _ipam(client: "Client") -> "Record":
    from deltaplane.cli import rows
    from deltaplane.v1 import ipam_pb2

    pools = client.ipam.ListPools(ipam_pb2.ListPoolsRequest()).pools
    return {
        "ipam": f"serves at {client.targets.ipam}",
        "pools": [
            f"{item.pool.name} {rows.prefix(item.pool.prefix)}:"
            f" {item.blocks_claimed} of {item.blocks_total} blocks claimed"
            for item in pools
        ],
    }


def _slicer(client: "Client") -> "Record":
    from deltaplane.v1 import slicer_pb2

    answer = client.slicer.ListAgents(slicer_pb2.ListAgentsRequest())
    return {
        "slicer": f"serves at {client.targets.slicer} as {answer.server_id}",
        "slicer revision": answer.head_revision,
        "agents": [
            f"{agent.node}: agrees with revision {agent.effective_revision}"
            f", heard {agent.silent_seconds:.1f} s ago"
            + (f", {agent.nacked_objects} objects refused" if agent.nacked_objects else "")
            for agent in answer.agents
        ]
        or "none is connected",
    }

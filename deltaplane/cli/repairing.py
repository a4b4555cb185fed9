"""Carries out the repairs of `deltaplane ipam check`."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from deltaplane.check.findings import (
    AskAgent,
    Finding,
    FixPointer,
    ReleaseEndpoint,
    RemoveLeftovers,
    Repair,
)
from deltaplane.cli.client import Client
from deltaplane.cli.looking import Look
from deltaplane.errors import DeltaplaneError
from deltaplane.v1 import audit_pb2, common_pb2, registry_pb2

DONE = "done"


def repair(client: Client, look: Look) -> Sequence[tuple[Finding, str]]:
    """Repairs what can be repaired; each finding with DONE, or with the reason why it was not.

    DONE says that it was asked for: who carries it out looks again, and may find nothing wrong.
    """
    targets = {view.name: target for target, view in look.views.items()}
    outcomes: dict[Repair, str] = {}
    repaired = []
    for finding in look.findings:
        if finding.repair is None:
            continue
        # Several findings may have one cause, and with it one repair.
        if finding.repair not in outcomes:
            try:
                outcomes[finding.repair] = _carry_out(client, targets, finding.repair)
            except DeltaplaneError as error:
                outcomes[finding.repair] = str(error)
        repaired.append((finding, outcomes[finding.repair]))
    return repaired


def _carry_out(client: Client, targets: Mapping[str, str], what: Repair) -> str:
    match what:
        case FixPointer():
            pointer = audit_pb2.PointerRepair(
                key=what.key, mod_revision=what.revision, target=what.target
            )
            client.records.RepairPointers(audit_pb2.RepairPointersRequest(repairs=[pointer]))
            return DONE
        case RemoveLeftovers():
            client.records.RemoveLeftovers(audit_pb2.RemoveLeftoversRequest(node=what.node))
            return DONE
        case ReleaseEndpoint():
            client.registry.ReleaseEndpoints(_release(what))
            return DONE
        case AskAgent():
            stub = client.node_addresses(targets[what.node])
            answer = stub.RepairAddresses(
                audit_pb2.RepairAddressesRequest(repairs=[_for_agent(what)])
            )
            return answer.refusals[0] or DONE
        case _:
            assert_never(what)


def _release(what: ReleaseEndpoint) -> registry_pb2.ReleaseEndpointsRequest:
    release = registry_pb2.EndpointRelease(
        namespace=what.namespace,
        pod=what.pod,
        node=what.node,
        id=what.number,
        incarnation=what.incarnation,
    )
    return registry_pb2.ReleaseEndpointsRequest(releases=[release], node_uid=what.node_uid)


def _for_agent(what: AskAgent) -> audit_pb2.AddressRepair:
    if what.interface:
        return audit_pb2.AddressRepair(interface=what.interface)
    if what.link:
        return audit_pb2.AddressRepair(link=what.link)
    if what.route is not None:
        route = common_pb2.Prefix(address=what.route.address, length=what.route.length)
        return audit_pb2.AddressRepair(route=route)
    if what.blocks:
        return audit_pb2.AddressRepair(blocks=True)
    return audit_pb2.AddressRepair(data_path=True)

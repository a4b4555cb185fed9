"""deltaplane.v1.NodeAddresses: what journal and kernel hold, for `deltaplane ipam check`.

The journal is one value of one moment, the kernel is read after it: an interface that comes or goes
in between differs, and whoever compares looks again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc.aio

from deltaplane import wire
from deltaplane.errors import DeltaplaneError, Invalid
from deltaplane.model.addresses import AddressPair, from_mapped, to_mapped
from deltaplane.v1 import audit_pb2 as pb
from deltaplane.v1 import audit_pb2_grpc, registry_pb2
from nodeagent import addressing
from nodeagent.apply import Applier
from nodeagent.control import NodeFacts
from nodeagent.dataplane.port import Actual, DataPlane, LocalEndpoint
from nodeagent.entries import InterfaceRecord, Ledger, State
from nodeagent.journal import Journal
from nodeagent.mending import Mender
from nodeagent.netlink.addresses import AddressTable
from nodeagent.worker import Worker

Context = grpc.aio.ServicerContext[Any, Any]

MAX_REPAIRS = 500

_STATES = {
    State.ALLOCATING: pb.JournalInterface.STATE_ALLOCATING,
    State.READY: pb.JournalInterface.STATE_READY,
    State.RELEASING: pb.JournalInterface.STATE_RELEASING,
    State.LOST: pb.JournalInterface.STATE_LOST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSources:
    """Where the answers come from.

    worker: the thread of the data path; reader: the one of the table.
    """

    node: NodeFacts
    journal: Journal
    applier: Applier
    dataplane: DataPlane
    worker: Worker
    table: AddressTable
    reader: Worker


class NodeAddressesServicer(audit_pb2_grpc.NodeAddressesServicer):
    """Implements the service."""

    def __init__(self, sources: AddressSources, mender: Mender) -> None:
        self._from = sources
        self._mender = mender

    async def ListAddresses(
        self, request: pb.ListAddressesRequest, context: Context
    ) -> pb.ListAddressesResponse:
        """Journal, then kernel."""
        del context
        source = self._from
        ledger = source.journal.ledger
        answer = pb.ListAddressesResponse(
            node=source.node.name,
            node_uid=source.node.uid,
            node_index=source.applier.tracker.node_index,
            lineage=ledger.progress.lineage,
            applied_revision=source.applier.applied,
            watermark_revision=ledger.progress.watermark,
        )
        if answer.applied_revision < request.applied_revision:
            return answer
        answer.blocks.extend(_blocks(ledger))
        answer.interfaces.extend(_interfaces(ledger))
        answer.released.extend(_released(ledger))
        links = await source.reader.call(source.table.links, source.node.uid)
        routes = await source.reader.call(source.table.routes)
        actual = await source.worker.call(source.dataplane.dump)
        answer.links.extend(
            pb.KernelLink(name=link.name, ifindex=link.index, id=link.number) for link in links
        )
        answer.routes.extend(
            pb.KernelRoute(
                prefix=wire.prefix_to_proto(route.prefix),
                ifindex=route.index,
                via=route.via or b"",
                unreachable=route.unreachable,
            )
            for route in routes
        )
        served = await source.worker.call(_served, source.dataplane, actual)
        answer.endpoints.extend(served)
        answer.mappings.extend(_mappings(ledger, actual))
        return answer

    async def RepairAddresses(
        self, request: pb.RepairAddressesRequest, context: Context
    ) -> pb.RepairAddressesResponse:
        """Puts right what is wrong; see `nodeagent.mending`."""
        del context
        if len(request.repairs) > MAX_REPAIRS:
            raise Invalid("repairs", f"has more than {MAX_REPAIRS} entries")
        refusals = []
        for index, repair in enumerate(request.repairs):
            try:
                await self._repair(repair, f"repairs[{index}]")
            except (DeltaplaneError, OSError) as error:
                refusals.append(str(error))
            else:
                refusals.append("")
        return pb.RepairAddressesResponse(refusals=refusals)

    async def _repair(self, repair: pb.AddressRepair, path: str) -> None:
        match repair.WhichOneof("what"):
            case "interface":
                await self._mender.interface(repair.interface)
            case "link":
                await self._mender.link(repair.link)
            case "route":
                await self._mender.route(wire.prefix_from_proto(repair.route, f"{path}.route"))
            case "data_path":
                await self._mender.data_path()
            case "blocks":
                await self._mender.blocks()
            case None:
                raise Invalid(path, "names nothing to repair")


# --- journal -------------------------------------------------------------------------------------


def _blocks(ledger: Ledger) -> Iterator[pb.JournalBlock]:
    for block in ledger.blocks.values():
        counts = addressing.counts(block, ledger.progress)
        yield pb.JournalBlock(
            prefix=wire.prefix_to_proto(block.prefix),
            pool=block.pool,
            fixed=block.fixed,
            releasing=block.releasing,
            usable_after_revision=block.usable_after,
            held=counts.held,
            quarantined=counts.quarantined,
            reserved=counts.reserved,
            foreign=counts.foreign,
            free=counts.free,
        )


def _interfaces(ledger: Ledger) -> Iterator[pb.JournalInterface]:
    for number, record in sorted(ledger.interfaces.items()):
        yield pb.JournalInterface(
            id=number,
            state=_STATES[record.state],
            owner=_owner(record),
            namespace=record.pod.namespace,
            pod=record.pod.name,
            addresses=wire.address_pair_to_proto(record.addresses),
        )


def _owner(record: InterfaceRecord) -> registry_pb2.OwnerToken:
    return registry_pb2.OwnerToken(
        network=record.attachment.network,
        container_id=record.attachment.container_id,
        interface=record.attachment.ifname,
        attempt=record.attempt,
    )


def _released(ledger: Ledger) -> Iterator[pb.JournalRelease]:
    for block in ledger.blocks.values():
        for gone in block.released:
            # One that another node has claimed alone is not ours to hand out.
            if block.foreign >> gone.offset & 1:
                continue
            yield pb.JournalRelease(
                address=block.prefix.nth(gone.offset),
                revision=gone.revision,
                lineage=gone.lineage,
                since_unix_ns=int(gone.since * 1e9),
                free=ledger.progress.passed(gone.lineage, gone.revision),
            )


# --- data path -----------------------------------------------------------------------------------


def _served(dataplane: DataPlane, actual: Actual) -> list[pb.DataPathEndpoint]:
    """Interfaces with those of their addresses whose packets they get. In the worker thread."""
    return [
        pb.DataPathEndpoint(
            ifindex=endpoint.ifindex,
            id=endpoint.endpoint_id,
            identity=endpoint.identity,
            addresses=wire.address_pair_to_proto(pair) if pair else None,
        )
        for endpoint in sorted(actual.local_endpoints, key=lambda item: item.ifindex)
        for pair in [_reached(dataplane, endpoint)]
    ]


def _reached(dataplane: DataPlane, endpoint: LocalEndpoint) -> AddressPair | None:
    four, six = (
        address if address and dataplane.holder_of(to_mapped(address)) == endpoint.ifindex else None
        for address in (endpoint.ipv4, endpoint.ipv6)
    )
    return AddressPair(ipv4=four, ipv6=six) if four or six else None


def _mappings(ledger: Ledger, actual: Actual) -> Iterable[pb.DataPathMapping]:
    own = {
        to_mapped(address) for record in ledger.interfaces.values() for address in record.addresses
    }
    for endpoint in actual.local_endpoints:
        own |= {to_mapped(address) for address in (endpoint.ipv4, endpoint.ipv6) if address}
    for mapping in actual.mappings:
        if mapping.address in own:
            yield pb.DataPathMapping(
                address=from_mapped(mapping.address),
                identity=mapping.identity,
                node_index=mapping.node_index,
            )

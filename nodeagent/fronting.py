"""What the kernel holds of services, as deltaplane.v1.NodeFrontend."""

from collections import defaultdict
from collections.abc import Iterator

from deltaplane import wire
from deltaplane.model.addresses import from_mapped
from deltaplane.model.ports import Protocol
from deltaplane.v1 import agent_pb2
from nodeagent.dataplane.balancing import Backend, Balancing, Frontend


def frontends(
    held: Balancing, request: agent_pb2.ListFrontendsRequest
) -> Iterator[agent_pb2.NodeFrontend]:
    """Those that are asked for, ordered by address, protocol and port."""
    slots: dict[int, list[Backend]] = defaultdict(list)
    for slot in sorted(held.slots, key=lambda slot: slot.slot):
        slots[slot.list_id].append(slot.backend)
    for frontend in sorted(held.frontends, key=lambda frontend: frontend.key):
        address = from_mapped(frontend.key.address)
        if request.addresses and address not in request.addresses:
            continue
        if request.port in (0, frontend.key.port):
            yield _message(frontend, address, slots)


def _message(
    frontend: Frontend, address: bytes, slots: dict[int, list[Backend]]
) -> agent_pb2.NodeFrontend:
    # A list is dense up to count: what lies behind is on its way in or out.
    inside = slots.get(frontend.list_id, [])[: frontend.count]
    outside = slots.get(frontend.outside_list, []) if frontend.outside_count else []
    return agent_pb2.NodeFrontend(
        address=address,
        protocol=wire.protocol_to_proto(Protocol(frontend.key.protocol)),
        port=frontend.key.port,
        service=frontend.service,
        backends=map(_backend, inside),
        outside=frontend.outside_list != 0,
        outside_backends=map(_backend, outside),
        affinity_seconds=frontend.affinity_seconds,
        check_source=frontend.check_source,
        local=frontend.local,
    )


def _backend(backend: Backend) -> agent_pb2.FrontendBackend:
    return agent_pb2.FrontendBackend(address=from_mapped(backend.address), port=backend.port)

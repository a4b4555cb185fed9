"""Answers of the services as records to print. Pure."""

from collections.abc import Iterable, Mapping

from deltaplane.cli.output import Record
from deltaplane.model.addresses import Prefix, format_address
from deltaplane.v1 import common_pb2, ipam_pb2, receipts_pb2, registry_pb2, slicer_pb2


def addresses(pair: common_pb2.AddressPair) -> list[str]:
    """Textual addresses, IPv4 first."""
    return [format_address(address) for address in (pair.ipv4, pair.ipv6) if address]


def prefix(value: common_pb2.Prefix) -> str:
    """For example "10.244.0.0/26"."""
    return f"{format_address(value.address)}/{value.length}"


def labels(values: Mapping[str, str]) -> dict[str, str]:
    """Labels in a stable order."""
    return dict(sorted(values.items()))


def nodes(
    known: Iterable[registry_pb2.Node],
    agents: Iterable[slicer_pb2.AgentStatus],
    fences: Iterable[registry_pb2.Fence] = (),
) -> list[Record]:
    """Nodes with what the slicer knows of their agents."""
    by_name = {agent.node: agent for agent in agents}
    by_index = {fence.node_index: fence for fence in fences}
    return [
        {
            "name": node.name,
            "index": node.index,
            "addresses": addresses(node.addresses),
            "state": node_state(by_index.get(node.index), by_name.get(node.name)),
            "connected": node.name in by_name,
            "effective_revision": by_name[node.name].effective_revision
            if node.name in by_name
            else 0,
            "refused_objects": by_name[node.name].nacked_objects if node.name in by_name else 0,
            "uid": node.uid,
        }
        for node in known
    ]


def node_state(fence: registry_pb2.Fence | None, agent: slicer_pb2.AgentStatus | None) -> str:
    """Live: released addresses wait for the node. Joining and fenced: they do not.

    Braked: it removes nothing, see `deltaplane node sweep`.
    """
    state = "live"
    if fence is not None:
        joining = fence.reason == registry_pb2.Fence.REASON_JOINING
        state = "joining" if joining else "fenced"
    if agent is None or not agent.braked:
        return state
    return "braked" if fence is None else f"{state}, braked"


def quarantine(answer: slicer_pb2.GetQuarantineResponse) -> Record:
    """Released addresses that wait, and for whom."""
    return {
        "watermark": answer.watermark_revision,
        "strict_watermark": answer.strict_watermark_revision,
        "head": answer.head_revision,
        "total": answer.total,
        "addresses": quarantined(answer),
        "waits_for": holders(answer),
    }


def quarantined(answer: slicer_pb2.GetQuarantineResponse) -> list[Record]:
    """The addresses, oldest release first."""
    return [
        {
            "address": format_address(item.address),
            "node": item.node,
            "released_revision": item.released_revision,
            "seconds": round(item.seconds, 1),
        }
        for item in answer.addresses
    ]


def holders(answer: slicer_pb2.GetQuarantineResponse) -> list[Record]:
    """Nodes that have not passed the newest release."""
    return [
        {
            "node": item.node,
            "effective_revision": item.effective_revision,
            "fenced": item.fenced,
            "reason": item.reason,
        }
        for item in answer.holders
    ]


def endpoint(item: registry_pb2.Endpoint) -> Record:
    """One endpoint."""
    return {
        "namespace": item.namespace,
        "pod": item.pod,
        "addresses": addresses(item.addresses),
        "node": item.node,
        "id": item.id,
        "identity": item.identity,
        "state": registry_pb2.Endpoint.State.Name(item.state).removeprefix("STATE_").lower(),
        "incarnation": item.meta.create_revision,
        "generation": item.meta.mod_revision,
    }


def identity(item: registry_pb2.Identity) -> Record:
    """One identity."""
    return {
        "id": item.id,
        "namespace": item.namespace,
        "labels": labels(item.labels),
        "named_ports": [
            f"{port.name}:{port.number}/{protocol(port.protocol)}" for port in item.named_ports
        ],
        "namespace_labels": labels(item.namespace_labels),
    }


def protocol(number: common_pb2.Protocol.ValueType) -> str:
    """For example "TCP"."""
    return common_pb2.Protocol.Name(number).removeprefix("PROTOCOL_")


def slice_(item: slicer_pb2.Slice) -> Record:
    """One slice."""
    return {
        "slice": item.id,
        "identity": item.identity,
        "endpoints": len(item.endpoints),
        "generation": item.generation,
        "members": [
            f"{member.node_index}/{member.id}"
            f" {' '.join(format_address(a) for a in (member.ipv4, member.ipv6) if a)}"
            for member in item.endpoints
        ],
    }


def receipt(subject: str, item: receipts_pb2.WatchResponse) -> Record:
    """Where one policy is enforced."""
    return {
        "policy": subject,
        "revision": item.revision,
        "enforced": item.nodes_enforced,
        "nodes": item.nodes_total,
        "complete": item.complete,
        "missing": [missing(node) for node in item.missing],
    }


def missing(node: receipts_pb2.MissingNode) -> str:
    """A node that does not enforce something yet, and why."""
    reason = node.reason
    if reason == "lagging" and node.lagging_seconds:
        reason = f"lagging {node.lagging_seconds:.1f} s"
    if node.refused:
        refused = node.refused[0]
        reason = f"refused: {refused.object}: {refused.reason}"
        if more := len(node.refused) - 1:
            reason += f" and {more} more"
    return f"{node.node} ({reason})"


def block(item: ipam_pb2.Block, known: Iterable[registry_pb2.Endpoint]) -> Record:
    """One block; known: all endpoints, or those with addresses of the block."""
    return {
        "prefix": prefix(item.prefix),
        "pool": item.pool,
        "node": item.node,
        "node_index": item.node_index,
        "used": len(_addresses_in(item.prefix, known)),
        "fixed": item.fixed,
        "usable_after": item.usable_after_revision,
    }


def pool(item: ipam_pb2.PoolStatus, known: Iterable[registry_pb2.Endpoint]) -> Record:
    """One pool with how full it is; known: all endpoints.

    Free are addresses that nobody has, whether a node owns their block or not; reserved ones are
    not free.
    """
    used = _addresses_in(item.pool.prefix, known)
    held = [_value(range_) for range_ in item.pool.reserved]
    reserved = sum(range_.size for range_ in held)
    used_reserved = sum(any(range_.contains(address) for range_ in held) for address in used)
    capacity = _value(item.pool.prefix).size
    settings = pool_settings(item.pool)
    return {
        "name": settings["name"],
        "prefix": settings["prefix"],
        "block_length": settings["block_length"],
        "capacity": capacity,
        "blocks_claimed": item.blocks_claimed,
        "blocks_total": item.blocks_total,
        "used": len(used),
        "free": capacity - reserved - (len(used) - used_reserved),
        **{name: settings[name] for name in ("mode", "draining", "on_request", "reserved")},
    }


def pool_settings(item: ipam_pb2.Pool) -> Record:
    """What a pool is told to be."""
    return {
        "name": item.name,
        "prefix": prefix(item.prefix),
        "block_length": item.block_length,
        "mode": "static" if item.mode == ipam_pb2.Pool.MODE_STATIC else "demand",
        "draining": item.draining,
        "on_request": item.on_request,
        "min_free_percent": item.min_free_percent,
        "reserved": [prefix(range_) for range_ in item.reserved],
        "revision": item.meta.mod_revision,
    }


def by_node(
    known: Iterable[registry_pb2.Endpoint],
) -> dict[str, list[registry_pb2.Endpoint]]:
    """Endpoints by the name of their node."""
    found: dict[str, list[registry_pb2.Endpoint]] = {}
    for item in known:
        found.setdefault(item.node, []).append(item)
    return found


def _addresses_in(range_: common_pb2.Prefix, known: Iterable[registry_pb2.Endpoint]) -> list[bytes]:
    """Addresses of endpoints that lie in a prefix."""
    inside = _value(range_)
    every = (a for e in known for a in (e.addresses.ipv4, e.addresses.ipv6))
    return [address for address in every if inside.contains(address)]


def _value(message: common_pb2.Prefix) -> Prefix:
    return Prefix(message.address, message.length)


def pod(item: registry_pb2.Pod, endpoints: Iterable[registry_pb2.Endpoint]) -> Record:
    """One pod record with its endpoint's addresses."""
    mine = [known for known in endpoints if known.pod == item.name]
    return {
        "namespace": item.namespace,
        "name": item.name,
        "node": item.node,
        "addresses": [address for known in mine for address in addresses(known.addresses)],
        "identity": mine[0].identity if mine else 0,
        "labels": labels(item.labels),
    }


def namespace(item: registry_pb2.Namespace) -> Record:
    """One namespace."""
    return {"name": item.name, "labels": labels(item.labels)}

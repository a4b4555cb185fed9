"""Stored records and API messages ↔ the values of the slicer.

Two services write the records and this one reads them: bytes that cannot be read are reported and
closed, never fatal.
"""

from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import DecodeError

from deltaplane import policywire, servicewire, wire
from deltaplane.delta.reader import Reader
from deltaplane.errors import Invalid
from deltaplane.model.objects import (
    BRAKED,
    BlockObject,
    EndpointObject,
    Kind,
    NodeObject,
    PoolObject,
)
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.tiers import Policy, PolicyKind
from deltaplane.store import keys
from deltaplane.store.port import Event, KeyValue
from deltaplane.v1 import (
    ipam_pb2,
    policy_pb2,
    receipts_pb2,
    registry_pb2,
    service_pb2,
    slicer_pb2,
)
from services.slicer.facts import Content, EndpointRecord, NodeRecord, Record
from services.slicer.fanout import Fanout
from services.slicer.receipts import Effective, Holder, Missing, Receipt, Report
from services.slicer.standins import standin
from services.slicer.timings import Spread
from services.slicer.watermark import Fence

DEFAULT_MIN_FREE_PERCENT = 50
"""What 0 in a pool's record stands for."""


def record_from_store(entry: KeyValue | Event) -> Record:
    """The record of a stored key or of a watch event."""
    if entry.value is None:
        return Record(key=entry.key, generation=entry.mod_revision, content=None)
    content: Content | None = None
    mistake = ""
    try:
        content = _parse(entry.key, entry.value, entry.create_revision)
    except (DecodeError, Invalid, ValueError) as error:
        mistake = str(error)
        if entry.key.startswith(keys.POLICIES):
            content = standin(entry.key, entry.value)
    return Record(key=entry.key, generation=entry.mod_revision, content=content, mistake=mistake)


def _parse(key: str, value: bytes, create_revision: int) -> Content | None:
    for prefix, parse in _PARSERS.items():
        if key.startswith(prefix):
            return _owned(key, parse(value, create_revision))
    if key.startswith(keys.POLICIES):
        return _owned(key, _policy(key, value))
    return None  # a kind of a later version


def _owned(key: str, parsed: tuple[str, Content]) -> Content:
    belongs_to, content = parsed
    if belongs_to != key:
        raise Invalid("", f"the record belongs to {belongs_to}")
    return content


def _node(value: bytes, _: int) -> tuple[str, Content]:
    message = registry_pb2.Node.FromString(value)
    if not message.index:
        raise Invalid("index", "a node's number is 1 or more")
    addresses = wire.address_pair_from_proto(message.addresses, "addresses")
    node = NodeObject(index=message.index, name=message.name, addresses=addresses)
    return keys.node(message.name), NodeRecord(node, message.uid)


def _fence(value: bytes, create_revision: int) -> tuple[str, Content]:
    message = registry_pb2.Fence.FromString(value)
    if not message.node_index:
        raise Invalid("node_index", "a node's number is 1 or more")
    fence = Fence(
        node=message.node,
        node_index=message.node_index,
        node_uid=message.node_uid,
        joining=message.reason == registry_pb2.Fence.REASON_JOINING,
        created=create_revision,
    )
    return keys.fence(message.node), fence


def _block(value: bytes, _: int) -> tuple[str, Content]:
    message = ipam_pb2.Block.FromString(value)
    prefix = wire.prefix_from_proto(message.prefix, "prefix")
    return keys.block(prefix), BlockObject(prefix=prefix, node_index=message.node_index)


def _pool(value: bytes, _: int) -> tuple[str, Content]:
    message = ipam_pb2.Pool.FromString(value)
    pool = PoolObject(
        name=message.name,
        prefix=wire.prefix_from_proto(message.prefix, "prefix"),
        block_length=message.block_length,
        reserved=tuple(wire.prefix_from_proto(item, "reserved") for item in message.reserved),
        is_static=message.mode == ipam_pb2.Pool.MODE_STATIC,
        draining=message.draining,
        min_free_percent=message.min_free_percent or DEFAULT_MIN_FREE_PERCENT,
        on_request=message.on_request,
    )
    return keys.pool(message.name), pool


def _identity(value: bytes, _: int) -> tuple[str, Content]:
    identity = wire.identity_from_proto(registry_pb2.Identity.FromString(value))
    return keys.identity(identity.id), identity


def _endpoint(value: bytes, create_revision: int) -> tuple[str, Content]:
    message = registry_pb2.Endpoint.FromString(value)
    if not message.node_index or not message.id or not message.identity:
        raise Invalid("", "an endpoint has a node index, an id and an identity")
    endpoint = EndpointObject(
        node_index=message.node_index,
        id=message.id,
        identity=message.identity,
        addresses=wire.address_pair_from_proto(message.addresses, "addresses"),
        incarnation=create_revision,
    )
    key = keys.endpoint(message.namespace, message.pod, message.node, message.id)
    return key, EndpointRecord(endpoint, message.traceparent)


def _service(value: bytes, _: int) -> tuple[str, Content]:
    service = servicewire.service_from_proto(service_pb2.Service.FromString(value))
    if not service.number:
        raise Invalid("number", "a service's number is 1 or more")
    return keys.service(service.namespace, service.name), service


def _endpoint_slice(value: bytes, _: int) -> tuple[str, Content]:
    item = servicewire.slice_from_proto(service_pb2.EndpointSlice.FromString(value))
    return keys.endpoint_slice(item.namespace, item.name), item


def _policy(key: str, value: bytes) -> tuple[str, Content]:
    policy: NetworkPolicy | Policy
    named = keys.parse_policy(key)
    if named is None or named[0] == PolicyKind.NETWORK_POLICY:
        policy = wire.network_policy_from_proto(policy_pb2.NetworkPolicy.FromString(value))
        return keys.policy(policy.namespace, policy.name), policy
    policy = policywire.policy_from_proto(policy_pb2.Policy.FromString(value))
    return keys.policy(policy.namespace, policy.name, policy.kind), policy


_PARSERS: Mapping[str, Callable[[bytes, int], tuple[str, Content]]] = {
    keys.ENDPOINTS: _endpoint,  # most of what is written
    keys.ENDPOINT_SLICES: _endpoint_slice,
    keys.SERVICES: _service,
    keys.NODES: _node,
    keys.FENCES: _fence,
    keys.BLOCKS: _block,
    keys.POOLS: _pool,
    keys.IDENTITIES: _identity,
}


def fence_to_record(fence: Fence) -> bytes:
    """The record of a fence; when it was created is the store's to say."""
    reason = registry_pb2.Fence.REASON_UNREACHABLE
    message = registry_pb2.Fence(
        node=fence.node,
        node_index=fence.node_index,
        node_uid=fence.node_uid,
        reason=registry_pb2.Fence.REASON_JOINING if fence.joining else reason,
    )
    return message.SerializeToString(deterministic=True)


def node_of_record(stored: KeyValue) -> registry_pb2.Node:
    """Reads a node as it is stored."""
    return registry_pb2.Node.FromString(stored.value)


def agent_to_proto(reader: Reader, *, effective: int, now: float) -> slicer_pb2.AgentStatus:
    """What is known of a connected agent. now: seconds."""
    return slicer_pb2.AgentStatus(
        node=reader.node,
        node_index=reader.node_index,
        applied_revision=reader.applied,
        effective_revision=effective,
        silent_seconds=max(0.0, now - reader.heard_at),
        worst_apply_us=reader.worst_apply_us,
        nacked_objects=len(reader.refused),
        mode=slicer_pb2.Welcome.Mode.ValueType(reader.mode),
        braked=braked(reader),
    )


def braked(reader: Reader) -> str:
    """Why an agent removes nothing, in its own words; empty: it does."""
    reason = reader.refused.get((Kind.NODE, reader.node_index.to_bytes(4)), "")
    return reason.removeprefix(BRAKED) if reason.startswith(BRAKED) else ""


def quarantine_to_proto(
    fanout: Fanout, found: Iterable[Holder], *, limit: int, wall_ns: int
) -> slicer_pb2.GetQuarantineResponse:
    """What waits at this replica, and for whom."""
    live, strict = fanout.sender.passed()
    names = {node.object.index: name for name, node in fanout.facts.nodes.items()}
    return slicer_pb2.GetQuarantineResponse(
        watermark_revision=live,
        strict_watermark_revision=strict,
        head_revision=fanout.sender.head,
        addresses=(
            slicer_pb2.QuarantinedAddress(
                address=waiting.address,
                node=names.get(waiting.node_index, ""),
                released_revision=waiting.revision,
                seconds=max(0.0, (wall_ns - waiting.seen_ns) / 1e9),
            )
            for waiting in fanout.quarantine.oldest(limit)
        ),
        total=fanout.quarantine.total,
        holders=(
            slicer_pb2.Holder(
                node=holder.node,
                node_index=holder.node_index,
                effective_revision=holder.effective_revision,
                fenced=holder.fenced,
                reason=holder.reason,
            )
            for holder in found
        ),
    )


def report_to_proto(report: Report, head: int) -> receipts_pb2.ListEffectiveResponse:
    """The answer to another replica."""
    counts = report.times.counts
    steps = sorted(counts)
    return receipts_pb2.ListEffectiveResponse(
        nodes=(
            receipts_pb2.EffectiveRevision(
                node_index=entry.node_index,
                revision=entry.revision,
                refused=entry.refused,
                lagging_seconds=entry.lagging_seconds,
            )
            for entry in sorted(report.nodes, key=lambda entry: entry.node_index)
        ),
        head_revision=head,
        times=receipts_pb2.Spread(steps=steps, counts=[counts[step] for step in steps]),
    )


def report_from_proto(message: receipts_pb2.ListEffectiveResponse) -> Report:
    """Another replica's answer; one that is older says less."""
    return Report(
        nodes=tuple(
            Effective(
                node_index=entry.node_index,
                revision=entry.revision,
                refused=tuple(entry.refused),
                lagging_seconds=entry.lagging_seconds,
            )
            for entry in message.nodes
        ),
        times=Spread(dict(zip(message.times.steps, message.times.counts, strict=False))),
    )


def receipt_to_proto(value: Receipt, elapsed_ms: float) -> receipts_pb2.WatchResponse:
    """A receipt, elapsed_ms after the call began."""
    return receipts_pb2.WatchResponse(
        revision=value.revision,
        nodes_total=value.nodes_total,
        nodes_enforced=value.nodes_enforced,
        missing=map(_missing_to_proto, value.missing),
        complete=value.complete,
        elapsed_ms=elapsed_ms,
        times=_times_to_proto(value.times) if value.times.total else None,
    )


def _missing_to_proto(value: Missing) -> receipts_pb2.MissingNode:
    return receipts_pb2.MissingNode(
        node=value.node,
        effective_revision=value.effective_revision,
        reason=value.reason,
        lagging_seconds=value.lagging_seconds,
        refused=(
            receipts_pb2.RefusedObject(object=refused.object, reason=refused.reason)
            for refused in value.refused
        ),
    )


def _times_to_proto(times: Spread) -> receipts_pb2.EnforcementTimes:
    return receipts_pb2.EnforcementTimes(
        nodes=times.total,
        p50_ms=times.quantile(0.5) * 1000,
        p99_ms=times.quantile(0.99) * 1000,
        max_ms=times.quantile(1.0) * 1000,
    )
